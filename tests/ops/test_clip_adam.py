"""Clipping and Adam over flat buffers: torch form and kernels against the loops, refusals, and nothing read back."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from pps_fast.kernels import clip_adam as kernel
from pps_fast.ops.clip_adam import AdamBuffers, AdamConstants, clip_adam
from pps_fast.ops.dispatch import BackendError
from tests.support.compare import assert_agree

CONSTANTS = AdamConstants(clip_norm=10.0, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0)
KINDS = ("parameters", "gradients", "first", "second")
BACKENDS = ("torch", "triton")
# of the largest value, fp32; measured: 1.5e-7
NEAR = 5e-7


def _inputs(*sizes: int, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """Buffers with moments of some updates."""
    generator = torch.Generator().manual_seed(seed)

    def draw(scale: float) -> list[Tensor]:
        return [(scale * torch.randn(size, generator=generator, dtype=torch.float64)).to(dtype) for size in sizes]

    buffers = {"parameters": draw(1.0), "gradients": draw(3.0), "first": draw(0.1)}
    buffers["second"] = [x.square() for x in draw(0.1)]
    state = {"rate": torch.tensor(1e-2, dtype=torch.float64), "update": torch.tensor(3.0, dtype=torch.float64)}
    return {**buffers, **state, "is_finite": torch.tensor(True), "constants": CONSTANTS, **changes}


def _grouped(
    parameters: list[Tensor], gradients: list[Tensor], first: list[Tensor], second: list[Tensor], **others: Any
) -> dict[str, Any]:
    """Arguments of the op; `rounded`, where it is given, has a copy or None for each of the parameters."""
    rounded = others.pop("rounded", [None] * len(parameters))
    groups = zip(parameters, gradients, first, second, rounded, strict=True)
    return {"buffers": [AdamBuffers(*group) for group in groups], **others}


def _run(backend: str = "auto", **inputs: Any) -> Tensor:
    return clip_adam(**_grouped(**inputs), backend=backend)


def _copied(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same in memory of its own."""
    copied = {name: value.clone() if isinstance(value, Tensor) else value for name, value in inputs.items()}
    return copied | {name: [x.clone() for x in inputs[name]] for name in KINDS}


def _by_loops(inputs: dict[str, Any]) -> dict[str, Any]:
    """What the buffers must hold afterwards, and the norm: explicit loops over Python's floats."""
    constants, rate = inputs["constants"], inputs["rate"].item()
    norm = math.sqrt(sum(value * value for x in inputs["gradients"] for value in x.double().tolist()))
    is_finite = inputs["is_finite"].item() and math.isfinite(norm)
    update = inputs["update"].item() + is_finite
    results: dict[str, Any] = {name: [x.double().tolist() for x in inputs[name]] for name in KINDS}
    scale = min(1.0, constants.clip_norm / (norm + 1e-6)) if is_finite else 0.0
    for p, g, m, v in zip(*(results[name] for name in KINDS), strict=True):
        for i in range(len(p)):
            if is_finite:
                m[i] = constants.beta1 * m[i] + (1 - constants.beta1) * scale * g[i]
                v[i] = constants.beta2 * v[i] + (1 - constants.beta2) * (scale * g[i]) ** 2
                correction = math.sqrt(1 - constants.beta2**update) / (1 - constants.beta1**update)
                p[i] -= rate * constants.weight_decay * p[i]
                p[i] -= rate * correction * m[i] / (math.sqrt(v[i]) + constants.eps)
            g[i] = 0.0
    return {**results, "norm": np.float64(norm), "update": update, "is_finite": is_finite}


def _assert_updates_as_the_loops(inputs: dict[str, Any], backend: str, near: float) -> None:
    expected, inputs = _by_loops(inputs), _copied(inputs)
    norm = _run(**inputs, backend=backend)
    assert norm.dtype == inputs["gradients"][0].dtype and norm.shape == ()
    for name in KINDS:
        for index, (got, values) in enumerate(zip(inputs[name], expected[name], strict=True)):
            wanted = np.array(values)
            assert_agree(f"{name} {index}", got.double(), wanted, rtol=near)
    assert_agree("norm", norm.double(), expected["norm"], rtol=near)
    assert inputs["update"].item() == expected["update"] and inputs["is_finite"].item() == expected["is_finite"]


