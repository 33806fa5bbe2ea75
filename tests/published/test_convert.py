"""Files of the published code become runs that can be evaluated, and runs become such files again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pps_fast.config_tree import override, to_dict
from pps_fast.data.load import load_data
from pps_fast.files import Note
from pps_fast.model import PPS
from pps_fast.pipeline import evaluate_checkpoint
from pps_fast.presets import PRESETS
from pps_fast.published import convert
from pps_fast.published.convert import UNKNOWN_DATA, export_checkpoint, import_checkpoint, read_published
from pps_fast.published.weights import export_released
from pps_fast.runs.checkpoint import load_model, read_header
from pps_fast.runs.model_folder import read_words

SMALL = {"encoder.hidden_dim": 16, "inference.num_bootstrap": 20}
CONFIGS = {
    name: override(PRESETS[name], {**SMALL, "data.path": None, "data.planted.num_videos": 10})
    for name in ("charades_released", "cpl", "cnm")
}
DATA = load_data(CONFIGS["cpl"].data)
MATRICES = {f"{name}.weight": torch.zeros(2, 2) for name in ("frame_fc", "word_fc", "fc_comp")}


def _published(name: str) -> tuple[PPS, dict[str, Any]]:
    """A model, and what the published code would save of it."""
    torch.manual_seed(0)
    model = PPS(CONFIGS[name], DATA.sizes)
    return model, {"num_updates": 7, "config": {"model": {"name": name}}, "model_parameters": export_released(model)}


@pytest.mark.parametrize("name", CONFIGS)
def test_imported_model_is_the_published_one_and_goes_out_again(name, tmp_path):
    model, content = _published(name)
    torch.save(content, tmp_path / "in.pt")
    out = tmp_path / "run"
    checkpoint = import_checkpoint(tmp_path / "in.pt", out, preset=CONFIGS[name], data=DATA)
    assert checkpoint.name == "step_000007"
    loaded, config, sizes = load_model(out)
    assert (config, sizes) == (CONFIGS[name], DATA.sizes)
    for name_, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name_], value), name_
    export_checkpoint(out, tmp_path / "out.pt")
    again = read_published(tmp_path / "out.pt")
    assert again.step == 7 and again.state.keys() == content["model_parameters"].keys()
    assert all(torch.equal(again.state[name], value) for name, value in content["model_parameters"].items())
    # what goes out carries its settings
    assert again.settings.config == config and again.settings.num_segments == DATA.sizes.num_segments
    assert again.sizes(DATA.sizes.num_segments) == DATA.sizes
    import_checkpoint(tmp_path / "out.pt", tmp_path / "twin")
    assert load_model(tmp_path / "twin")[1:] == (config, sizes)


def test_imported_model_can_be_evaluated_and_says_whether_its_data_are_known(tmp_path, monkeypatch):
    torch.save(_published("cpl")[1]["model_parameters"], tmp_path / "in.pt")
    import_checkpoint(tmp_path / "in.pt", tmp_path / "known", preset=CONFIGS["cpl"], data=DATA)
    monkeypatch.setattr(convert, "_NUM_SEGMENTS", DATA.sizes.num_segments)
    checkpoint = import_checkpoint(tmp_path / "in.pt", tmp_path / "unknown", preset=CONFIGS["cpl"])
    assert read_header(checkpoint).data == UNKNOWN_DATA and read_header(checkpoint).step == 0
    known, unknown = (evaluate_checkpoint(tmp_path / name, {}, device="cpu") for name in ("known", "unknown"))
    assert known.note is None and "trained on another data set" in unknown.note
    assert known.report.rows == unknown.report.rows


def test_place_that_is_not_empty_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        import_checkpoint(tmp_path / "nowhere.pt", tmp_path, preset=CONFIGS["cpl"])


class _Code:
    """An object that a pickle would have to run code for."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a file of torch", "in.pt: "),
        ({"model_parameters": _Code()}, "not only tensors and plain values"),
        ([torch.zeros(1)], "holds a list, expected a dict with model_parameters"),
        ({"num_updates": 3, "config": {}}, "no model_parameters, and as a state dict it holds num_updates, config"),
        ({}, "as a state dict it holds nothing"),
        ({"model_parameters": {"word_fc.weight": torch.zeros(1)}}, "in.pt: has no matrix frame_fc.weight"),
        ({"model_parameters": MATRICES}, "in.pt: the published state dict has no"),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_name(content, message, tmp_path: Path):
    path = tmp_path / "in.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        import_checkpoint(path, tmp_path / "run", preset=CONFIGS["cpl"])
    assert not (tmp_path / "run").exists()


