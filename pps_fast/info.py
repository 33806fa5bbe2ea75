"""python -m pps_fast.info: versions, devices, and which backend serves each op of a preset, and why not the other."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pps_fast import __version__
from pps_fast.cli import PresetName, exit_status, parse_with_preset
from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.devices import choose_precision
from pps_fast.devices import cpu_name as cpu_name
from pps_fast.devices import devices as devices
from pps_fast.help_text import Program

if TYPE_CHECKING:
    from pps_fast.ops.choices import Choice
    from pps_fast.types import FeatureSizes

# frame_dim, word_dim, vocab_size, num_segments and word columns of the published data sets, for presets whose file is
# not at hand; by the beginning of the preset's name without the method's
_PUBLISHED = {
    "charades_clip": (512, 300, 1112, 200, 20),
    "charades": (1024, 300, 1112, 200, 20),
    "activitynet": (500, 300, 8001, 200, 20),
}
_METHODS = ("cpl", "cnm")
_PACKAGES = ("torch", "triton", "numpy", "h5py", "safetensors")


@dataclass(frozen=True, kw_only=True)
class InfoArguments:
    """Options of the command that are not part of the config."""

    preset: PresetName = "charades"
    """named config whose ops are shown"""
    json: bool = False
    """print JSON instead of tables"""
    compile: bool = False
    """also compile the kernels of training and evaluation, several at once, so that no later step waits; needs a GPU"""
    config: Annotated[PPSConfig, tyro.conf.arg(name="")] = field(default_factory=PPSConfig)
    """all options of the preset"""


PROGRAM = Program(
    name="info",
    description="""Shows versions, devices, and which backend serves each op of a preset's training step: a fused Triton
kernel, or the PyTorch equation and the reason why.""",
    options=InfoArguments,
    first=("preset", "data.path", "json", "compile", "backend", "train.precision"),
    aliases={"--data": "--data.path"},
    examples="""python -m pps_fast.info
python -m pps_fast.info --preset activitynet --train.precision bf16
python -m pps_fast.info --preset charades --json""",
)


def versions() -> dict[str, str]:
    """Returns the version of everything a result depends on; "not installed" for what is missing."""
    import torch

    installed = {"pps_fast": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "not installed"
    return {**installed, "cuda": torch.version.cuda or "none (torch is built without)"}


def published_sizes() -> dict[str, tuple[FeatureSizes, int]]:
    """Returns data set -> its sizes and its number of word columns, for the published data sets."""
    from pps_fast.types import FeatureSizes

    names = ("frame_dim", "word_dim", "vocab_size", "num_segments")
    return {
        data: (FeatureSizes(**dict(zip(names, sizes, strict=True))), columns)
        for data, (*sizes, columns) in _PUBLISHED.items()
    }


def data_sizes(preset: str, config: PPSConfig) -> tuple[FeatureSizes, int]:
    """Returns the sizes and word columns of the config's data; the published ones where no file is given.

    Raises:
        ValueError: for a data file that cannot be read.
    """
    from pps_fast.data.prepared import read_sizes
    from pps_fast.data.synthetic import planted_data

    method, _, rest = preset.partition("_")
    # presets of a method alone are for Charades-STA
    on = (rest or "charades") if method in _METHODS else preset
    names = [name for name in _PUBLISHED if on.startswith(name)]
    if config.data.path is None and names:
        return published_sizes()[max(names, key=len)]
    if config.data.path is not None:
        return read_sizes(config.data.path)
    data = planted_data(config.data.planted)
    return data.sizes, data.word_ids.shape[1]


def collect(preset: str, config: PPSConfig) -> dict[str, Any]:
    """Returns versions, devices and, per device, what serves each op."""
    from pps_fast.ops.choices import choices_of
    from pps_fast.train.fake_step import record_step

    sizes, num_columns = data_sizes(preset, config)
    present = devices()
    records = {name: record_step(_decided(config, name), sizes, num_columns, name) for name in present}
    ops = {name: [asdict(choice) for choice in choices_of(calls)] for name, calls in records.items()}
    return {
        "versions": versions(),
        "devices": present,
        "preset": preset,
        "backend": config.backend,
        "sizes": {**asdict(sizes), "num_columns": num_columns},
        "ops": ops,
    }


def _decided(config: PPSConfig, device: str) -> PPSConfig:
    """Returns the config with what 'auto' stands for on a device."""
    import torch

    is_auto = config.train.precision == "auto"
    return override(config, {"train.precision": choose_precision(torch.device(device))[0]}) if is_auto else config


def format_info(info: dict[str, Any]) -> str:
    """Returns the tables of `collect`'s result."""
    from pps_fast.ops.choices import Choice

    lines = ["versions"]
    lines += [f"  {name:12s} {value}" for name, value in info["versions"].items()]
    lines += ["", "devices"]
    for name, known in info["devices"].items():
        rest = ", ".join(f"{field} {value}" for field, value in known.items() if field != "name")
        lines.append(f"  {name:12s} {known['name']} ({rest})")
    for device, ops in info["ops"].items():
        lines += ["", f"ops of preset {info['preset']} on {device}, backend = {info['backend']}"]
        lines += [line for op in ops for line in _op_lines(Choice(**op))]
    return "\n".join(lines)


def _op_lines(choice: Choice) -> list[str]:
    return [
        f"  {choice.op:20s} {choice.backend:8s} {choice.where}".rstrip(),
        *(f"  {'':20s} {'':8s} not triton: {reason}" for reason in choice.reasons),
    ]


def _compile(arguments: InfoArguments) -> None:
    """Compiles the kernels of the config's steps for the GPU; Triton keeps them on disk.

    Raises:
        ValueError: where there is no GPU.
    """
    import torch

    from pps_fast.train.compile import compile_steps

    if not torch.cuda.is_available():
        raise ValueError("--compile: torch sees no CUDA device to compile for; leave the option out here")
    sizes, num_columns = data_sizes(arguments.preset, arguments.config)
    compile_steps(arguments.config, sizes, num_columns, "cuda")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def program() -> int:
        arguments = parse_with_preset(PROGRAM, argv, default="charades")
        info = collect(arguments.preset, arguments.config)
        print(json.dumps(info, indent=2) if arguments.json else format_info(info))
        if arguments.compile:
            _compile(arguments)
        return 0

    return exit_status(program, is_printing_all=True)


if __name__ == "__main__":
    sys.exit(main())
