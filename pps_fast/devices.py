"""Choice, names and limits of the computing device. Importing this file loads no torch."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pps_fast.config import Precision
from pps_fast.machine import free_memory

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
MAX_THREADS = 4096
"""more than any machine has; a system that cannot start a thread ends the process"""
# options of glibc's mallopt in bytes: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD of malloc.h
_KEEP_OPTIONS = {-3: 1 << 30, -1: (1 << 31) - 1, -2: 64 << 20}


def check_device_name(name: str | None) -> None:
    """Refuses the name of one GPU among several, which is not for an option to say.

    Raises:
        ValueError: with who decides that.
    """
    if name is not None and name.startswith("cuda:"):
        raise ValueError(
            f"device = {name!r}: expected {', '.join(get_args(Device))}; one of several GPUs is chosen with "
            f"CUDA_VISIBLE_DEVICES={name.removeprefix('cuda:')}, and torchrun gives each process its own"
        )


def choose_device(name: Device) -> torch.device:
    """Returns the device of that name; 'auto' is cuda where there is one.

    Raises:
        ValueError: for 'cuda' where there is none, or 'cuda:1'.
    """
    import torch

    check_device_name(name)
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ValueError("device = 'cuda': torch finds no CUDA device here; use --device cpu")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def visible_gpus() -> list[str]:
    """Returns what CUDA_VISIBLE_DEVICES calls the GPUs that this process may use; "0", "1", ... where it is not set."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if len(named) >= count else [str(index) for index in range(count)]


def use_only_gpu(name: str) -> None:
    """Leaves this process a single GPU, by a name of `visible_gpus`; before it has used one."""
    os.environ["CUDA_VISIBLE_DEVICES"] = name


def set_threads(number: int | None) -> None:
    """Lets torch use that many CPU threads in this process; None leaves torch's own choice.

    Raises:
        ValueError: for a number below 1, or above MAX_THREADS.
    """
    import torch

    if number is None:
        return
    if not 1 <= number <= MAX_THREADS:
        raise ValueError(f"threads = {number}: expected 1 to {MAX_THREADS:,}")
    torch.set_num_threads(number)


def keep_freed_memory() -> bool:
    """Lets this process keep the memory that it frees, for what it allocates next; returns whether it will.

    A C library otherwise gives large blocks back to the system, which maps them in anew page by page: about 67,000 page
    faults in a training step on a CPU. Memory between steps stays at its peak instead. torch also asks for huge pages,
    if it has allocated nothing before. Nothing is done without glibc, or where the user has chosen settings of its
    allocator (MALLOC_*, GLIBC_TUNABLES); a user's THP_MEM_ALLOC_ENABLE, which torch reads, stays.
    """
    chosen = [name for name in os.environ if name.startswith("MALLOC_")]
    if platform.libc_ver()[0] != "glibc" or chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    set_option = ctypes.CDLL(None).mallopt
    # not a list: each is set even if an earlier one is refused
    return all([set_option(option, value) for option, value in _KEEP_OPTIONS.items()])


def free_memory_of(device: torch.device) -> int | None:
    """Returns the bytes of memory that tensors on a device can still take; None where the system does not tell."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


def choose_precision(device: torch.device) -> tuple[Precision, str]:
    """Returns the precision that 'auto' stands for on a device, and why."""
    import torch

    if device.type == "cuda":
        # a device that is only simulated cannot be asked
        has_bf16 = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "a GPU multiplies it") if has_bf16 else ("fp32", "this GPU has no instructions for bf16")
    has_amx = any("amx_bf16" in flags.split() for flags in _cpu_lines("flags"))
    return ("bf16", f"{cpu_name()} has AMX") if has_amx else ("fp32", f"{cpu_name()} has no AMX")


def slow_precision(precision: Precision, device: torch.device) -> str | None:
    """Returns a sentence if a device has no instructions for the arithmetic of a precision, else None."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    if precision != "bf16" or device.type != "cpu" or capability.startswith("AVX512"):
        return None
    return (
        f"note: train.precision = 'bf16': this CPU ({capability}) has no instructions for bf16, so that matrix "
        "products take many times as long as with fp32"
    )


def devices() -> dict[str, dict[str, Any]]:
    """Returns the CPU and every CUDA device by torch's name for it: name, memory in GiB, threads or capability."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    known: dict[str, dict[str, Any]] = {
        "cpu": {"name": cpu_name(), "threads": torch.get_num_threads(), "memory_gib": round(memory / 2**30, 1)}
    }
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        known[f"cuda:{index}"] = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
        }
    return known


def cpu_name() -> str:
    """Returns the CPU's model name as the operating system reports it."""
    names = _cpu_lines("model name")
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_lines(name: str) -> list[str]:
    """Returns what Linux says about each processor under that name; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [line.split(":", 1)[1].strip() for line in lines if line.startswith(name)]