def test_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.pt: no such file"):
        read_published(tmp_path / "nowhere.pt")


def _vocabulary(path: Path, num_words: int, width: int = DATA.sizes.word_dim) -> Path:
    """Writes words with counts, the last ones the most frequent."""
    words = np.array([f"word{number}" for number in range(num_words)])
    vectors = np.arange(num_words * width, dtype=np.float32).reshape(num_words, width)
    np.savez(path, words=words, vectors=vectors, counts=np.arange(1, num_words + 1))
    return path


def test_words_come_from_the_vocabulary_most_frequent_first(tmp_path: Path) -> None:
    torch.save(_published("cpl")[1], tmp_path / "in.pt")
    num_words = DATA.sizes.vocab_size - 1
    vocabulary = _vocabulary(tmp_path / "words.npz", num_words + 3)
    checkpoint = import_checkpoint(tmp_path / "in.pt", tmp_path / "run", preset=CONFIGS["cpl"], vocabulary=vocabulary)
    words, vectors = read_words(checkpoint)
    assert words == ["<pad>", *(f"word{number}" for number in range(num_words + 2, 2, -1))]
    assert not vectors[0].any() and vectors[1, 0] == (num_words + 2) * DATA.sizes.word_dim
    assert not (checkpoint / "statistics.safetensors").exists()


def test_another_vocabulary_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    torch.save(_published("cpl")[1], tmp_path / "in.pt")
    few, wide = _vocabulary(tmp_path / "few.npz", 5), _vocabulary(tmp_path / "wide.npz", DATA.sizes.vocab_size, 3)
    (tmp_path / "glove.txt").write_text("door 1.0\n", encoding="utf-8")
    for vocabulary, message in (
        (few, "few.npz: 5 words with vectors of width"),
        (wide, "of width 3, the weights are of"),
        (tmp_path / "glove.txt", "glove.txt: has no counts, which number the words"),
    ):
        with pytest.raises(ValueError, match=message):
            import_checkpoint(tmp_path / "in.pt", tmp_path / "run", preset=CONFIGS["cpl"], vocabulary=vocabulary)
    assert not (tmp_path / "run").exists()


def test_settings_of_the_file_that_differ_from_the_preset_are_noted(tmp_path: Path) -> None:
    config = override(CONFIGS["cpl"], {"proposals.sigma": 3.0, "train.epochs": 1})
    torch.save({**_published("cpl")[1], "config": to_dict(config)}, tmp_path / "in.pt")
    with pytest.warns(Note, match=r"differ from the preset's, which are taken: proposals.sigma = 3.0 \(9.0\)$"):
        import_checkpoint(tmp_path / "in.pt", tmp_path / "run", preset=CONFIGS["cpl"])
    assert load_model(tmp_path / "run")[1].proposals.sigma == 9.0
    import_checkpoint(tmp_path / "in.pt", tmp_path / "own")
    assert load_model(tmp_path / "own")[1] == config


def test_without_settings_a_preset_is_asked_for(tmp_path: Path) -> None:
    torch.save(_published("cpl")[1]["model_parameters"], tmp_path / "in.pt")
    with pytest.raises(
        ValueError, match=r"in.pt: carries no settings; name the settings of its training with --preset"
    ):
        import_checkpoint(tmp_path / "in.pt", tmp_path / "run")
