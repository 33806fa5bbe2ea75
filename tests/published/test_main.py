"""`python -m pps_fast.published` from the outside."""

from __future__ import annotations

import pytest
import torch

from pps_fast.data.load import load_data
from pps_fast.data.prepared import write_prepared
from pps_fast.eval.__main__ import main as evaluate
from pps_fast.model import PPS
from pps_fast.presets import PRESETS
from pps_fast.published.__main__ import main
from pps_fast.published.weights import export_released

CONFIG = PRESETS["cpl_demo"]
DATA = load_data(CONFIG.data)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    torch.save({"model_parameters": export_released(PPS(CONFIG, DATA.sizes))}, folder / "cpl.pt")
    write_prepared(folder / "data.h5", DATA)
    return folder


def test_weights_come_in_are_evaluated_and_go_out(published, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--preset", "cpl_demo", "--data", str(published / "data.h5"), "--out", str(run)]
    assert main([str(published / "cpl.pt"), *options]) == 0
    assert f"python -m pps_fast.eval --model {run}\n" in capsys.readouterr().out
    assert evaluate(["--checkpoint", str(run), "--device", "cpu"]) == 0
    assert "note:" not in capsys.readouterr().err
    assert main([str(run), "--export", str(tmp_path / "again.pt")]) == 0
    first, again = (torch.load(path, weights_only=True) for path in (published / "cpl.pt", tmp_path / "again.pt"))
    for name, value in first["model_parameters"].items():
        assert torch.equal(again["model_parameters"][name], value), name


def test_sizes_stand_in_for_the_data(published, tmp_path, capsys):
    sizes = DATA.sizes
    numbers = [sizes.frame_dim, sizes.word_dim, sizes.vocab_size, sizes.num_segments]
    options = ["--preset", "cpl_demo", "--sizes", *map(str, numbers), "--out", str(tmp_path / "run")]
    assert main([str(published / "cpl.pt"), *options]) == 0
    assert "--data FILE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--out and --export: give one of them"),
        (["--out", "x", "--export", "y"], "--out and --export: give one of them"),
        (["--out", "x"], "--data and --sizes: give one of them"),
        (["--out", "x", "--sizes", "1", "1", "0", "1"], "expected four numbers of at least 1"),
        (["--export", "no/such/folder/x.pt"], "expected a file in a folder that exists"),
        (["--out", "x", "--data", "nowhere.h5"], "nowhere.h5: no such file"),
        (["--out", "x", "--sizes", "5", "5", "5", "5"], "nowhere.pt: no such file"),
        (["--export", "x.pt"], "nowhere.pt: no checkpoint here"),
    ],
)
def test_errors_are_one_line_and_status_two(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["nowhere.pt", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
