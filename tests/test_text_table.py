"""Tables of text: every cell stands once, columns align, and nothing is wider than the terminal."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from pps_fast.text_table import markdown_table, plain_table, terminal_columns, wrapped

ROWS = [["name", "first", "second", "third"], ["a", "1.00", "22.00", "3.00"], ["longer", "10.00", "2.00", "300.00"]]


def test_markdown_aligns_numbers_right():
    assert markdown_table(ROWS[:2]) == [
        "| name | first | second | third |",
        "| --- | ---: | ---: | ---: |",
        "| a | 1.00 | 22.00 | 3.00 |",
    ]


def test_columns_align_and_a_rule_follows_the_header():
    assert plain_table(ROWS) == [
        "name    first  second   third",
        "------  -----  ------  ------",
        "a        1.00   22.00    3.00",
        "longer  10.00    2.00  300.00",
    ]


@pytest.mark.parametrize("columns", range(14, 32))
def test_a_wide_table_becomes_several_that_fit_and_lose_no_cell(columns):
    lines = plain_table(ROWS, columns)
    assert max(map(len, lines)) <= columns
    cells = " ".join(lines).split()
    assert all(cells.count(cell) == 1 for row in ROWS for cell in row[1:])
    assert lines.count("") == sum(line.startswith("name") for line in lines) - 1
    assert (lines.count("") == 0) == (columns >= 29)


def test_a_column_wider_than_the_terminal_is_not_cut():
    assert plain_table(ROWS, 5)[2] == "a        1.00"


def test_width_is_that_of_a_terminal_and_none_elsewhere(monkeypatch):
    assert terminal_columns() is None
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((77, 20)))
    assert terminal_columns() == 77


def test_sentences_are_broken_between_words():
    assert wrapped("one two three", None) == "one two three"
    assert wrapped("one two three", 8) == "one two\nthree"
