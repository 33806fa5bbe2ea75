"""What ops with kernels share: import of kernels, registration with torch, sentences of refusal."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.optests import OpCheckError

from pps_fast import equations
from pps_fast.ops import registration
from pps_fast.ops.contract import floats, integers
from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.registration import (
    LEAST_CAPABILITY,
    SHARED_BYTES,
    chip_reasons,
    constant_result,
    device_reasons,
    dtype_reasons,
    empty_reasons,
    first_order_only,
    fused_op,
    launcher_of,
    load_kernel,
    register,
    size_reasons,
)
from tests.support.compare import assert_agree

ROOT = Path(__file__).resolve().parents[2]


def _fail_to_import(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    def fail(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(importlib, "import_module", fail)


def test_a_kernel_file_is_loaded_by_its_name() -> None:
    assert load_kernel("launch").__name__ == "pps_fast.kernels.launch"


def test_without_triton_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_to_import(monkeypatch, "triton")
    assert load_kernel("launch") is None


@pytest.mark.parametrize("missing", ["numpy", "pps_fast.kernels.nothing", "triton.language"])
def test_another_missing_module_is_not_swallowed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_to_import(monkeypatch, missing)
    with pytest.raises(ModuleNotFoundError, match=missing):
        load_kernel("launch")


def test_a_kernel_that_does_not_exist_is_no_missing_triton() -> None:
    with pytest.raises(ModuleNotFoundError, match="pps_fast.kernels.nothing"):
        load_kernel("nothing")


def test_where_triton_is_not_installed_every_op_runs_its_equation_and_says_why() -> None:
    """In a process of its own, in which importing triton fails."""
    script = """
        import sys
        sys.modules["triton"] = None  # importing it raises ModuleNotFoundError
        import torch
        from pps_fast.ops.dispatch import BackendError
        from pps_fast.ops import ALL_OPS, clip_adam, gaussian_mask, push
        from pps_fast.ops.registration import is_interpreted

        assert not is_interpreted()
        tensors = (torch.rand(2), torch.rand(2), 9.0, 5)
        assert gaussian_mask(*tensors)[0].shape == (2, 5)
        try:
            gaussian_mask(*tensors, backend="triton")
        except BackendError as error:
            print(error)
        print(push.reasons(torch.rand(2, 3, 4), torch.zeros(3, dtype=torch.int64), 0.15))
        assert all(op._unsupported() == ["triton is not installed"] for op in (*ALL_OPS, clip_adam))
        # there are no operators, as nothing could run them
        assert not any(name.startswith("pps_fast::") for name in torch._C._dispatch_get_all_op_names())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first == (
        "gaussian_mask: backend 'triton' cannot serve this call: triton is not installed. Use 'auto' or 'torch'"
    )
    assert others == ["['triton is not installed']"]


IMPORTANCE = {"score": floats("B E"), "group": integers("E")}


def _fused(score: Tensor, group: Tensor, num_groups: int) -> Tensor:
    return score + 1


def _limits(score: Tensor, **_: object) -> list[str]:
    return ["too many"] if score.shape[1] > 3 else []


def test_a_fused_op_without_triton_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "_launch", None)
    op = fused_op(equations.importance, _fused, IMPORTANCE, _limits)
    score, group = torch.rand(2, 2), torch.tensor([0, 0])
    assert op.reasons(score, group, 1) == ["triton is not installed"]
    assert not op.is_interpreted
    with pytest.raises(BackendError, match="triton is not installed"):
        op(score, group, 1, backend="triton")
    assert_agree("importance", op(score, group, 1), equations.importance(score, group, 1))


def test_a_fused_op_has_the_name_of_its_equation_and_the_limits_of_its_kernel() -> None:
    op = fused_op(equations.importance, _fused, IMPORTANCE, _limits)
    assert op.name == "importance" and op.__wrapped__ is equations.importance
    assert fused_op(equations.importance, _fused, IMPORTANCE, _limits, name="other").name == "other"
    assert op.is_interpreted == registration.is_interpreted()
    group = torch.zeros(2, dtype=torch.int64)
    assert_agree("fused", op(torch.zeros(1, 2), group, 1, backend="triton"), torch.ones(1, 2))
    wide = torch.rand(1, 4, dtype=torch.float64)
    assert op.reasons(wide, torch.zeros(4, dtype=torch.int64), 1) == [
        "score is torch.float64; the kernel computes in float32",
        "too many",
    ]
    assert op.reasons(torch.zeros(0, 2), group, 1) == ["score has shape (0, 2); the kernel takes no empty tensor"]


# --- register -------------------------------------------------------------------------------------


def _operator(implementation) -> torch._ops.OpOverloadPacket:
    """Registers `x, times -> (x * times, one number per row)` under a name nobody has."""
    name = f"test_{uuid.uuid4().hex}"

    def launcher(x: Tensor, times: float) -> tuple[Tensor, Tensor]:
        return implementation(x, times)

    def fake(x: Tensor, times: float) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x), x.new_empty(x.shape[0], dtype=torch.float32)

    launcher.__name__ = name
    register(launcher, fake)
    return getattr(torch.ops.pps_fast, name)


def _scaled(x: Tensor, times: float) -> tuple[Tensor, Tensor]:
    return x * times, x.float().sum(1)


