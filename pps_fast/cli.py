"""What the command lines share: options generated from dataclasses, presets, exit statuses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch
import tyro

from pps_fast.config import PPSConfig
from pps_fast.ops.dispatch import BackendError
from pps_fast.presets import PRESETS

PresetName = Literal[tuple(PRESETS)]  # type: ignore[valid-type]
Device = Literal["auto", "cpu", "cuda"]

Arguments = TypeVar("Arguments")


def parse_with_preset(
    arguments: type[Arguments], argv: Sequence[str], *, program: str, description: str, default: str = "demo"
) -> Arguments:
    """Parses a command line whose options start from a preset.

    Args:
        arguments: dataclass of the options, whose defaults suffice but for `preset: PresetName` and
            `config: Annotated[PPSConfig, tyro.conf.arg(name="")]`, the latter so that its options have no prefix.
        argv: what follows the program's name.
        program: how it is called, for the help text.
        description: what the help text says first.
        default: preset of a command line without --preset.

    Raises:
        SystemExit: with status 0 after --help, 2 for a wrong option or value, which is printed.
        ValueError: for a config whose parts do not fit together.
    """
    preset = _find_preset(argv, default)
    if preset not in PRESETS:
        # tyro takes any default for a choice, so an unknown name may not become one; it will refuse the word itself
        preset = default
    start = arguments(preset=preset, config=PRESETS[preset])
    return tyro.cli(arguments, args=list(argv), default=start, prog=program, description=description)


def _find_preset(argv: Sequence[str], default: str) -> str:
    """Returns the value of the last --preset."""
    preset = default
    for position, word in enumerate(argv):
        if word == "--preset" and position + 1 < len(argv):
            preset = argv[position + 1]
        elif word.startswith("--preset="):
            preset = word.split("=", 1)[1]
    return preset


def choose_device(name: Device) -> torch.device:
    """Returns the device of that name; 'auto' is cuda where there is one.

    Raises:
        ValueError: for 'cuda' where there is none.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ValueError("device = 'cuda': torch finds no CUDA device here; use --device cpu")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def set_threads(number: int | None) -> None:
    """Lets torch use that many CPU threads; None leaves torch's own choice.

    Raises:
        ValueError: for a number below 1.
    """
    if number is None:
        return
    if number < 1:
        raise ValueError(f"threads = {number}: expected at least 1")
    torch.set_num_threads(number)


def slow_precision(config: PPSConfig, device: torch.device) -> str | None:
    """Returns a sentence if the config asks a device for arithmetic that it has no instructions for."""
    capability = torch.backends.cpu.get_cpu_capability()
    if config.train.precision != "bf16" or device.type != "cpu" or capability.startswith("AVX512"):
        return None
    return (
        f"note: train.precision = 'bf16': this CPU ({capability}) has no instructions for bf16, so that matrix "
        "products take many times as long as with fp32"
    )


def exit_status(program: Callable[[], int]) -> int:
    """Runs a program and returns its exit status; what a user can mend is one line on stderr instead of a traceback.

    1: training met a loss that is not finite. 2: wrong option, input or backend. 130: interrupted.
    """
    try:
        return program()
    except FloatingPointError as error:
        return _complain(error, 1)
    except (ValueError, OSError, BackendError) as error:
        return _complain(error, 2)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)


def _complain(message: Any, status: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return status