@pytest.mark.parametrize("clip_norm", [0.5, 1e3, math.inf])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(("backend", "dtype"), [("torch", "float64"), ("torch", "float32"), ("triton", "float32")])
@pytest.mark.parametrize("sizes", [(1,), (37,), (5, 600)])
def test_agrees_with_the_loops(
    sizes: tuple, backend: str, dtype: str, weight_decay: float, clip_norm: float, poisoned_empty: None
) -> None:
    constants = CONSTANTS._replace(clip_norm=clip_norm, weight_decay=weight_decay)
    near = {"float64": 1e-14, "float32": NEAR}[dtype]
    inputs = _inputs(*sizes, dtype=getattr(torch, dtype), constants=constants)
    norm = _by_loops(inputs)["norm"]
    assert (norm > clip_norm) == (clip_norm == 0.5), "0.5 must clip and the others must not"
    _assert_updates_as_the_loops(inputs, backend, near)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("update", [0.0, 1.0, 1e5])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.5), (0.5, 0.0)])
def test_bias_is_corrected_at_the_first_and_the_last_update(backend: str, update: float, betas: tuple) -> None:
    constants = CONSTANTS._replace(beta1=betas[0], beta2=betas[1])
    update = torch.tensor(update, dtype=torch.float64)
    _assert_updates_as_the_loops(_inputs(9, update=update, constants=constants), backend, NEAR)


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_number_of_blocks_and_chunks_makes_the_same_update(
    backend: str, monkeypatch: pytest.MonkeyPatch, poisoned_empty: None
) -> None:
    monkeypatch.setattr(kernel, "_BLOCK", 64)
    monkeypatch.setattr(kernel, "_MAX_PARTS", 3)
    monkeypatch.setattr(sys.modules["pps_fast.ops.clip_adam"], "_CHUNK", 100)
    inputs = _inputs(64 * 3 * 4 + 1, 63, 100, constants=CONSTANTS._replace(weight_decay=0.1))
    assert kernel.parts(inputs["gradients"][0].numel()) == (2, 8)
    _assert_updates_as_the_loops(inputs, backend, NEAR)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
# the square of 1e30 is infinite, which the interpreter's numpy remarks
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_norm_that_is_not_finite_changes_nothing_and_turns_the_flag_down(backend: str, bad: float) -> None:
    inputs = _inputs(5, 70, constants=CONSTANTS._replace(weight_decay=0.1))
    inputs["gradients"][1][69] = bad
    before = _copied(inputs)
    norm = _run(**inputs, backend=backend)
    assert not norm.isfinite() and not inputs["is_finite"] and inputs["update"] == 3
    for name in ("parameters", "first", "second"):
        assert all(torch.equal(a, b) for a, b in zip(inputs[name], before[name], strict=True))
    assert not any(gradient.any() for gradient in inputs["gradients"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing_and_turns_the_flag_down(backend: str, bad: float) -> None:
    inputs = _inputs(70, loss=torch.tensor(bad))
    before = _copied(inputs)
    assert _run(**inputs, backend=backend).isfinite()
    assert not inputs["is_finite"] and inputs["update"] == 3
    for name in ("parameters", "first", "second"):
        assert torch.equal(inputs[name][0], before[name][0])
    _assert_updates_as_the_loops(_inputs(70, loss=torch.tensor(-2e3)), backend, NEAR)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_finite", [True, False])
def test_an_update_writes_the_rounded_copies_that_there_are(backend: str, dtype: torch.dtype, is_finite: bool) -> None:
    inputs = _inputs(1030, 70, is_finite=torch.tensor(is_finite))
    copy = inputs["parameters"][0].to(dtype)
    before = copy.clone()
    _run(**inputs, rounded=[copy, None], backend=backend)
    wanted = inputs["parameters"][0].to(dtype)
    if backend == "triton" and dtype == torch.bfloat16:
        # the interpreter cuts off what a GPU rounds
        assert_agree("copy", copy.float(), wanted.float(), atol=0, rtol=2**-7)
    else:
        assert torch.equal(copy, wanted)
    assert torch.equal(copy, before) != is_finite


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("update", [0.0, 3.0])
@pytest.mark.parametrize("bad", [1.0, float("nan")])
def test_where_the_flag_is_down_nothing_changes_whatever_the_gradients(backend: str, update: float, bad: float) -> None:
    inputs = _inputs(70, update=torch.tensor(update, dtype=torch.float64), is_finite=torch.tensor(False))
    inputs["gradients"][0][3] = bad
    before = _copied(inputs)
    _run(**inputs, backend=backend)
    for name in ("parameters", "first", "second"):
        assert torch.equal(inputs[name][0], before[name][0])
    assert inputs["update"] == update and not inputs["gradients"][0].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_runs_agree_in_every_bit(backend: str) -> None:
    one, other = (_inputs(3000, 65) for _ in range(2))
    assert torch.equal(_run(**one, backend=backend), _run(**other, backend=backend))
    for name in KINDS:
        assert all(torch.equal(a, b) for a, b in zip(one[name], other[name], strict=True))


def test_buffers_of_several_dtypes_share_the_norm() -> None:
    inputs = _inputs(40, 30, dtype=torch.float64, constants=CONSTANTS._replace(clip_norm=1.0))
    expected = _by_loops(inputs)
    for name in KINDS:
        inputs[name][1] = inputs[name][1].float()
    assert_agree("norm", _run(**inputs), expected["norm"], rtol=NEAR)
    for index, near in ((0, NEAR), (1, NEAR)):
        assert_agree("p", inputs["parameters"][index].double(), np.array(expected["parameters"][index]), rtol=near)


def test_auto_takes_the_torch_form_where_the_kernels_refuse() -> None:
    inputs = _inputs(7, dtype=torch.float64)
    assert "buffers[0].parameters is torch.float64" in clip_adam.reasons(**_grouped(**inputs))[0]
    expected = _copied(inputs)
    _run(**inputs), _run(**expected, backend="torch")
    assert torch.equal(inputs["parameters"][0], expected["parameters"][0])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {name: [torch.rand(4, dtype=torch.float64)] for name in KINDS},
            r"buffers\[0\].parameters is torch.float64 of 4 values; the kernel needs float32, one at least",
        ),
        ({name: [torch.rand(0)] for name in KINDS}, r"buffers\[0\].parameters is torch.float32 of 0 values"),
    ],
)
def test_the_kernels_refuse_what_they_cannot_update(changes: dict, reason: str) -> None:
    inputs = _inputs(4)
    assert not clip_adam.reasons(**_grouped(**inputs))
    with pytest.raises(BackendError, match=reason):
        _run(**(inputs | changes), backend="triton")


