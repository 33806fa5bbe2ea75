"""The device that computes: chosen by name, refused where there is none, described for results."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

import pps_fast.devices
from pps_fast.devices import choose_device, choose_precision, cpu_name, devices, set_threads, slow_precision


@pytest.mark.parametrize(
    ("name", "has_cuda", "expected"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu")]
)
def test_device_is_chosen(name, has_cuda, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert choose_device(name) == torch.device(expected)


def test_cuda_without_a_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device = 'cuda'.*--device cpu"):
        choose_device("cuda")


def test_one_of_several_gpus_is_no_choice_of_an_option():
    with pytest.raises(ValueError, match=r"^device = 'cuda:1': expected auto, cpu, cuda; .*CUDA_VISIBLE_DEVICES=1,"):
        choose_device("cuda:1")


def test_threads_are_set_and_checked():
    before = torch.get_num_threads()
    try:
        set_threads(1)
        assert torch.get_num_threads() == 1
        set_threads(None)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    for number in (0, 4097, 10**30):
        with pytest.raises(ValueError, match=f"threads = {number}: expected 1 to 4,096"):
            set_threads(number)


_FAULTS = """
import os, resource, torch
from pps_fast.devices import keep_freed_memory
print(keep_freed_memory())
def touch(): return torch.ones(12 << 20)
for _ in range(10): touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5): touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(os.environ.get("THP_MEM_ALLOC_ENABLE"))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told to keep memory")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"THP_MEM_ALLOC_ENABLE": "0"},
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
    ],
)
def test_freed_memory_is_kept_unless_the_user_has_chosen(settings: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment.pop("THP_MEM_ALLOC_ENABLE", None)
    environment |= {"GLIBC_TUNABLES": "", **settings}
    is_chosen = bool(settings) and "THP_MEM_ALLOC_ENABLE" not in settings
    done = subprocess.run([sys.executable, "-c", _FAULTS], env=environment, capture_output=True, text=True, check=True)
    is_kept, faults, huge_pages = done.stdout.split()
    assert is_kept == str(not is_chosen)
    assert huge_pages == (str(None) if is_chosen else settings.get("THP_MEM_ALLOC_ENABLE", "1"))
    # 48 MiB are 12,288 pages, mapped in anew each time they were given back
    assert int(faults) > 5 * 10_000 if is_chosen else int(faults) < 100


@pytest.mark.parametrize(
    ("capability", "precision", "is_slow"),
    [("AVX2", "bf16", True), ("DEFAULT", "bf16", True), ("AVX512", "bf16", False), ("AVX2", "fp32", False)],
)
def test_bf16_on_a_cpu_without_its_instructions_is_noted(
    monkeypatch: pytest.MonkeyPatch, capability: str, precision: str, is_slow: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    note = slow_precision(precision, torch.device("cpu"))
    assert (note is not None) == is_slow
    if is_slow:
        assert note.startswith(f"note: train.precision = 'bf16': this CPU ({capability}) has no instructions for bf16")
    assert slow_precision(precision, torch.device("cuda")) is None


@pytest.mark.parametrize(
    ("flags", "device", "expected"),
    [("fpu amx_bf16 amx_tile", "cpu", "bf16"), ("fpu avx512_bf16", "cpu", "fp32"), ("fpu", "cuda", "bf16")],
)
def test_auto_is_bf16_where_products_of_it_are_fast(
    monkeypatch: pytest.MonkeyPatch, flags: str, device: str, expected: str
) -> None:
    monkeypatch.setattr(pps_fast.devices, "_cpu_lines", lambda name: [flags] if name == "flags" else ["A CPU"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    precision, reason = choose_precision(torch.device(device))
    assert precision == expected
    assert reason == ("a GPU multiplies it" if device == "cuda" else f"A CPU has {'' if 'amx' in flags else 'no '}AMX")


def test_a_gpu_without_bf16_trains_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert choose_precision(torch.device("cuda")) == ("fp32", "this GPU has no instructions for bf16")


def test_every_device_is_described():
    described = devices()
    assert list(described) == ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    assert described["cpu"]["name"] == cpu_name() and described["cpu"]["memory_gib"] > 0
    assert described["cpu"]["threads"] == torch.get_num_threads()


def test_importing_the_file_loads_no_torch():
    code = "import sys, pps_fast.devices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
