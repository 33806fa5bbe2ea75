"""A model folder is complete by itself, and what it says is what was written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from pps_fast.data.identity import describe_data
from pps_fast.data.statistics import frame_statistics
from pps_fast.runs.checkpoint import find_checkpoint, load_model
from pps_fast.runs.environment import environment
from pps_fast.runs.model_folder import HEADER_FILE, read_header, read_tensors, read_words
from tests.support.model_folders import as_older_version
from tests.support.train_runs import run_small, small_config, small_input

CONFIG = small_config(train__max_steps=1)
STORE, SPLITS = small_input(CONFIG)
FILES = {
    "model.json",
    "model.safetensors",
    "words.safetensors",
    "statistics.safetensors",
    "recipe.json",
    "training.safetensors",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    run_small(CONFIG, run)
    return find_checkpoint(run)


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A model folder by itself, away from its run."""
    return Path(shutil.copytree(trained, tmp_path / "moved"))


def test_a_training_leaves_weights_words_statistics_recipe_and_state(folder):
    assert {path.name for path in folder.iterdir()} == FILES
    header = read_header(folder)
    assert header.data == describe_data(STORE.data) and header.environment == environment(1)
    words = read_words(folder)
    assert words is not None and words[0] == STORE.data.words
    np.testing.assert_array_equal(words[1], STORE.data.word_vectors)
    statistics = load_file(folder / "statistics.safetensors")
    mean, scale = frame_statistics(STORE.data, SPLITS.train)
    np.testing.assert_array_equal(statistics["mean"].numpy(), mean)
    np.testing.assert_array_equal(statistics["scale"].numpy(), scale)
    assert json.loads((folder / "recipe.json").read_text()) == STORE.data.recipe


def test_a_folder_without_the_state_of_training_is_a_model(folder):
    (folder / "training.safetensors").unlink()
    model, config, sizes = load_model(folder)
    assert (config, sizes) == (CONFIG, STORE.sizes) and not model.training
    with pytest.raises(ValueError, match=r"training.safetensors: missing"):
        read_tensors(folder, "training.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "words.safetensors"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
def test_a_flipped_bit_is_found_and_the_file_named(name, share, folder):
    content = bytearray((folder / name).read_bytes())
    content[int(len(content) * share)] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: truncated or damaged .its sha256 is not that in model.json"):
        _ = read_words(folder) if name.startswith("words") else read_tensors(folder, name)


def test_a_changed_number_in_the_header_is_found(folder):
    path = folder / HEADER_FILE
    values = json.loads(path.read_text())
    values["config"]["losses"]["pull"] = 4.0
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"model.json: damaged or changed after it was written"):
        load_model(folder)


def test_a_folder_of_an_older_version_has_no_words_and_loads(folder):
    expected = load_file(folder / "model.safetensors")
    as_older_version(folder, describe_data(STORE.data))
    model, config, _ = load_model(folder)
    assert config == CONFIG and read_words(folder) is None and read_header(folder).environment == {}
    assert all((value == expected[name]).all() for name, value in model.state_dict().items())
