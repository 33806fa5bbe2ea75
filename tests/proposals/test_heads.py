"""Which value of the head each component reads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pps_fast.proposals.heads import CENTERS, WIDTHS, ComponentHead
from pps_fast.proposals.layout import MixtureLayout, ramp, uniform
from tests.support import oracles
from tests.support.cases import LAYOUTS, randomize
from tests.support.compare import assert_agree
from tests.support.oracles_model import width_across_batch

WIDTH = 6
EVERY = [(center, width) for center in sorted(CENTERS) for width in sorted(WIDTHS)]


def _head(layout: MixtureLayout, center: str = "per_component", width: str = "per_component") -> ComponentHead:
    return randomize(ComponentHead(WIDTH, layout, center, width).double())


def _g_cls(num_samples: int = 5) -> Tensor:
    return torch.randn(num_samples, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _raw(linear: torch.nn.Linear, g_cls: Tensor) -> Tensor:
    arrays = [value.detach().numpy() for value in (g_cls, linear.weight, linear.bias)]
    return torch.from_numpy(oracles.sigmoid_head(*arrays))


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_values_per_component_are_the_heads_own(name: str) -> None:
    head, g_cls = _head(LAYOUTS[name]), _g_cls()
    center, width = head(g_cls)
    assert_agree("center", center, _raw(head.center, g_cls), atol=1e-14)
    assert_agree("width", width, _raw(head.width, g_cls), atol=1e-14)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_values_per_proposal_are_shared_by_its_components(name: str) -> None:
    layout = LAYOUTS[name]
    head, g_cls = _head(layout, "per_proposal", "per_proposal"), _g_cls()
    for got, linear in zip(head(g_cls), (head.center, head.width), strict=True):
        raw = _raw(linear, g_cls)
        assert raw.shape[1] == layout.num_proposals
        expected = torch.stack([raw[:, k] for k, n in enumerate(layout.components_per_proposal) for _ in range(n)], 1)
        assert_agree("shared", got, expected, atol=1e-14)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_the_first_components_width_is_shared(name: str) -> None:
    layout = LAYOUTS[name]
    head, g_cls = _head(layout, width="first"), _g_cls()
    raw, columns, start = _raw(head.width, g_cls), [], 0
    for count in layout.components_per_proposal:
        columns += [raw[:, start]] * count
        start += count
    assert_agree("first", head(g_cls)[1], torch.stack(columns, 1), atol=1e-14)


@pytest.mark.parametrize("num_samples", [1, 2, 5, 32])
@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_the_published_mix_up_reads_sample_b_over_k_and_component_b_mod_k(name: str, num_samples: int) -> None:
    layout = LAYOUTS[name]
    head, g_cls = _head(layout, width="across_batch"), _g_cls(num_samples)
    raw = _raw(head.width, g_cls)
    expected = width_across_batch(raw.numpy(), layout.components_per_proposal)
    got = head(g_cls)[1]
    assert_agree("mixed up", got, torch.from_numpy(expected), atol=1e-14)
    for e, k in enumerate(layout.group):
        count = layout.components_per_proposal[k]
        for b in range(num_samples):
            assert_agree("formula", got[b, e], raw[b // count, layout.offsets[k] + b % count], atol=1e-14)


def test_a_proposal_of_seven_reads_38_of_224_widths_from_its_own_sample() -> None:
    layout = ramp(7)
    sample = torch.arange(32, dtype=torch.float64).unsqueeze(1).expand(-1, layout.num_components)
    read = width_across_batch(sample.numpy(), layout.components_per_proposal)[:, list(layout.offsets[:-1])]
    assert (read == sample.numpy()[:, :7]).sum() == 38


def test_the_largest_width_scales_all_widths_and_no_center() -> None:
    layout, g_cls = uniform(3, 1), _g_cls()
    whole = _head(layout, width="per_component")
    part = randomize(ComponentHead(WIDTH, layout, "per_component", "per_component", 0.45).double())
    assert_agree("width", part(g_cls)[1], 0.45 * whole(g_cls)[1], atol=1e-15)
    assert_agree("center", part(g_cls)[0], whole(g_cls)[0])


@pytest.mark.parametrize(("center", "width"), EVERY)
def test_only_the_mix_up_depends_on_the_other_samples(center: str, width: str) -> None:
    head, g_cls = _head(ramp(3), center, width), _g_cls(4)
    changed = g_cls.clone()
    changed[[0, 1, 3]] += 1
    before, after = head(g_cls), head(changed)
    assert_agree("center", after[0][2], before[0][2])
    if width == "across_batch":
        assert (after[1][2] != before[1][2]).any()
    else:
        assert_agree("width", after[1][2], before[1][2])


@pytest.mark.parametrize(("center", "width"), EVERY)
def test_every_source_gives_fractions_for_every_component_and_gradients(center: str, width: str) -> None:
    head = _head(uniform(2, 3), center, width)
    got = head(_g_cls())
    for value in got:
        assert value.shape == (5, 6)
        assert ((value > 0) & (value < 1)).all()
    sum(value.square().sum() for value in got).backward()
    for name, parameter in head.named_parameters():
        assert (parameter.grad != 0).any(), name


def test_indices_are_not_part_of_the_state() -> None:
    assert sorted(_head(ramp(3)).state_dict()) == ["center.bias", "center.weight", "width.bias", "width.weight"]
