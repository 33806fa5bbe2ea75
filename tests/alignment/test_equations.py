"""The alignment's equations against loops in float64, their gradients, and what happens at their edges."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from pps_fast.alignment.equations import mask_reward, with_changes, zscored_curve
from tests.support import oracles
from tests.support.cases import Case, to_tensors
from tests.support.compare import assert_agree
from tests.support.op_check import leaf, over_cases


@over_cases("mask_reward")
def test_the_reward_agrees_with_the_loops_in_float64(case: Case) -> None:
    arrays = case.arrays()
    got = mask_reward(**to_tensors(arrays, torch.float64))
    assert_agree("reward", got, oracles.mask_reward(**arrays), rtol=1e-12)


@over_cases("mask_reward")
def test_gradients_of_masks_and_curve_agree_with_finite_differences(case: Case) -> None:
    inputs = case.inputs(torch.float64, requires_grad=True)
    constants = {name: x for name, x in inputs.items() if name not in case.wrt}
    leaves = [inputs[name] for name in case.wrt]
    assert gradcheck(lambda masks, curve: mask_reward(masks, curve, **constants), leaves, fast_mode=True)


def test_a_zscored_curve_has_mean_0_and_variance_1_over_the_frames_that_exist() -> None:
    curve, valid = torch.rand(3, 9), torch.arange(9) < torch.tensor([[9], [5], [2]])
    zeta = zscored_curve(curve, valid)
    num = valid.sum(-1)
    assert_agree("mean", zeta.sum(-1), torch.zeros(3), atol=1e-5)
    assert_agree("variance", zeta.square().sum(-1) / num, torch.ones(3), rtol=1e-5)
    assert_agree("padding", zeta[~valid], torch.zeros(11))
    assert_agree("two frames", zeta[2, :2].abs(), torch.ones(2), rtol=1e-5)


def test_neither_level_nor_scale_of_a_curve_matters() -> None:
    curve = leaf(torch.rand(2, 7).tolist())
    assert_agree("zeta", zscored_curve(3 * curve - 5), zscored_curve(curve), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_frames_that_differ_by_rounding_alone_make_a_constant_curve(dtype: torch.dtype) -> None:
    """As the frames of a video of one frame, whose scores are summed in several orders."""
    wide = torch.promote_types(dtype, torch.float32)
    curve = torch.full((1, 50), 0.3, dtype=dtype).to(wide)
    curve = curve * (1 + 4 * torch.finfo(wide).eps * torch.linspace(-1, 1, 50, dtype=wide))
    assert curve.unique().numel() > 1
    assert_agree("zeta", zscored_curve(curve), torch.zeros(1, 50))
    # a difference that the dtype can hold counts
    assert zscored_curve(curve + 1e-3 * torch.arange(50)).abs().max() > 1


def test_the_reward_of_power_one_half_does_not_see_the_scale_of_a_mask_and_that_of_a_quarter_does() -> None:
    masks, curve = torch.rand(2, 3, 9).double(), torch.rand(2, 9).double()
    for power, factor in ((0.5, 1.0), (0.25, 0.25**0.5)):
        got = mask_reward(masks / 4, curve, power)
        assert_agree("reward", got, factor * mask_reward(masks, curve, power), rtol=1e-9)


def test_a_mask_of_the_curve_s_high_frames_beats_longer_and_shorter_ones() -> None:
    curve = torch.zeros(1, 12)
    curve[0, 4:8] = 1
    windows = [(4, 8), (3, 9), (5, 7), (0, 12), (0, 4)]
    masks = torch.stack([(torch.arange(12) >= a) & (torch.arange(12) < b) for a, b in windows]).float().unsqueeze(0)
    for power in (0.25, 0.5):
        reward = mask_reward(masks, curve, power)[0]
        assert reward.argmax() == 0
        assert_agree("whole video", reward[3], torch.tensor(0.0), atol=1e-6)
        assert reward[4] < 0


def test_changes_are_weighted_differences_of_later_and_earlier_frames() -> None:
    frames = torch.randn(2, 7, 3, dtype=torch.float64)
    wide = with_changes(frames, 0.5)
    assert_agree("frames", wide[..., :3], frames)
    assert_agree("in the middle", wide[:, 3, 3:], 0.5 * (frames[:, 5] - frames[:, 1]))
    assert_agree("at the start", wide[:, 1, 3:], 0.5 * (frames[:, 3] - frames[:, 0]))
    assert_agree("at the end", wide[:, 6, 3:], 0.5 * (frames[:, 6] - frames[:, 4]))
    assert not with_changes(frames[:, :1].expand(-1, 7, -1), 0.5)[..., 3:].any()
