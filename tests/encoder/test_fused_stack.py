"""A stack runs fused exactly where kernels serve all of it; tests/ops/test_sublayers.py tests what it computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pps_fast.encoder import fused_stack
from pps_fast.encoder.transformer import Context, Keys, Stack
from pps_fast.ops.dispatch import BackendError, use_backend
from pps_fast.ops.record import record_calls
from pps_fast.ops.registration import is_interpreted
from tests.support.cases import small_config

pytestmark = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")
CONFIG = small_config()
X = torch.ones(2, 3, CONFIG.encoder.hidden_dim)


def _serves(backend: str, x: Tensor = X, keys: Keys | None = None, memory: Tensor | None = None) -> bool:
    stack = Stack(replace(CONFIG, backend=backend), 2, has_memory=True)
    context = Context(memory=memory, memory_keys=Keys())
    return fused_stack.serves(stack, x, keys or Keys(), context, None)


def test_the_backend_decides() -> None:
    assert _serves("triton") and not _serves("torch")
    # the interpreter is slow, so that "auto" leaves it alone
    assert not _serves("auto")
    with use_backend("triton"):
        assert _serves("auto") and not _serves("torch")


def test_what_a_kernel_does_not_take_is_left_to_the_modules() -> None:
    assert not _serves("triton", X.double())
    assert not _serves("triton", memory=torch.ones(2, 600, X.shape[2]))
    assert _serves("triton", memory=torch.ones(2, 500, X.shape[2]))


def test_the_modules_refuse_it_in_words_where_kernels_were_asked_for() -> None:
    stack = Stack(replace(CONFIG, backend="triton"), 1, has_memory=False).double()
    with pytest.raises(BackendError, match="masked_attention: backend 'triton' cannot serve"):
        stack(X.double(), Keys(), Context())


def test_wrong_shapes_are_refused_as_by_the_modules() -> None:
    with pytest.raises(ValueError, match="masked_attention: key_valid has shape"):
        _serves("triton", keys=Keys(valid=torch.ones(2, 4, dtype=torch.bool)))


def test_a_recorded_stack_calls_its_ops_one_by_one() -> None:
    with record_calls() as records:
        assert not _serves("triton")
        Stack(replace(CONFIG, backend="triton"), 1, has_memory=False)(X, Keys(), Context())
    assert {record.op.name for record in records} == {"masked_attention", "residual_norm"}
