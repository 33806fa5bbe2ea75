"""The ragged "proposal k has n_k components" as a flat axis."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pps_fast.config import ProposalsConfig
from pps_fast.proposals.layout import LAYOUTS, MixtureLayout, layout_of, ramp, uniform


def test_the_papers_layout_gives_proposal_k_k_components() -> None:
    layout = ramp(4)
    assert layout.components_per_proposal == (1, 2, 3, 4)
    assert layout.num_proposals == 4
    assert layout.num_components == 10
    assert layout.group == (0, 1, 1, 2, 2, 2, 3, 3, 3, 3)
    assert layout.offsets == (0, 1, 3, 6, 10)
    assert layout.mixed == (1, 2, 3, 4, 5, 6, 7, 8, 9)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_the_flat_axis_lists_the_proposals_one_after_the_other(counts: list[int]) -> None:
    layout, group, mixed = MixtureLayout(tuple(counts)), [], []
    for k, count in enumerate(counts):
        mixed += [] if count == 1 else range(len(group), len(group) + count)
        group += [k] * count
    assert list(layout.group) == group
    assert list(layout.mixed) == mixed
    assert layout.num_components == len(group)
    assert [group.index(k) for k in range(len(counts))] + [len(group)] == list(layout.offsets)


def test_uniform_layouts_and_single_components() -> None:
    assert uniform(3, 2).group == (0, 0, 1, 1, 2, 2)
    assert uniform(3, 1).mixed == ()


def test_a_config_names_its_layout() -> None:
    assert layout_of(ProposalsConfig(num_proposals=7)).num_components == 28
    assert layout_of(ProposalsConfig(layout="uniform", num_proposals=5, components_per_proposal=3)) == uniform(5, 3)
    assert sorted(LAYOUTS) == ["ramp", "uniform"]


@pytest.mark.parametrize("counts", [(), (1, 0, 2), (-1,)])
def test_proposals_without_components_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="components_per_proposal = .+expected one or more counts of at least 1"):
        MixtureLayout(counts)


def test_layouts_are_frozen_values() -> None:
    assert len({ramp(3), ramp(3), MixtureLayout((1, 2, 3)), ramp(2)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        ramp(3).components_per_proposal = (1,)
