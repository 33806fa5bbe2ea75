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

import pytest
import torch
from torch import Tensor
from torch.testing._internal.optests import OpCheckError

from pps_fast import equations
from pps_fast.ops import registration
from pps_fast.ops.dispatch import BackendError
from pps_fast.ops.registration import (
    LEAST_CAPABILITY,
    SHARED_BYTES,
    chip_reasons,
    device_reasons,
    dtype_reasons,
    fused_op,
    group_reasons,
    load_kernel,
    register,
    shape_reasons,
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
        from pps_fast.ops import ALL_OPS
        from pps_fast.ops.gaussian_mask import gaussian_mask
        from pps_fast.ops.registration import is_interpreted

        assert not is_interpreted()
        given = (torch.rand(2), torch.rand(2), 9.0, 5)
        assert gaussian_mask(*given)[0].shape == (2, 5)
        try:
            gaussian_mask(*given, backend="triton")
        except BackendError as error:
            print(error)
        for op in ALL_OPS:
            print(op.name, op.reasons())
        # the operators are known, though nothing runs them
        assert torch.ops.pps_fast.gaussian_mask_fwd.default is not None
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first == (
        "gaussian_mask: backend 'triton' cannot serve this call: triton is not installed. Use 'auto' or 'torch'"
    )
    for line in others:
        name, reasons = line.split(" ", 1)
        assert reasons in ("['triton is not installed']", f"['{name} has no fused kernel']"), line
    assert "push ['triton is not installed']" in others


def test_a_fused_op_without_triton_is_refused_in_words_whatever_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "_launch", None)
    op = fused_op("importance", lambda *_: None, lambda *_: [])
    assert op.reasons() == op.reasons(torch.rand(2), group=None) == ["triton is not installed"]
    assert not op.is_interpreted
    with pytest.raises(BackendError, match="triton is not installed"):
        op(torch.rand(2, 2), torch.tensor([0, 0]), 1, backend="triton")
    score, group = torch.rand(2, 2), torch.tensor([0, 0])
    assert_agree("importance", op(score, group, 1), equations.importance(score, group, 1))


def test_a_fused_op_has_the_equation_of_its_name_and_its_own_reasons() -> None:
    op = fused_op("importance", lambda score: score + 1, lambda score: ["no zeros"] if score == 0 else [])
    assert op.name == "importance" and op.__doc__ == equations.importance.__doc__
    assert op.is_interpreted == registration.is_interpreted()
    assert op(1, backend="triton") == 2
    with pytest.raises(BackendError, match="importance: backend 'triton' cannot serve this call: no zeros"):
        op(0, backend="triton")


# --- register -------------------------------------------------------------------------------------


def _operator(implementation) -> torch._ops.OpOverloadPacket:
    """Registers `x, times -> (x * times, one number per row)` under a name nobody has."""
    name = f"test_{uuid.uuid4().hex}"

    def fake(x: Tensor, times: float) -> tuple[Tensor, Tensor]:
        return torch.empty_like(x), x.new_empty(x.shape[0], dtype=torch.float32)

    register(f"{name}(Tensor x, float times) -> (Tensor, Tensor)", implementation, fake)
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


def test_without_an_implementation_an_operator_has_its_shapes_only() -> None:
    operator = _operator(None)
    assert operator(torch.rand(2, 3, device="meta"), 1.0)[0].shape == (2, 3)
    with pytest.raises(NotImplementedError, match=operator.__name__):
        operator(torch.rand(2, 3), 1.0)


# --- reasons --------------------------------------------------------------------------------------


def test_tensors_of_the_cpu_are_refused_by_compiled_kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_interpreted, expected in ((True, []), (False, ["x is on cpu; the kernel needs a CUDA device"])):
        monkeypatch.setattr(registration, "is_interpreted", lambda value=is_interpreted: value)
        assert device_reasons(x=torch.rand(2), y=torch.rand(2), z=None) == expected


def test_tensors_of_other_devices_than_the_first_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "is_interpreted", lambda: True)
    away = torch.rand(2, device="meta")
    assert device_reasons(x=None, y=torch.rand(2), z=away, w=torch.rand(1)) == [
        "z is on meta, y on cpu; the kernel needs one device"
    ]


def test_dtypes_beyond_single_and_half_precision_are_named() -> None:
    given = {"a": torch.rand(1), "b": torch.rand(1).half(), "c": torch.rand(1).bfloat16(), "d": None}
    assert dtype_reasons(**given) == []
    assert dtype_reasons(**given, e=torch.rand(1).double(), f=torch.ones(1, dtype=torch.int64)) == [
        "e is torch.float64; the kernel computes in float32",
        "f is torch.int64; the kernel computes in float32",
    ]


def test_empty_tensors_and_other_numbers_of_dimensions_are_named() -> None:
    assert shape_reasons(2, x=torch.rand(2, 3)) == []
    assert shape_reasons(2, x=torch.rand(2, 3, 4), y=torch.rand(2, 0), z=torch.rand(1, 1)) == [
        "x has shape (2, 3, 4); the kernel needs 2 dimensions, none of them empty",
        "y has shape (2, 0); the kernel needs 2 dimensions, none of them empty",
    ]


@pytest.mark.parametrize(("size", "is_fine"), [(0, False), (1, True), (7, True), (8, False)])
def test_sizes_beyond_either_limit_are_named(size: int, is_fine: bool) -> None:
    expected = [] if is_fine else [f"x has {size} rows; the kernel takes 1 to 7"]
    assert size_reasons("x", "rows", size, 7) == expected


@pytest.mark.parametrize(
    ("group", "is_fine"),
    [
        (torch.zeros(3, dtype=torch.int64), True),
        (torch.zeros(3, dtype=torch.int32), True),
        (torch.zeros(3), False),
        (torch.zeros(4, dtype=torch.int64), False),
        (torch.zeros(3, 1, dtype=torch.int64), False),
    ],
)
def test_groups_that_do_not_number_the_entries_are_named(group: Tensor, is_fine: bool) -> None:
    for axis, x in ((1, torch.rand(2, 3)), (0, torch.rand(3, 2))):
        sentence = (
            f"group is {group.dtype} of shape {tuple(group.shape)}; the kernel needs an integer for each of the 3 "
            f"entries of x along its axis {axis}"
        )
        assert group_reasons(group, "x", x, axis) == ([] if is_fine else [sentence])


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