def test_the_registered_operator_passes_opcheck() -> None:
    inputs = _inputs(5, 70)
    flat = [inputs[name][index] for index in range(2) for name in KINDS]
    copies = [inputs["parameters"][0].bfloat16(), None]
    state = (inputs[name] for name in ("rate", "update", "is_finite"))
    arguments = (flat, copies, *state, list(CONSTANTS), torch.ones(()))
    utils = ("test_schema", "test_autograd_registration", "test_faketensor")
    results = torch.library.opcheck(torch.ops.pps_fast.clip_adam, arguments, test_utils=utils)
    assert set(results.values()) == {"SUCCESS"}


def test_nothing_is_read_back_from_the_device() -> None:
    with FakeTensorMode():
        inputs = {name: [torch.ones(3), torch.ones(4)] for name in KINDS}
        state = {name: torch.ones((), dtype=torch.float64) for name in ("rate", "update")}
        norm = _run(**inputs, **state, is_finite=torch.ones((), dtype=torch.bool), constants=CONSTANTS)
        # the mode would have caught it
        with pytest.raises(DataDependentOutputException):
            norm.item()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_captured_update_is_the_eager_one(backend: str) -> None:
    eager = _on_gpu(_inputs(100_000, 65))
    replayed = _copied(eager)
    gradients = [x.clone() for x in eager["gradients"]]
    # compiles, without an update
    _run(**(_copied(eager) | {"is_finite": torch.tensor(False, device="cuda")}), backend=backend)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        norm = _run(**replayed, backend=backend)
    for _ in range(3):
        for inputs in (eager, replayed):
            for buffer, gradient in zip(inputs["gradients"], gradients, strict=True):
                buffer.copy_(gradient)
        expected = _run(**eager, backend=backend)
        graph.replay()
        assert torch.equal(norm, expected)
    for name in KINDS:
        assert all(torch.equal(a, b) for a, b in zip(eager[name], replayed[name], strict=True))
    assert eager["update"] == replayed["update"] == 6


@pytest.mark.gpu
def test_kernels_and_torch_form_agree_on_a_gpu() -> None:
    one, other = (_on_gpu(_inputs(100_000, 65, constants=CONSTANTS._replace(weight_decay=0.1))) for _ in range(2))
    copies = [x.bfloat16() for x in one["parameters"]]
    norm = _run(**one, rounded=copies, loss=torch.ones((), device="cuda"), backend="triton")
    assert_agree("norm", norm, _run(**other, backend="torch"), rtol=NEAR)
    assert all(torch.equal(copy, x.bfloat16()) for copy, x in zip(copies, one["parameters"], strict=True))
    for name in KINDS:
        for got, expected in zip(one[name], other[name], strict=True):
            assert_agree(name, got, expected, rtol=NEAR)


def _on_gpu(inputs: dict[str, Any]) -> dict[str, Any]:
    moved = {name: value.cuda() if isinstance(value, Tensor) else value for name, value in inputs.items()}
    return moved | {name: [x.cuda() for x in inputs[name]] for name in KINDS}
