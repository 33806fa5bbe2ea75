"""What preparation checks beyond rows: room for the features, and what its report says about data that look wrong."""

from __future__ import annotations

import pytest

from pps_fast.data.tokens import encode_sentences
from pps_fast.prepare.checks import check_lines, num_halved, require_room_for_video


def test_segments_beyond_the_memory_are_refused_with_their_sizes(monkeypatch):
    # for each of 200 segments: four int64, two rows of 4 float64 and one of 4 float16
    needed = 200 * (4 * 8 + 2 * 8 * 4 + 2 * 4)
    monkeypatch.setattr("pps_fast.machine.free_memory", lambda: needed)
    require_room_for_video(200, 4)
    monkeypatch.setattr("pps_fast.machine.free_memory", lambda: needed - 1)
    with pytest.raises(ValueError, match="features of 200 segments x 4 for one video, .* lower --num-segments"):
        require_room_for_video(200, 4)


def test_sentences_that_keep_less_than_half_of_their_words_are_counted():
    words = ["<pad>", "a", "b"]
    # 2 of 4 words, 2 of 5, 1 of 3 and all
    sentences = ["a b c d", "a b c d e", "a c d", "a b"]
    assert num_halved(encode_sentences(sentences, words, 20)) == 2
    assert num_halved(encode_sentences(["a b a b a"], words, 2)) == 1


def _record(protocol="filtered", checks=None, **counts):
    source = {"rows": 10, "left_out_by_protocol": {}}
    return {
        "protocol": protocol,
        "counts": {"samples": {"train": 8}, **counts},
        "sources": {
            "train": source,
            "test": {**source, "left_out_by_protocol": {"end > length": 1}},
            "features": {"checks": checks or {}},
            "vocabulary": {"notes": ["3 words with capitals matched in lower case"]},
            "durations": [],
        },
    }


def test_the_report_tells_what_looks_wrong_by_number():
    record = _record(checks={"videos end in frames of zeros": 2}, sentences_halved=2)
    assert check_lines(record) == [
        ("check features", "2 videos end in frames of zeros"),
        ("check words", "2 sentences (25.0 %) keep less than half of their words"),
        ("check vocabulary", "3 words with capitals matched in lower case"),
        ("check protocol", "train: none of 10 rows left out: filtered before, or times of another kind"),
    ]
    assert [name for name, _ in check_lines(_record(protocol="as_is"))] == ["check vocabulary"]
