"""The equations against loops in float64, their gradients, and what happens at edges, ties and kinks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from pps_fast import equations
from tests.support import oracles
from tests.support.cases import CASES, Case, to_tensors
from tests.support.compare import assert_agree
from tests.support.op_check import leaf, values_of

# an op of the alignment has its equation on another page
NAMES = [name for name in CASES if hasattr(equations, name)]
EACH = [pytest.param(name, case, id=f"{name}-{case.name}") for name in NAMES for case in CASES[name]]
MASKS = [equations.gaussian_mask, equations.gaussian_peak_mask, equations.laplace_mask]
PULLS = [equations.pull_distant, equations.pull_middle, equations.pull_all]
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)
HALF = [torch.float16, torch.bfloat16]


def _double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def _check(name: str, arrays: dict) -> None:
    results = values_of(getattr(equations, name)(**to_tensors(arrays, torch.float64)))
    for got, expected in zip(results, values_of(oracles.of_op(name, arrays)), strict=True):
        assert_agree(name, got, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("name", "case"), EACH)
def test_agrees_with_the_loops_in_float64(name: str, case: Case) -> None:
    _check(name, case.arrays())


@pytest.mark.parametrize(("name", "case"), EACH)
def test_gradients_agree_with_finite_differences(name: str, case: Case) -> None:
    inputs = case.inputs(torch.float64)
    leaves = [inputs[argument].requires_grad_() for argument in case.wrt]

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        return values_of(getattr(equations, name)(**(inputs | dict(zip(case.wrt, values, strict=True)))))

    # the full Jacobian where it is small, one random projection of it elsewhere
    size = sum(leaf.numel() for leaf in leaves) * sum(value.numel() for value in run(*leaves))
    assert gradcheck(run, leaves, fast_mode=size > 2000)


def test_heads_agree_with_the_loops_and_have_gradients() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in ((3, 4), (6, 4), (6,))]
    leaves = [torch.from_numpy(array).requires_grad_() for array in arrays]
    for head in (equations.centers, equations.widths):
        assert_agree(head.__name__, head(*leaves), oracles.sigmoid_head(*arrays), atol=1e-14)
        assert gradcheck(head, leaves)


def test_importance_scores_agree_with_the_loops_and_have_gradients() -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=shape) for shape in ((2, 5, 4), (4, 4), (1, 4))]
    leaves = [torch.from_numpy(array).requires_grad_() for array in arrays]
    assert_agree("score", equations.importance_score(*leaves), oracles.importance_score(*arrays), atol=1e-14)
    assert gradcheck(equations.importance_score, leaves)


@pytest.mark.parametrize("num_negatives", [1, 2])
@pytest.mark.parametrize("num_best", [1, 2, 5])
def test_reconstruction_losses_agree_with_the_loops_and_have_gradients(num_best: int, num_negatives: int) -> None:
    rng = np.random.default_rng(2)
    arrays = [rng.uniform(2, 3, shape) for shape in ((4, 5), (4,), (4, 5, num_negatives))]
    arrays[0][1] += 5  # both hinges of this sample are active
    arrays[0][2] -= 5  # and none of this one's
    leaves = [torch.from_numpy(array).requires_grad_() for array in arrays]

    def both(positive: Tensor, whole: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        best = equations.best_proposals(positive, num_best)
        chosen = positive.gather(1, best), negative[torch.arange(4).unsqueeze(1), best]
        return (
            equations.reconstruction_loss(chosen[0], whole),
            equations.contrastive_loss(chosen[0], whole, chosen[1], 0.1, 0.15),
        )

    assert_agree("k*", equations.best_proposals(leaves[0], num_best), oracles.best_proposals(arrays[0], num_best))
    rec, ivc = both(*leaves)
    assert_agree("rec", rec, oracles.reconstruction_loss(arrays[0], arrays[1], num_best), atol=1e-14)
    assert_agree("ivc", ivc, oracles.contrastive_loss(*arrays, (0.1, 0.15), num_best), atol=1e-14)
    assert gradcheck(both, leaves)


def test_equal_proposals_are_ranked_by_their_index() -> None:
    assert equations.best_proposals(torch.tensor([[2.0, 1.0, 1.0, 3.0]]), 3).tolist() == [[1, 2, 0]]


def test_inactive_hinges_have_no_gradient_and_a_kink_half_of_it() -> None:
    best, whole, negative = _double([[1.0]]), _double([1.5]), _double([[[1.0]]])
    loss = equations.contrastive_loss(best, whole, negative, 0.1, 0.15)
    got = torch.autograd.grad(loss, (best, whole, negative))
    assert [value.item() for value in got] == [1.0, 0.0, -1.0]
    kink = equations.contrastive_loss(best, whole, negative, 0.5, -0.25)
    got = torch.autograd.grad(kink, (best, whole, negative))
    assert [value.item() for value in got] == [0.5, -0.5, 0.0]


# --- any shape, any order of components -----------------------------------------------------------


@st.composite
def _flat(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Masks, centers and scores of components whose groups come in any order, no group empty."""
    num_groups = draw(st.integers(1, 5))
    extra = draw(st.lists(st.integers(0, num_groups - 1), max_size=6))
    group = np.array(draw(st.permutations([*range(num_groups), *extra])))
    samples, positions, seed = draw(st.integers(1, 3)), draw(st.integers(2, 17)), draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    shape = (samples, len(group))
    return {
        "masks": rng.random((*shape, positions)),
        "center": rng.random(shape),
        "score": rng.normal(0, 2, shape),
        "group": group,
        "num_groups": num_groups,
    }


