"""The program: a model goes to the hub and comes back as a grounder; a bundle uploads nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pps_fast import PRESETS, load, override, train_and_evaluate
from pps_fast.hub.__main__ import main
from tests.support.fake_hub import install


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "alignment"
    changes = {"data.planted.num_videos": 40, "inference.num_bootstrap": 20, "inference.alignment_rows": False}
    train_and_evaluate(override(PRESETS["alignment_demo"], changes), folder, progress=False)
    return folder


def test_a_pushed_model_is_loaded_by_its_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["push", str(run), "me/planted", "--private"]) == 0
    assert "to folder:me/planted" in capsys.readouterr().out
    frames = torch.randn(32, 32, generator=torch.Generator().manual_seed(0)).numpy()
    sentence, options = "person opens the door", {"duration_s": 30.0, "top": 3}
    ours, theirs = (load(name).ground(frames, sentence, **options) for name in (run, "me/planted"))
    assert [(m.start_s, m.end_s, m.match) for m in ours] == [(m.start_s, m.end_s, m.match) for m in theirs]


def test_a_bundle_is_written_and_nothing_is_uploaded(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = install(monkeypatch, tmp_path)
    assert main(["bundle", str(run), "me/planted", "--out", str(tmp_path / "shared")]) == 0
    assert "README.md" in capsys.readouterr().out and not hub.asked
    assert "alignment, Gaussian filter" not in (tmp_path / "shared/README.md").read_text(encoding="utf-8")


def test_a_folder_that_is_no_model_and_a_bad_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(tmp_path), "me/x"]) == 2
    assert "no checkpoint here" in capsys.readouterr().err
    assert main(["bundle", str(tmp_path), "x", "--out", str(tmp_path / "y")]) == 2
    assert "expected USER/NAME" in capsys.readouterr().err
