"""Positions and q_cls are added and differentiated as torch does it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pps_fast.encoder.positions import position_table
from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.registration import is_interpreted
from pps_fast.ops.word_positions import put_word_cls, word_positions
from tests.support.compare import assert_agree

needs_interpreter = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
# samples, slots, width: of which the last are more than a program holds
SIZES = [(2, 5, 4), (9, 13, 38)]


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _num_words(num: int, slots: int) -> Tensor:
    """Sentences of 0 to as many words as leave a slot for q_cls."""
    return torch.arange(num) * (slots - 2) // max(num - 1, 1)


def _results(sizes: tuple[int, int, int], backend: str, dtype: torch.dtype, has_cls: bool) -> list[Tensor]:
    """The result and the gradients of x and q_cls."""
    num, slots, width = sizes
    leaves = [_draw(*sizes).to(dtype), _draw(width, seed=1)]
    leaves = [each.requires_grad_() for each in leaves][: 1 + has_cls]
    others = (leaves[1], _num_words(num, slots)) if has_cls else (None, None)
    out = word_positions(leaves[0], *others, position_table(slots, width), backend)
    out.backward(_draw(*sizes, seed=2).to(dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves)]


def test_q_cls_stands_behind_the_last_word() -> None:
    got = put_word_cls(torch.zeros(3, 4, 2), torch.ones(2), torch.tensor([0, 1, 2]))
    assert got[..., 0].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@needs_interpreter
@pytest.mark.parametrize("has_cls", [False, True], ids=["bare", "cls"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_kernel_agrees_with_torch(
    sizes: tuple[int, int, int], dtype: torch.dtype, has_cls: bool, poisoned_empty: None
) -> None:
    pairs = zip(*(_results(sizes, backend, dtype, has_cls) for backend in ("triton", "torch")), strict=True)
    for got, expected in pairs:
        assert got.dtype == expected.dtype
        # torch rounds the table and the sum over sentences to bf16, too
        assert_agree("words", got.float(), expected.float(), rtol=1e-6 if dtype == torch.float32 else 2**-6)


@needs_interpreter
def test_a_second_derivative_is_refused() -> None:
    x, cls = _draw(2, 5, 4).requires_grad_(), _draw(4, seed=1).requires_grad_()
    out = word_positions(x, cls, torch.tensor([1, 2]), position_table(5, 4), "triton")
    (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="positions of words: the kernel's gradient"):
        first.sum().backward()


@needs_interpreter
def test_the_registered_operators_pass_opcheck() -> None:
    x, ops, num_words = _draw(2, 5, 4), torch.ops.pps_fast, torch.tensor([1, 2])
    torch.library.opcheck(ops.word_positions_fwd.default, (x, _draw(4), num_words, position_table(5, 4)))
    torch.library.opcheck(ops.word_positions_bwd.default, (torch.zeros(4), x, num_words))
