"""Bad rows: refused in one sentence, or skipped and counted."""

from __future__ import annotations

import pytest

from pps_fast.prepare.readers.problems import MAX_STORED, Problems


def test_without_bad_rows_nothing_is_said():
    problems = Problems()
    problems.settle()
    assert problems.summary() == {"counts": {}, "examples": []}


def test_one_bad_row_is_named_with_the_remedy():
    problems = Problems()
    problems.add("negative start", "a.txt, line 3", "start -1 is below 0 seconds")
    with pytest.raises(ValueError) as caught:
        problems.settle()
    assert str(caught.value) == (
        "a.txt, line 3: start -1 is below 0 seconds; correct it or pass --skip-bad to leave bad rows out"
    )


def test_of_many_bad_rows_five_are_named_and_all_counted():
    problems = Problems()
    for line in range(8):
        problems.add("bad", f"line {line}", "is bad")
    with pytest.raises(ValueError, match=r"line 0: .*line 4: is bad; and 3 more; correct these 8 rows") as caught:
        problems.settle()
    assert "line 5" not in str(caught.value) and "\n" not in str(caught.value)


def test_skipping_counts_by_kind_over_several_passes_and_keeps_the_first_examples():
    problems = Problems(skip=True)
    for line in range(MAX_STORED + 5):
        problems.add("bad", f"line {line}", "is bad")
    problems.settle()
    problems.add("worse", "video x", "is worse")
    problems.settle()
    summary = problems.summary()
    assert summary["counts"] == {"bad": MAX_STORED + 5, "worse": 1}
    assert len(summary["examples"]) == MAX_STORED and summary["examples"][0] == "line 0: is bad"


def test_sentences_of_any_length_make_a_message_of_at_most_a_thousand_characters():
    for number in (1, 2, 9):
        problems = Problems()
        for row in range(number):
            problems.add("malformed row", f"a.txt, line {row}", "word " * 5000)
        with pytest.raises(ValueError, match="a.txt, line 0: word .* pass --skip-bad to leave bad rows out$") as caught:
            problems.settle()
        assert 400 < len(str(caught.value)) <= 1000


def test_a_program_without_the_option_does_not_name_it():
    problems = Problems(can_skip=False)
    problems.add("bad", "a.txt, line 1", "is bad")
    with pytest.raises(ValueError, match=r"a.txt, line 1: is bad; correct it$"):
        problems.settle()
