"""python -m pps_fast.info: versions, devices, and which backend serves each op of a preset, and why not the other."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from pps_fast import __version__
from pps_fast.cli import PresetName, exit_status, parse_with_preset
from pps_fast.config import PPSConfig
from pps_fast.data.load import load_data
from pps_fast.ops.choices import Choice, choices_of
from pps_fast.train.fake_step import record_step
from pps_fast.types import FeatureSizes

DESCRIPTION = """Shows versions, devices, and the backend that serves each op of a preset's training step.

examples:
  python -m pps_fast.info
  python -m pps_fast.info --preset activitynet --train.precision bf16
  python -m pps_fast.info --preset charades --json
"""
# sizes and word columns of the published data sets, for presets whose file is not at hand; by the preset's beginning,
# less the method's name
PUBLISHED: dict[str, tuple[FeatureSizes, int]] = {
    "charades_clip": (FeatureSizes(frame_dim=512, word_dim=300, vocab_size=1112, num_segments=200), 20),
    "charades": (FeatureSizes(frame_dim=1024, word_dim=300, vocab_size=1112, num_segments=200), 20),
    "activitynet": (FeatureSizes(frame_dim=500, word_dim=300, vocab_size=8001, num_segments=200), 20),
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
    config: Annotated[PPSConfig, tyro.conf.arg(name="")] = field(default_factory=PPSConfig)
    """everything else"""


def versions() -> dict[str, str]:
    """Returns the version of everything a result depends on; "not installed" for what is missing."""
    installed = {"pps_fast": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "not installed"
    return {**installed, "cuda": torch.version.cuda or "none (torch is built without)"}


def devices() -> dict[str, dict[str, Any]]:
    """Returns the CPU and every CUDA device by torch's name for it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    present: dict[str, dict[str, Any]] = {
        "cpu": {"name": cpu_name(), "threads": torch.get_num_threads(), "memory_gib": round(memory / 2**30, 1)}
    }
    for index in range(torch.cuda.device_count()):
        known = torch.cuda.get_device_properties(index)
        present[f"cuda:{index}"] = {
            "name": known.name,
            "capability": f"{known.major}.{known.minor}",
            "memory_gib": round(known.total_memory / 2**30, 1),
        }
    return present


def cpu_name() -> str:
    """Returns what the system calls its CPU."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def data_sizes(preset: str, config: PPSConfig) -> tuple[FeatureSizes, int]:
    """Returns the sizes and word columns of the config's data; the published ones where no file is given.

    Raises:
        ValueError: for a data file that cannot be read.
    """
    method, _, rest = preset.partition("_")
    # presets of a method alone are for Charades-STA
    on = (rest or "charades") if method in _METHODS else preset
    names = [name for name in PUBLISHED if on.startswith(name)]
    if config.data.path is None and names:
        return PUBLISHED[max(names, key=len)]
    data = load_data(config.data)
    return data.sizes, data.word_ids.shape[1]


def collect(preset: str, config: PPSConfig) -> dict[str, Any]:
    """Returns versions, devices and, per device, what serves each op."""
    sizes, num_columns = data_sizes(preset, config)
    present = devices()
    records = {name: record_step(config, sizes, num_columns, name) for name in present}
    ops = {name: [asdict(choice) for choice in choices_of(calls)] for name, calls in records.items()}
    return {
        "versions": versions(),
        "devices": present,
        "preset": preset,
        "backend": config.backend,
        "sizes": {**asdict(sizes), "num_columns": num_columns},
        "ops": ops,
    }


def format_info(info: dict[str, Any]) -> str:
    """Returns the tables of `collect`'s result."""
    lines = ["versions"]
    lines += [f"  {name:12s} {value}" for name, value in info["versions"].items()]
    lines += ["", "devices"]
    for name, known in info["devices"].items():
        rest = ", ".join(f"{key} {value}" for key, value in known.items() if key != "name")
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


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def program() -> int:
        name = "python -m pps_fast.info"
        arguments = parse_with_preset(InfoArguments, argv, program=name, description=DESCRIPTION, default="charades")
        info = collect(arguments.preset, arguments.config)
        print(json.dumps(info, indent=2) if arguments.json else format_info(info))
        return 0

    return exit_status(program)


if __name__ == "__main__":
    sys.exit(main())
