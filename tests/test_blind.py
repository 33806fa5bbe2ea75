"""python -m pps_fast.blind: the rows that look at nothing, on any prepared data."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest

from pps_fast import blind
from pps_fast.config import PlantedConfig
from pps_fast.data.packing import write_prepared
from pps_fast.data.synthetic import planted_data
from pps_fast.eval.blind import RANDOM, WHOLE_VIDEO


def test_the_command_prints_and_writes_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "blind.json"
    assert blind.main(["--out", str(out), "--draws", "20", "--thresholds", "0.5", "0.7"]) == 0
    printed = capsys.readouterr().out
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["num_samples"] == 600 and record["num_videos"] == 100 and record["num_fit_samples"] == 2400
    assert list(record["rows"][WHOLE_VIDEO]) == ["R@1 IoU>=0.5", "R@1 IoU>=0.7", "R@1 mIoU"]
    assert len(record["intervals"]["5 fixed intervals, IoU>=0.5"]) == 5
    for name, columns in record["rows"].items():
        assert name in printed
        for estimate in columns.values():
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
    # guesses by chance score worse than the intervals fitted for the column
    best = record["rows"]["fixed interval, IoU>=0.5"]["R@1 IoU>=0.5"]
    assert record["rows"][RANDOM]["R@1 IoU>=0.5"]["high"] < best["value"]


def test_one_repetition_is_one_table_of_guesses_and_the_seed_decides(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for file, seed in zip(files, ("0", "0", "1"), strict=True):
        assert blind.main(["--out", str(file), "--draws", "1", "--seed", seed]) == 0
    first, again, other = (json.loads(file.read_text(encoding="utf-8"))["rows"][RANDOM] for file in files)
    assert first == again and first != other


def test_features_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.h5"
    write_prepared(path, planted_data(PlantedConfig(num_videos=10, num_segments=16, frame_dim=4)))
    with h5py.File(path, "r+") as file:
        del file["features"]
    assert blind.main(["--data", str(path), "--draws", "2"]) == 0
    assert "The intervals mean nothing: 2 videos are too few" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--thresholds", "0"), "--thresholds (0.0,): expected one or more values above 0, at most 1"),
        (("--ranked", "0"), "--ranked 0: expected 1 to 100"),
        (("--draws", "0"), "--draws 0: expected 1 to 100,000"),
        (("--split", "validation"), "--split validation: the data set has no such samples"),
        (("--out", "no/such/folder/x.json"), "expected a file in a folder that exists"),
        (("--data", "missing.h5"), "missing.h5"),
        (("--fold", "0"), "the data set has no folds"),
    ],
)
def test_bad_options_are_refused(options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert blind.main(list(options)) != 0
    assert message in capsys.readouterr().err


def test_the_data_file_is_not_replaced_by_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.h5").write_bytes(b"mine")
    (tmp_path / "link.h5").symlink_to(tmp_path / "a.h5")
    for name in ("a.h5", "link.h5"):
        assert blind.main(["--data", str(tmp_path / "a.h5"), "--out", str(tmp_path / name)]) == 2
        assert "is the input, which would be replaced; name another file" in capsys.readouterr().err
    assert (tmp_path / "a.h5").read_bytes() == b"mine"