@PROPERTY
@given(flat=_flat(), target=st.floats(0, 1), normalize=st.booleans())
def test_push_agrees_with_the_loops_on_any_shape(flat: dict, target: float, normalize: bool) -> None:
    _check("push", {"masks": flat["masks"], "group": flat["group"], "target": target, "normalize": normalize})


@PROPERTY
@given(flat=_flat(), strategy=st.sampled_from(["pull_distant", "pull_middle", "pull_all"]))
def test_pull_agrees_with_the_loops_on_any_shape(flat: dict, strategy: str) -> None:
    _check(strategy, {name: flat[name] for name in ("center", "group", "num_groups")})


@PROPERTY
@given(flat=_flat())
def test_importance_and_mixtures_agree_with_the_loops_on_any_shape(flat: dict) -> None:
    groups = {"group": flat["group"], "num_groups": flat["num_groups"]}
    _check("importance", {"score": flat["score"]} | groups)
    parts = oracles.importance(oracles.ragged(flat["score"], flat["group"], flat["num_groups"]))
    mixed = {"masks": flat["masks"], "log_masks": np.log(flat["masks"] + 1e-10)}
    _check("mixture", mixed | {"importance": oracles.flat(parts, flat["group"])} | groups)
    _check("peak_mixture", {"masks": flat["masks"]} | groups)


@PROPERTY
@given(flat=_flat(), shift=st.sampled_from([0.0, -30.0, -3000.0]))
def test_mixtures_of_exponents_agree_with_the_loops_also_where_masks_underflow(flat: dict, shift: float) -> None:
    parts = oracles.importance(oracles.ragged(flat["score"], flat["group"], flat["num_groups"]))
    exponents = np.log(flat["masks"] + 1e-3) + shift
    expected = oracles.mixture_exponent(oracles.ragged(exponents, flat["group"], flat["num_groups"]), parts)
    weights, group = torch.from_numpy(oracles.flat(parts, flat["group"])), torch.from_numpy(flat["group"])
    got = equations.mixture_exponent(torch.from_numpy(exponents), weights, group, flat["num_groups"])
    assert_agree("log of the mixture", got, expected, rtol=1e-12)


def test_the_gradient_of_a_mixture_s_exponents_is_finite_where_a_weight_is_zero() -> None:
    weights, exponents = leaf([[1.0, 0.0]]), leaf([[[-900.0, -950.0], [-800.0, -850.0]]])
    equations.mixture_exponent(exponents, weights, torch.tensor([0, 0]), 1).sum().backward()
    assert_agree("exponents", exponents.grad, torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]).double(), atol=1e-12)
    assert torch.isfinite(weights.grad).all()


def test_exponents_are_the_logs_of_masks_and_go_on_where_masks_are_zero() -> None:
    center, width = torch.tensor([0.0, 0.31, 1.0]).double(), torch.tensor([0.9, 0.2, 0.004]).double()
    got = equations.gaussian_exponent(center, width, 9.0, 8, 0.01)
    assert_agree("exponents", got, oracles.gaussian_exponent(center.numpy(), width.numpy(), 9.0, 8), rtol=1e-13)
    masks, _ = equations.gaussian_mask(center, width, 9.0, 8)
    assert_agree("masks", masks, got.exp(), rtol=1e-15)
    assert (masks == 0).any() and torch.isfinite(got).all()


@PROPERTY
@given(
    sizes=st.tuples(*(st.integers(1, n) for n in (3, 3, 9, 9, 5))),
    causal=st.booleans(),
    is_masked=st.booleans(),
    is_padded=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_attention_agrees_with_the_loops_on_any_shape(
    sizes: tuple[int, ...], causal: bool, is_masked: bool, is_padded: bool, seed: int
) -> None:
    num, heads, queries, keys, width = sizes
    queries = keys if causal else queries
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(0, 2, (num, heads, keys, width)) for name in ("key", "value")}
    arrays |= {"query": rng.normal(0, 2, (num, heads, queries, width)), "causal": causal}
    if is_masked:
        arrays["key_bias"] = np.log(rng.random((num, keys)) ** 8 + 1e-10)
    if is_padded:
        arrays["key_valid"] = np.arange(keys) < rng.integers(1, keys + 1, (num, 1))
    _check("masked_attention", arrays)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_inputs_give_fp32_losses(dtype: torch.dtype) -> None:
    group = torch.tensor([0, 1, 1])
    drawn = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact, targets = drawn.double(), torch.tensor([[1, 2, 0], [3, 0, 0]])
    pairs = [(pull(drawn[..., 0], group, 2), pull(exact[..., 0], group, 2)) for pull in PULLS]
    pairs.append((equations.push(drawn, group, 0.15), equations.push(exact, group, 0.15)))
    pairs.append((equations.importance(drawn[..., 0], group, 2), equations.importance(exact[..., 0], group, 2)))
    logits = (drawn.unsqueeze(1), targets, targets > 0, 0.1)
    pairs.append((equations.reconstruction_nll(*logits), equations.reconstruction_nll(logits[0].double(), *logits[1:])))
    for got, expected in pairs:
        assert got.dtype == torch.float32
        assert_agree("half", got, expected, rtol=1e-6)
