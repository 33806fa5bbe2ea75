"""What a model folder holds for new sentences, and what older folders do without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pps_fast.runs.answering import read_confidence, read_max_num_words
from pps_fast.runs.checkpoint import find_checkpoint
from pps_fast.runs.model_folder import CONFIDENCE_FILE, MAX_NUM_WORDS, WORDS_FILE
from tests.support.eval_fakes import DATA
from tests.support.grounders import alignment_run, network_run
from tests.support.model_folders import reseal


def _copy(folder: Path) -> Path:
    return Path(shutil.copytree(find_checkpoint(alignment_run()), folder / "copy"))


def test_words_that_count_are_those_of_the_training_data() -> None:
    assert read_max_num_words(find_checkpoint(alignment_run())) == DATA.word_ids.shape[1] != MAX_NUM_WORDS


def test_an_alignment_has_a_confidence_and_a_network_none(tmp_path: Path) -> None:
    confidence = read_confidence(find_checkpoint(alignment_run()))
    assert confidence is not None and confidence.num_pairs > 0
    assert read_confidence(find_checkpoint(network_run("tiny")[0])) is None


@pytest.mark.parametrize("content", ["{}", "[", '{"slope": "steep"}'])
def test_a_changed_confidence_is_refused(content: str, tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    (folder / CONFIDENCE_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="confidence.json: .*sha256"):
        read_confidence(folder)
    reseal(folder)
    with pytest.raises(ValueError, match="confidence.json: "):
        read_confidence(folder)


def test_a_folder_without_words_reads_the_usual_number(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    header = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    del header["files"][WORDS_FILE]
    (folder / "model.json").write_text(json.dumps(header), encoding="utf-8")
    reseal(folder)
    assert read_max_num_words(folder) == MAX_NUM_WORDS
