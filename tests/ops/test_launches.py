"""What a step compiles is known before it runs, and new lengths compile nothing new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pps_fast.ops import masked_attention, reconstruction_nll, residual_norm
from pps_fast.ops.launches import Launches, record_launches
from pps_fast.ops.registration import is_interpreted

needs_interpreter = pytest.mark.skipif(not is_interpreted(), reason="needs Triton's interpreter, without a GPU")


def _launch(num: int, length: int, dtype: torch.dtype = torch.float32) -> None:
    """A block's ops and the loss on sentences of a length, forward and backward."""

    def draw(*shape: int) -> Tensor:
        return torch.full(shape, 0.1, dtype=dtype, requires_grad=True)

    packed, norm = draw(num, length, 3, 2, 16), draw(32)
    query, key, value = (part.transpose(1, 2) for part in packed.unbind(2))
    valid = torch.ones(num, length, dtype=torch.bool)
    attended = masked_attention(query, key, value, key_valid=valid, causal=True, backend="triton")
    x = attended.transpose(1, 2).flatten(2)
    out = residual_norm(x, x, norm, norm, torch.zeros(num, dtype=torch.int32), 3, 0.1, backend="triton")
    logits = (out @ draw(32, 40)).unsqueeze(1)
    nll = reconstruction_nll(logits, torch.ones(num, length, dtype=torch.int64), valid, 0.1, backend="triton")
    nll.sum().backward()


def _recorded(*calls: tuple) -> Launches:
    with FakeTensorMode(), record_launches() as launches:
        for call in calls:
            _launch(*call)
    return launches


@needs_interpreter
def test_a_new_sentence_length_compiles_nothing() -> None:
    one = _recorded((3, 9))
    assert {item.name.split("_kernel")[0] for item in one} >= {"masked_attention_fwd", "residual_norm_bwd"}
    # 16 is a multiple of 16, and 16 sequences make many strides such multiples
    assert _recorded((3, 9), (3, 14), (3, 16), (3, 32), (16, 11)).keys() == one.keys()


@needs_interpreter
def test_another_dtype_and_another_block_are_compiled() -> None:
    one = _recorded((3, 9))
    both = _recorded((3, 9), (3, 9, torch.bfloat16))
    assert both.keys() > one.keys()
    assert _recorded((3, 9), (3, 33)).keys() > one.keys()


@needs_interpreter
def test_nothing_is_recorded_or_left_out_outside_the_block() -> None:
    with FakeTensorMode(), record_launches() as launches:
        pass
    _launch(2, 3)
    assert not launches


_COMPILE = """
import json, sys
import torch, triton
from triton.backends.compiler import GPUTarget
from torch._subclasses.fake_tensor import FakeTensorMode
from pps_fast.ops import launches
from pps_fast.kernels import residual_norm, linear_gradient


class Driver:
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0
    def get_current_target(self): return GPUTarget("cuda", 90, 32)


triton.runtime.driver.set_active(Driver())
with FakeTensorMode(), launches.record_launches() as recorded:
    linear_gradient.linear_gradient(torch.empty(40, 8), None, torch.empty(8))
done = []
launches.compile_launches(recorded, done.append, num_threads=2)
again = []
launches.compile_launches(recorded, again.append, num_threads=2)
names = [kernel.fn.__name__ for kernel, _ in recorded.values()]
caches = [len(next(iter(kernel.device_caches.values()))[0]) for kernel, _ in recorded.values()]
print(json.dumps([names, sum(done), again, caches]))
"""


def test_recorded_kernels_are_compiled_for_the_driver_s_device(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    names, number, again, caches = json.loads(done.stdout)
    assert names == ["linear_gradient_sum_kernel", "linear_gradient_total_kernel"]
    # the second time all are there already
    assert number == 2 and again == [2] and caches == [1, 1]
    assert len(list(tmp_path.rglob("*.cubin"))) == 2
