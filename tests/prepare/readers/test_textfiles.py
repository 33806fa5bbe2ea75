"""Text, json and csv of other people."""

from __future__ import annotations

import pytest

from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.textfiles import read_csv, read_json, read_lines, read_text


def test_lines_are_numbered_as_an_editor_does_and_blank_ones_passed_over(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\r\n\n two\u2028three\n".encode())
    assert list(read_lines(path)) == [("a.txt, line 1", "one"), ("a.txt, line 3", " two\u2028three")]


def test_csv_gives_the_asked_columns_even_of_rows_with_line_breaks(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,text,length\nx,"two\nlines",3.5\ny,,4\n')
    assert list(read_csv(path, ("id", "length"))) == [("a.csv, line 3", ["x", "3.5"]), ("a.csv, line 4", ["y", "4"])]


def test_csv_without_the_columns_or_empty_is_refused(tmp_path):
    for text in ("", "id,len\n"):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match="a.csv: the header lacks the column .*length; expected id, length"):
            list(read_csv(tmp_path / "a.csv", ("id", "length")))


def test_a_name_twice_in_a_json_object_is_a_bad_row_and_the_first_counts(tmp_path):
    (tmp_path / "a.json").write_text('{"v": 1, "w": 2, "v": 3}')
    problems = Problems(skip=True)
    assert read_json(tmp_path / "a.json", problems) == {"v": 1, "w": 2}
    problems.settle()
    assert problems.summary() == {"counts": {"duplicate id": 1}, "examples": ["a.json: the name 'v' occurs twice"]}


def test_truncated_json_names_the_place(tmp_path):
    (tmp_path / "a.json").write_text('[["a", 1],\n["b", ')
    with pytest.raises(ValueError, match="a.json, line 2, column .*not complete JSON.*fetch it again"):
        read_json(tmp_path / "a.json", Problems())


def test_unreadable_files_are_refused_with_a_remedy(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"ok \xff")
    for name, message in [("no.txt", "no such file"), ("", "a folder where"), ("b.txt", "byte 3 is not UTF-8")]:
        with pytest.raises(ValueError, match=message):
            read_text(tmp_path / name)
