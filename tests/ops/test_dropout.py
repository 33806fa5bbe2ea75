"""Dropout of inputs in one launch drops, scales and differentiates as `randomness.dropout` does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pps_fast import randomness
from pps_fast.ops.dropout import dropout
from pps_fast.ops.registration import is_interpreted
from pps_fast.randomness import mix
from tests.support.compare import assert_agree

needs_interpreter = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
SITE = 4


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _keys(number: int) -> Tensor:
    return torch.randint(-(1 << 31), 1 << 31, (number,), generator=torch.Generator().manual_seed(9)).int()


def _both(x: Tensor, rate: float, first_row: int, dtype: torch.dtype, device: str = "cpu") -> list[tuple[Tensor, ...]]:
    """The result and the gradient of x, of the kernel and of torch."""
    dropout_key, grad, pairs = _keys(len(x)).to(device), _draw(*x.shape, seed=1).to(device, dtype), []
    for backend in ("triton", "torch"):
        leaf = x.to(device).requires_grad_()
        got = dropout(leaf, dropout_key, SITE, rate, first_row, dtype, backend)
        pairs.append((got.detach(), *torch.autograd.grad(got, leaf, grad)))
    return pairs


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "first_row"), [((3, 5, 6), 0), ((2, 3, 7), 0), ((2, 1, 7), 3), ((2, 11, 300), 2)])
def test_the_kernel_agrees_with_torch(
    shape: tuple[int, int, int], first_row: int, dtype: torch.dtype, poisoned_empty: None
) -> None:
    for got, expected in zip(*_both(_draw(*shape), 0.3, first_row, dtype), strict=True):
        assert got.dtype == expected.dtype and torch.equal(got == 0, expected == 0)
        # the interpreter cuts off where a GPU rounds to bf16, and torch scales a bf16 gradient by a rounded scale
        assert_agree("values", got.float(), expected.float(), rtol=0 if dtype == torch.float32 else 2**-6)


@needs_interpreter
def test_a_row_expanded_over_sequences_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    row = _draw(1, 1, 9).expand(4, 1, -1)
    expected = dropout(row, _keys(4), SITE, 0.5, 2, torch.float32, "torch")
    monkeypatch.setattr(Tensor, "contiguous", lambda x: x if x.is_contiguous() else pytest.fail("copied"))
    got = dropout(row, _keys(4), SITE, 0.5, 2, torch.float32, "triton")
    assert torch.equal(got, expected) and len(got.unique(dim=0)) > 1


@needs_interpreter
def test_the_kernel_serves_what_it_reads_and_torch_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(randomness, "dropout", lambda x, *others: calls.append(str(x.dtype)) or x)
    for dtype, rate in ((torch.float32, 0.5), (torch.float64, 0.5), (torch.bfloat16, 0.0)):
        dropout(_draw(2, 3, 4).to(dtype), _keys(2), SITE, rate, 0, dtype, "triton")
    assert calls == ["torch.float64", "torch.bfloat16"]


def test_the_site_selects_the_stream() -> None:
    x = torch.ones(2, 3, 8)
    first, second = (dropout(x, _keys(2), site, 0.5, 0, x.dtype, "auto") for site in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(second, randomness.dropout(x, mix(_keys(2), 2), 0.5))


@needs_interpreter
def test_the_registered_operator_passes_opcheck() -> None:
    arguments = (_draw(2, 3, 4), _keys(2), [SITE, 6554], 1, torch.bfloat16)
    torch.library.opcheck(torch.ops.pps_fast.dropout.default, arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_the_kernel_has_the_bits_of_torch(dtype: torch.dtype) -> None:
    (got, _), (expected, _) = _both(_draw(3, 50, 300), 0.1, 1, dtype, "cuda")
    assert torch.equal(got, expected)
