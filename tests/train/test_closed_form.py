"""A fit in closed form: a run directory like a training's, resumed, moved, and refused where a training is."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch

from pps_fast.config_tree import override
from pps_fast.data.prepared import read_prepared, write_prepared
from pps_fast.data.splits import select_samples
from pps_fast.data.store import Store
from pps_fast.files import Note
from pps_fast.pipeline import evaluate, train_and_evaluate
from pps_fast.presets import PRESETS
from pps_fast.runs.checkpoint import load_model, load_pps
from pps_fast.runs.model_folder import ALIGNMENT_FILE, MODEL_FILE, TRAINING_FILE
from pps_fast.train.closed_form import fit_in_closed_form
from tests.support.eval_fakes import CONFIG, DATA

ALIGNMENT = override(
    PRESETS["alignment"], {"data": CONFIG.data, "inference.num_bootstrap": 50, "inference.iou_thresholds": (0.5,)}
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alignment") / "run"
    train_and_evaluate(ALIGNMENT, out, progress=False)
    return out


def test_the_run_holds_a_model_folder_without_networks_that_is_loaded_as_it_was_fitted(run: Path) -> None:
    model, config, sizes = load_model(run)
    (folder,) = (run / "checkpoints").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert ALIGNMENT_FILE in names and not names & {MODEL_FILE, TRAINING_FILE}
    assert config == ALIGNMENT and sizes == DATA.sizes
    batch = Store(DATA).batch(DATA.sample_video[:4] * 0, seed=0)
    assert model(batch).proposals.start.isfinite().all()


def test_a_moved_folder_is_evaluated_with_the_same_figures(run: Path, tmp_path: Path) -> None:
    written = (run / "evaluation_test.json").read_text(encoding="utf-8")
    moved = shutil.copytree(next((run / "checkpoints").iterdir()), tmp_path / "moved")
    report = evaluate(moved)
    again = evaluate(run)
    assert report.rows == again.rows and str(report.rows["model"]["R@1 mIoU"].value) in written


def test_a_resumed_fit_takes_the_model_that_is_there(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    before = load_model(copied)[0].state_dict()
    train_and_evaluate(ALIGNMENT, copied, resume=True, progress=False)
    after = load_model(copied)[0].state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_fit_that_reads_features_from_the_file_is_the_same(run: Path, tmp_path: Path) -> None:
    write_prepared(tmp_path / "data.h5", DATA)
    data, splits = read_prepared(tmp_path / "data.h5", "disk"), select_samples(DATA, ALIGNMENT.data)
    fit_in_closed_form(ALIGNMENT, Store(data), splits, tmp_path / "file", resume=False, progress=False)
    expected, got = (next((folder / "checkpoints").iterdir()) for folder in (run, tmp_path / "file"))
    for name in (ALIGNMENT_FILE, "confidence.json", "statistics.safetensors", "words.safetensors"):
        assert (got / name).read_bytes() == (expected / name).read_bytes()


def test_a_directory_that_is_not_empty_and_another_config_are_refused(run: Path) -> None:
    with pytest.raises(ValueError, match="not empty; continue the run there with --resume"):
        train_and_evaluate(ALIGNMENT, run, progress=False)
    other = override(ALIGNMENT, {"alignment.frame_ridge": 5.0})
    with pytest.raises(ValueError, match=r"alignment\.frame_ridge was 2\.0, is 5\.0"):
        train_and_evaluate(other, run, resume=True, progress=False)


def test_programs_that_need_networks_say_so(run: Path) -> None:
    with pytest.raises(ValueError, match="an alignment, without networks"):
        load_pps(run)


def test_few_pairs_of_real_videos_are_named(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    write_prepared(path, DATA)
    with pytest.warns(Note, match=r"192 training pairs: on real videos 735 were seen to suffice"):
        train_and_evaluate(override(ALIGNMENT, {"data.path": str(path)}), tmp_path / "run", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_and_evaluate(ALIGNMENT, tmp_path / "planted", progress=False)
