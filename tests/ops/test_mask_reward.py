"""Rewards of masks against a curve: every backend against the loops, with all gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pps_fast.alignment import equations
from pps_fast.kernels import mask_reward as kernel
from pps_fast.ops.attentive_pooling import mixture
from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.gaussian_mask import gaussian_mask
from pps_fast.ops.mask_reward import mask_reward
from tests.support.cases import CASES, LAYOUTS, Case, softmax_by_group
from tests.support.compare import assert_agree
from tests.support.op_check import DTYPES, HALF, check_backends, check_case, check_non_contiguous, over_cases

BACKENDS = pytest.mark.parametrize("backend", ["torch", "triton"])


@over_cases("mask_reward")
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_the_loops(case: Case, dtype: torch.dtype) -> None:
    check_case(mask_reward, "mask_reward", case, dtype)


@over_cases("mask_reward")
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_the_kernel_agrees_with_the_loops(case: Case, dtype: torch.dtype, poisoned_empty: None) -> None:
    check_case(mask_reward, "mask_reward", case, dtype, backend="triton")


def test_strides_do_not_matter() -> None:
    check_non_contiguous(mask_reward, CASES["mask_reward"][1])


def test_backends_are_chosen_as_asked() -> None:
    check_backends(mask_reward, CASES["mask_reward"][0])


def test_the_kernel_and_the_equation_have_the_same_floors() -> None:
    assert kernel.ENERGY_FLOOR.value == equations.ENERGY_FLOOR
    rounding = equations.CONSTANT_ROUNDINGS * torch.finfo(torch.float32).eps
    assert kernel.CONSTANT_SHARE.value == rounding**2


def _run(backend: str, masks: Tensor, curve: Tensor, *others: object) -> list[Tensor]:
    """Rewards and gradients, for an incoming gradient that is neither 1 nor contiguous."""
    wanted = [x.detach().requires_grad_() for x in (masks, curve)]
    reward = mask_reward(*wanted, *others, backend=backend)
    grad = torch.linspace(-2, 3, reward.numel(), dtype=reward.dtype, device=reward.device).reshape(reward.shape)
    reward.backward(grad.t().contiguous().t())
    return [reward.detach(), *(x.grad for x in wanted)]


def _assert_same(masks: Tensor, curve: Tensor, *others: object, rtol: float = 2e-6, atol: float = 2e-7) -> None:
    got, expected = (_run(backend, masks, curve, *others) for backend in ("triton", "torch"))
    for name, value, exact in zip(("reward", "masks", "curve"), got, expected, strict=True):
        assert value.dtype == exact.dtype, name
        assert_agree(name, value, exact, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    ("samples", "masks", "positions"), [(1, 1, 2), (2, 64, 31), (3, 33, 40), (2, 3, 513), (5, 1, 1), (1, 2, 4096)]
)
def test_the_kernel_takes_odd_shapes_in_several_blocks_and_programs(
    samples: int, masks: int, positions: int, poisoned_empty: None
) -> None:
    valid = torch.rand(samples, positions) < 0.8
    _assert_same(torch.rand(samples, masks, positions), torch.randn(samples, positions), 0.25, valid, rtol=5e-6)


@settings(derandomize=True, max_examples=20, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(2, 70)),
    power=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    is_padded=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 2**16),
)
def test_the_kernel_takes_shapes_that_nobody_chose(
    sizes: tuple, power: float, is_padded: bool, dtype: torch.dtype, seed: int
) -> None:
    samples, count, positions = sizes
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(samples, count, positions, generator=generator).to(dtype)
    # the closer its frames, the steeper a curve's gradient is and the more of its digits are rounding
    spread = torch.rand(samples, positions, generator=generator).argsort(-1) + 0.5 * torch.rand(samples, 1)
    valid = torch.rand(samples, positions, generator=generator) < 0.7 if is_padded else None
    # gradients are rounded to the inputs' dtype; that of a curve of two frames is 0 but for rounding
    rtol = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    _assert_same(masks, spread.to(dtype), power, valid, rtol=rtol, atol=2e-6)


@BACKENDS
@pytest.mark.parametrize("power", [0.25, 0.5])
def test_a_constant_curve_and_a_single_frame_give_no_reward_and_no_gradient(backend: str, power: float) -> None:
    # 0.1 has no exact mean in fp32
    curve = torch.tensor([0.1, 0.0, -7e8]).unsqueeze(1).repeat(1, 50)
    for values in _run(backend, torch.rand(3, 4, 50), curve, power):
        assert_agree("constant", values, torch.zeros_like(values))
    for values in _run(backend, torch.rand(2, 3, 1), torch.randn(2, 1), power):
        assert_agree("one position", values, torch.zeros_like(values))
    one_frame = torch.arange(9) == torch.tensor([[4], [0]])
    for values in _run(backend, torch.rand(2, 3, 9), torch.randn(2, 9), power, one_frame):
        assert_agree("one frame", values, torch.zeros_like(values))


@BACKENDS
def test_a_sample_without_frames_has_no_reward_and_no_gradient(backend: str) -> None:
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[0] = False
    for values in _run(backend, torch.rand(2, 3, 6), torch.randn(2, 6), 0.25, valid):
        assert_agree("no frames", values[0], torch.zeros_like(values[0]))
        assert (values[1] != 0).any()


@BACKENDS
def test_padding_is_not_read_and_gets_no_gradient(backend: str, poisoned_empty: None) -> None:
    masks, curve, valid = torch.rand(2, 3, 11), torch.randn(2, 11), torch.arange(11) < torch.tensor([[7], [7]])
    cut = _run(backend, masks[..., :7], curve[:, :7], 0.25)
    for value in (float("nan"), float("inf"), 1e9):
        padded = [x.masked_fill(~valid[:, None] if x.dim() == 3 else ~valid, value) for x in (masks, curve)]
        reward, grad_masks, grad_curve = _run(backend, *padded, 0.25, valid)
        assert_agree("reward", reward, cut[0], rtol=1e-6)
        assert_agree("gradient of masks", grad_masks[..., :7], cut[1], rtol=1e-6)
        assert_agree("gradient of curve", grad_curve[:, :7], cut[2], rtol=1e-6)
        assert_agree("padding of masks", grad_masks[..., 7:], torch.zeros(2, 3, 4))
        assert_agree("padding of curve", grad_curve[:, 7:], torch.zeros(2, 4))


@BACKENDS
@pytest.mark.parametrize("power", [0.25, 0.5])
def test_the_reward_of_a_mask_that_vanishes_goes_to_0_without_a_cliff(backend: str, power: float) -> None:
    """A mask that shrinks to zeros: its reward never jumps, and its gradient stays below that of the zeros."""
    shape, curve = torch.rand(1, 1, 9), torch.randn(1, 9)
    scale = torch.cat((torch.zeros(1), torch.logspace(-25, 0, 501))).reshape(1, -1, 1)
    reward, grad, _ = _run(backend, scale * shape, curve, power)
    assert reward[0, 0] == 0 and reward.isfinite().all() and grad.isfinite().all()
    # steps of 12 %
    assert reward[0].diff().abs().max() < 0.12 * reward.abs().max()
    zeta = equations.zscored_curve(curve)
    assert_agree("gradient of zeros", grad[0, 0], -2 * zeta[0] / equations.ENERGY_FLOOR**power, rtol=1e-5)
    assert grad.abs().max() <= 3 * zeta.abs().max() / equations.ENERGY_FLOOR**power


@BACKENDS
def test_what_is_not_a_number_is_not_hidden_and_stays_where_it_is(backend: str) -> None:
    masks, curve = torch.rand(2, 3, 5), torch.randn(2, 5)
    clean = mask_reward(masks, curve, backend=backend)
    masks[0, 1, 2] = float("nan")
    reward, grad, _ = _run(backend, masks, curve)
    assert reward[0, 1].isnan() and grad[0, 1].isnan().all()
    reward[0, 1] = clean[0, 1]
    assert_agree("other masks", reward, clean)
    curve[1, 4] = float("nan")
    reward, grad, grad_curve = _run(backend, masks, curve)
    assert reward[1].isnan().all() and grad[1].isnan().all() and grad_curve[1].isnan().all()
    assert reward[0, [0, 2]].isfinite().all()


@pytest.mark.parametrize("frozen", ["masks", "curve"])
def test_either_input_may_want_no_gradient(frozen: str) -> None:
    inputs = {"masks": torch.rand(2, 3, 5), "curve": torch.randn(2, 5)}
    (wanted,) = inputs.keys() - {frozen}
    grads = []
    for backend in ("triton", "torch"):
        leaves = {name: x.clone().requires_grad_(name == wanted) for name, x in inputs.items()}
        mask_reward(**leaves, backend=backend).square().sum().backward()
        assert leaves[frozen].grad is None
        grads.append(leaves[wanted].grad)
    assert_agree(wanted, *grads, rtol=1e-5)


@pytest.mark.parametrize(
    "dtypes", [(torch.float16, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.float16)]
)
def test_the_kernel_returns_the_dtypes_that_the_equation_does(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    masks, curve = torch.rand(2, 3, 5).to(dtypes[0]), torch.randn(2, 5).to(dtypes[1])
    _assert_same(masks, curve, 0.5, rtol=max(torch.finfo(dtype).eps for dtype in dtypes))


def test_two_runs_agree_bitwise() -> None:
    masks, curve = torch.rand(2, 70, 33), torch.randn(2, 33)
    for got, again in zip(_run("triton", masks, curve), _run("triton", masks, curve), strict=True):
        assert_agree("run", got, again)


@BACKENDS
def test_the_gradient_of_a_mixture_s_reward_reaches_centers_widths_and_weights(backend: str) -> None:
    layout = LAYOUTS["ramp3"]
    group, number = torch.tensor(layout.group), layout.num_proposals
    leaves = [torch.rand(2, layout.num_components), 0.3 + 0.4 * torch.rand(2, layout.num_components)]
    score = torch.randn(2, layout.num_components)
    leaves.append(torch.from_numpy(softmax_by_group(score.numpy(), layout)))
    curve, grads = torch.randn(2, 20), []
    for chosen, dtype in ((backend, torch.float32), ("torch", torch.float64)):
        wanted = [x.detach().to(dtype).requires_grad_() for x in leaves]
        masks, logs = gaussian_mask(*wanted[:2], 4.0, 20, backend=chosen)
        mixed, _ = mixture(masks, logs, wanted[2], group, number, backend=chosen)
        reward = mask_reward(mixed, curve.to(dtype), backend=chosen)
        grads.append([reward.detach(), *torch.autograd.grad(reward.sum(), wanted)])
    for name, got, expected in zip(("reward", "center", "width", "importance"), *grads, strict=True):
        assert (got != 0).all()
        assert_agree(name, got.double(), expected, rtol=2e-5)


def test_climbing_the_reward_leads_a_mask_to_the_planted_moment() -> None:
    curve = torch.zeros(1, 50)
    curve[0, 30:40] = 1
    center, width = torch.tensor([[0.45]], requires_grad=True), torch.tensor([[0.5]], requires_grad=True)
    optimizer = torch.optim.Adam((center, width), lr=0.01)
    for _ in range(200):
        masks, _ = gaussian_mask(center, width, 2.0, 50)
        optimizer.zero_grad()
        (-mask_reward(masks, curve)).sum().backward()
        optimizer.step()
    assert_agree("center", center.detach(), torch.tensor([[34.5 / 49]]), atol=0.01)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"masks": torch.rand(2, 3, 5).double()}, "masks is torch.float64; the kernel computes in float32"),
        ({"masks": torch.rand(2, 0, 5)}, "the kernel takes no empty tensor"),
        (
            {"masks": torch.rand(2, 1, 4097), "curve": torch.rand(2, 4097)},
            "masks has 4097 positions; the kernel takes 1 to 4096",
        ),
    ],
)
def test_the_kernel_refuses_what_it_cannot_compute(changes: dict, reason: str) -> None:
    inputs = {"masks": torch.rand(2, 3, 5), "curve": torch.rand(2, 5)}
    assert not mask_reward.reasons(**inputs)
    with pytest.raises(BackendError, match=reason):
        mask_reward(**(inputs | changes), backend="triton")


def test_the_registered_operators_pass_opcheck() -> None:
    masks, curve, reward, ops = torch.rand(2, 3, 5), torch.rand(2, 5), torch.rand(2, 3), torch.ops.pps_fast
    utils = ("test_schema", "test_autograd_registration", "test_faketensor")
    for valid in (None, torch.rand(2, 5) < 0.7):
        for operator, arguments in (
            (ops.mask_reward_fwd, (masks, curve, 0.25, valid)),
            (ops.mask_reward_bwd, (reward + 1, masks, curve, reward, 0.25, valid)),
        ):
            results = torch.library.opcheck(operator, arguments, test_utils=utils)
            assert set(results.values()) == {"SUCCESS"}


@pytest.mark.gpu
@pytest.mark.parametrize(("masks", "positions"), [(7, 50), (1792, 32), (3, 4096), (1, 1)])
@pytest.mark.parametrize("power", [0.25, 0.5])
def test_the_compiled_kernel_agrees_with_the_equation_on_a_gpu(masks: int, positions: int, power: float) -> None:
    inputs = torch.rand(32, masks, positions).cuda(), torch.randn(32, positions).cuda()
    valid = torch.rand(32, positions).cuda() < 0.9
    got = _run("triton", *inputs, power, valid)
    expected = _run("torch", *(x.double() for x in inputs), power, valid)
    for value, exact in zip(got, expected, strict=True):
        assert_agree("mask_reward", value.double(), exact, rtol=1e-5)
