"""python -m pps_fast.info: versions, devices, and what serves each op."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pps_fast import __version__, info
from pps_fast.config_tree import override
from pps_fast.data.packing import write_prepared
from pps_fast.data.synthetic import planted_data
from pps_fast.ops import ALL_OPS
from pps_fast.presets import PRESETS

ROOT = Path(__file__).parents[1]


def test_the_command_prints_versions_devices_and_every_op() -> None:
    done = subprocess.run([sys.executable, "-m", "pps_fast.info"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "versions" and "devices" in lines
    assert any(line.split() == ["torch", torch.__version__] for line in lines)
    assert "ops of preset charades on cpu, backend = auto" in lines
    for op in ALL_OPS:
        assert any(line.startswith(f"  {op.name} ") for line in lines), op.name
    # without a GPU the tests run kernels in the interpreter
    reason = "needs a CUDA device" if torch.cuda.is_available() else "Triton's interpreter is on"
    assert sum("not triton: " in line and reason in line for line in lines) >= 10


def test_json_has_the_same_and_follows_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main(["--preset", "activitynet", "--json", "--backend", "torch"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["versions"]["pps_fast"] == __version__
    assert record["versions"]["python"] == platform.python_version()
    assert record["preset"] == "activitynet" and record["sizes"]["vocab_size"] == 8001
    assert set(record["ops"]) == set(record["devices"]) >= {"cpu"}
    used = [op for op in record["ops"]["cpu"] if op["backend"] != "unused"]
    assert len(used) > 5 and all(op["backend"] == "torch" and op["reasons"] for op in used)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_sizes(preset: str) -> None:
    sizes, num_columns = info.data_sizes(preset, PRESETS[preset])
    published = preset in ("cpl", "cnm") or "charades" in preset or "activitynet" in preset
    assert (sizes.num_segments, num_columns) == (
        (200, 20) if published else (PRESETS[preset].data.planted.num_segments, 10)
    )
    width = 512 if "clip" in preset else 500 if "activitynet" in preset else 1024
    assert sizes.frame_dim == (width if published else PRESETS[preset].data.planted.frame_dim)


def test_sizes_of_a_file_are_those_of_its_data(tmp_path: Path) -> None:
    data = planted_data(PRESETS["tiny"].data.planted)
    write_prepared(tmp_path / "data.h5", data)
    config = override(PRESETS["charades"], {"data.path": str(tmp_path / "data.h5")})
    assert info.data_sizes("charades", config) == (data.sizes, data.word_ids.shape[1])


def test_a_missing_data_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert info.main(["--data.path", "nowhere.h5"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_compiling_without_a_gpu_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(info, "collect", lambda preset, config: {})
    assert info.main(["--preset", "tiny", "--json", "--compile"]) == 2
    assert "--compile: torch sees no CUDA device" in capsys.readouterr().err


def test_a_missing_package_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "_PACKAGES", ("torch", "no-such-package-as-this"))
    assert info.versions()["no-such-package-as-this"] == "not installed"