def test_a_registered_operator_runs_on_the_cpu_and_is_known_to_the_compiler() -> None:
    operator, x = _operator(_scaled), torch.rand(2, 3)
    scaled, sums = operator(x, 2.5)
    assert_agree("scaled", scaled, x * 2.5)
    assert_agree("sums", sums, x.sum(1))
    assert set(torch.library.opcheck(operator, (x, 2.5)).values()) == {"SUCCESS"}
    for device in ("CPU", "CUDA"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pps_fast::{operator.__name__}", device), device
    meta = operator(x.to("meta").half(), 2.0)
    assert [(tuple(y.shape), y.dtype) for y in meta] == [((2, 3), torch.float16), ((2,), torch.float32)]


def test_a_wrong_fake_is_found_by_opcheck() -> None:
    operator = _operator(lambda x, times: (x * times, x.sum(0)))
    with pytest.raises(OpCheckError, match=r"Shapes torch.Size\(\[3\]\) and torch.Size\(\[2\]\) are not equal"):
        torch.library.opcheck(operator, (torch.rand(2, 3), 2.0), test_utils=("test_faketensor",))


def test_without_a_launcher_there_is_no_operator() -> None:
    before = torch._C._dispatch_get_all_op_names()
    register(launcher_of(None, "importance_fwd"), torch.empty_like)
    assert torch._C._dispatch_get_all_op_names() == before


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("importance_fwd", "(Tensor score, Tensor group, SymInt num_groups) -> Tensor"),
        (
            "masked_attention_fwd",
            "(Tensor query, Tensor key, Tensor value, Tensor? key_bias, Tensor? key_valid, bool causal, bool tf32,"
            " Tensor? start=None, SymInt longest=0) -> (Tensor, Tensor)",
        ),
        (
            "clip_adam",
            "(Tensor(a0!)[] buffers, Tensor?(a1!)[] rounded, Tensor rate, Tensor(a3!) update,"
            " Tensor(a4!) is_finite, float[] constants, Tensor? loss) -> Tensor",
        ),
    ],
)
def test_schemas_are_read_from_the_launchers(name: str, schema: str) -> None:
    assert str(getattr(torch.ops.pps_fast, name).default._schema) == f"pps_fast::{name}{schema}"


def test_a_constant_result_is_marked_as_torch_marks_it_and_imports_no_compiler() -> None:
    def ours() -> int:
        return 1

    def theirs() -> int:
        return 1

    assert vars(constant_result(ours)) == vars(torch.compiler.assume_constant_result(theirs)) != {}
    program = "import sys, pps_fast.train.loop; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- derivatives ----------------------------------------------------------------------------------


class _Cube(torch.autograd.Function):
    """x ** 3 by an autograd function that hides how its gradient depends on x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        cube = x**3
        ctx.save_for_backward(3 * x**2, cube)
        return cube

    @staticmethod
    @first_order_only("cube")
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        slope, _ = ctx.saved_tensors
        return slope * grad


def test_a_second_derivative_is_refused_though_the_first_may_be_kept() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    (plain,) = torch.autograd.grad(_Cube.apply(x), x)
    (kept,) = torch.autograd.grad(_Cube.apply(x), x, create_graph=True)
    assert plain.item() == kept.item() == 12 and kept.requires_grad and not plain.requires_grad
    with pytest.raises(BackendError, match="^cube: the kernel's gradient has no gradient of its own; use backend='to"):
        torch.autograd.grad(kept, x)


# --- reasons --------------------------------------------------------------------------------------


def test_tensors_of_the_cpu_are_refused_by_compiled_kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_interpreted, expected in ((True, []), (False, ["x is on cpu; the kernel needs a CUDA device"])):
        monkeypatch.setattr(registration, "is_interpreted", lambda value=is_interpreted: value)
        assert device_reasons("x", torch.rand(2)) == expected


def test_dtypes_beyond_single_and_half_precision_are_named() -> None:
    tensors = {"a": torch.rand(1), "b": torch.rand(1).half(), "c": torch.rand(1).bfloat16()}
    assert dtype_reasons(tensors) == []
    assert dtype_reasons({**tensors, "e": torch.rand(1).double()}) == [
        "e is torch.float64; the kernel computes in float32",
    ]


def test_empty_tensors_are_named() -> None:
    assert empty_reasons({"x": torch.rand(2, 3), "y": torch.rand(2, 0)}) == [
        "y has shape (2, 0); the kernel takes no empty tensor"
    ]


@pytest.mark.parametrize(("size", "is_fine"), [(0, False), (1, True), (7, True), (8, False)])
def test_sizes_beyond_either_limit_are_named(size: int, is_fine: bool) -> None:
    expected = [] if is_fine else [f"x has {size} rows; the kernel takes 1 to 7"]
    assert size_reasons("x", "rows", size, 7) == expected


@pytest.mark.parametrize(
    ("capability", "shared_bytes", "reasons"),
    [
        ((8, 0), 163 << 10, []),
        ((12, 0), 99 << 10, []),
        ((7, 5), 99 << 10, ["T4 has compute capability 7.5; the kernels are made for 8.0 and newer"]),
        ((8, 0), 64 << 10, ["T4 gives a program 64 KiB of shared memory; the kernels need up to 99 KiB"]),
    ],
)
def test_a_gpu_the_kernels_do_not_suit_is_told_why(
    capability: tuple[int, int], shared_bytes: int, reasons: list[str]
) -> None:
    assert chip_reasons("T4", capability, shared_bytes) == reasons


def test_no_kernel_needs_more_shared_memory_than_a_gpu_is_asked_for() -> None:
    rows = json.loads((Path(__file__).parents[1] / "kernels" / "resources.json").read_text(encoding="utf-8"))["rows"]
    assert max(row["shared_bytes"] for row in rows) <= SHARED_BYTES
    assert min(row["sm"] for row in rows) == 10 * LEAST_CAPABILITY[0] + LEAST_CAPABILITY[1]
