"""Triton's interpreter with what `tests/support/interpreter.py` spares it is the interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pps_fast.ops.registration import is_interpreted
from tests.support.interpreter import _Patches, spare_the_interpreter

if not is_interpreted():
    pytest.skip("needs Triton's interpreter, without a GPU", allow_module_level=True)

import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton.runtime import interpreter  # noqa: E402

# under --strict-skips this is a failure: tests of the pinned version are not to become slow unnoticed
pytestmark = pytest.mark.skipif(
    not isinstance(interpreter._patch_lang, _Patches), reason="this version of Triton's interpreter is made otherwise"
)
_PLACES = (tl, tl.core, tl.math, tl.tensor, tl.dtype, tl.core.tensor_descriptor_base)


@triton.jit
def _largest(b_x):
    return tl.max(tl.exp(b_x), 0)


@triton.jit
def _kernel(x, out, length, SIZE: tl.constexpr):
    o = tl.arange(0, SIZE)
    b_x = tl.load(x + o, mask=o < length, other=0.0).to(tl.float32)
    b_y = b_x / _largest(b_x) + tl.cumsum(b_x, 0) + tl.sum(b_x, 0)
    tl.store(out + o, b_y.to(out.dtype.element_ty), mask=o < length)


@triton.jit
def _broken(x):
    tl.load(x + 0.5)


def _run(dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    x = torch.linspace(-2, 3, 13).to(dtype)
    out = torch.zeros_like(x)
    _kernel[(2,)](x, out, 13, 16)
    return out


def _attention() -> list[torch.Tensor]:
    projected = torch.randn(3, 2, 1, 5, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    results = torch.ops.pps_fast.masked_attention_fwd(*projected, None, None, True, False)
    inputs = [torch.ones(2, 1, 5, 4).bfloat16(), *results]
    return [*results, *torch.ops.pps_fast.masked_attention_bwd(inputs, *projected, None, None, True, False)]


def test_it_is_in_force_and_put_in_place_once() -> None:
    before = interpreter._patch_lang, interpreter._get_np_dtype
    assert isinstance(before[0], _Patches)
    spare_the_interpreter()
    assert (interpreter._patch_lang, interpreter._get_np_dtype) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_kernels_compute_the_bits_of_the_interpreter_as_it_is(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    spared = [_run(dtype), *_attention()]
    monkeypatch.setattr(interpreter, "_patch_lang", interpreter._patch_lang.original)
    monkeypatch.setattr(interpreter, "_get_np_dtype", interpreter._get_np_dtype.__wrapped__)
    for one, other in zip(spared, [_run(dtype), *_attention()], strict=True):
        assert one.isfinite().all() and torch.equal(one, other)
    assert (spared[0] != 0).all()


def test_types_of_numpy_are_those_of_the_interpreter() -> None:
    dtypes: list[Any] = [
        tl.dtype(name) for name in tl.dtype.SINT_TYPES + tl.dtype.UINT_TYPES + ["fp16", "fp32", "bf16"]
    ]
    original = interpreter._get_np_dtype.__wrapped__
    for dtype in dtypes:
        forms = (dtype, tl.block_type(dtype, [4]), tl.pointer_type(dtype), tl.block_type(tl.pointer_type(dtype), [4]))
        for form in forms * 2:
            assert interpreter._get_np_dtype(form) == original(form), form


def test_the_language_is_as_before_after_a_launch_and_after_one_that_fails() -> None:
    # functions of the language that are kernels' own, such as tl.max, are never put back by the interpreter either
    _run()
    before = [dict(vars(place)) for place in _PLACES]
    _run()
    assert [dict(vars(place)) for place in _PLACES] == before
    with pytest.raises(interpreter.InterpreterError):
        _broken[(1,)](torch.ones(3))
    assert [dict(vars(place)) for place in _PLACES] == before
    assert _run().isfinite().all()


def test_a_function_of_the_language_that_a_test_replaces_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _run()
    calls, exp = [], tl.exp

    @tl.core.builtin
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return exp(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(tl, "exp", counted)
        assert torch.equal(_run(), expected) and len(calls) == 2
    assert torch.equal(_run(), expected) and len(calls) == 2
