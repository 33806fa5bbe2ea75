"""People's answers: matched by video and sentence, scored like models, bad files named with their row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pps_fast.lab.human import BEST_PERSON, ONE_PERSON, find_people, human_values, read_people

HEAD = "HITId,video_id,description,start,end\n"
FIVE = [(10, 50), (10, 30), (0, 100), (60, 80), (30, 50)]


def _file(folder: Path, text: str, name: str = "test_00.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _rows(video: str, sentence: str, answers=FIVE) -> str:
    return "".join(f'H,{video},"{sentence}",{start},{end}\n' for start, end in answers)


def test_answers_are_found_by_video_and_sentence(tmp_path):
    first = _file(tmp_path, HEAD + _rows("AB12C.mp4", "a person, sitting  down."))
    second = _file(tmp_path, HEAD + _rows("a0YyuiZVtFU", " They knock."), "test_01.csv")
    people = read_people([first, second])
    assert len(people) == 2
    videos = np.array(["AB12C", "AB12C", "v_a0YyuiZVtFU", "XXXXX"])
    sentences = np.array(["A person, sitting down.", "a person stands.", "They knock.", "they knock."])
    matched, moments = find_people(people, videos, sentences)
    assert matched.tolist() == [True, False, True, False]
    assert moments.shape == (2, 5, 2) and moments[0].tolist() == [[start / 100, end / 100] for start, end in FIVE]
    none, empty = find_people(people, videos[3:], sentences[3:])
    assert not none.any() and empty.shape == (0, 5, 2)


def test_scores_of_five_people_by_hand():
    truth = torch.tensor([[0.1, 0.5]], dtype=torch.float64)
    moments = torch.tensor([FIVE], dtype=torch.float64) / 100
    # overlaps 1, 0.5, 0.4, 0, 0.5
    values = human_values(moments, truth, (0.3, 0.5, 0.7))
    one = {name: value.item() for name, value in values[ONE_PERSON].items()}
    assert one == pytest.approx({"R@1 IoU>=0.3": 80, "R@1 IoU>=0.5": 60, "R@1 IoU>=0.7": 20, "R@1 mIoU": 48})
    assert {name: value.item() for name, value in values[BEST_PERSON].items()} == pytest.approx(
        {"R@5 IoU>=0.3": 100, "R@5 IoU>=0.5": 100, "R@5 IoU>=0.7": 100, "R@5 mIoU": 100}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "row 1: no column video_id, description, start, end"),
        (HEAD + "H,v,s,x,5\n", "row 2: start 'x': expected percent"),
        (HEAD + "H,v,s,5,101\n", "row 2: end '101': expected percent"),
        (HEAD + "H,v,s,nan,5\n", "row 2: start 'nan'"),
        (HEAD + "H,v,s,9,5\n", "row 2: start 9 is after end 5"),
        (HEAD + "H,v,s\n", "row 2: too few columns"),
        (HEAD + _rows("v", "s") + _rows("v", "t", FIVE[:4]), "row 10: 4 answers to 't' in video 'v', expected 5"),
        (HEAD + _rows("v", "s") * 2, "row 11: 10 answers to 's'"),
    ],
)
def test_bad_files_are_named_with_their_row(text, message, tmp_path):
    with pytest.raises(ValueError) as caught:
        read_people([_file(tmp_path, text)])
    assert "test_00.csv" in str(caught.value) and message in str(caught.value)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_people([tmp_path / "x.csv"])
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        read_people([tmp_path / "x.csv"])
