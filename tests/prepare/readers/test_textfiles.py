"""Text, json and csv of other people."""

from __future__ import annotations

import codecs
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pps_fast.prepare.readers.problems import Problems
from pps_fast.prepare.readers.textfiles import decode, read_csv, read_json, read_lines, read_text
from pps_fast.reading import MAX_MESSAGE


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


def test_capitals_in_a_csv_header_do_not_count(tmp_path):
    (tmp_path / "a.csv").write_text("ID,Length,Other\nx,3.5,y\n")
    assert [values for _, values in read_csv(tmp_path / "a.csv", ("id", "length"))] == [["x", "3.5"]]


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


ENCODINGS = {
    "plain": "é, two".encode(),
    "UTF-8 with a mark": "é, two".encode("utf-8-sig"),
    "UTF-16, little end": codecs.BOM_UTF16_LE + "é, two".encode("utf-16-le"),
    "UTF-16, big end": codecs.BOM_UTF16_BE + "é, two".encode("utf-16-be"),
    "UTF-32": "é, two".encode("utf-32"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_text_of_editors_and_spreadsheets_is_read(name):
    assert decode(ENCODINGS[name]) == "é, two"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_and_blanks_at_the_end_of_lines_do_not_matter(end, tmp_path):
    (tmp_path / "a.txt").write_bytes(f"one\t {end}two{end}{end}".encode())
    assert list(read_lines(tmp_path / "a.txt")) == [("a.txt, line 1", "one"), ("a.txt, line 2", "two")]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_may_be_divided_as_spreadsheets_do(mark, tmp_path):
    rows = ["id, length ,more", "x,3.5,", "y,4,a"]
    (tmp_path / "a.csv").write_text("\ufeff" + "\r\n".join(row.replace(",", mark) for row in rows), encoding="utf-8")
    assert [values for _, values in read_csv(tmp_path / "a.csv", ("id", "length"))] == [["x", "3.5"], ["y", "4"]]


REFUSED = {
    "lines": (b'{"vid": "A"}\n\n{"vid": "B"}\n', "JSON lines, .*rename it to .jsonl"),
    "nesting": (b"[" * 200_000, "nested too deeply"),
    "nesting, complete": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "long number": (b"[1" + b"0" * 9000 + b"]", "cannot be read .ValueError: Exceeds the limit"),
    "no mark": ("[1]".encode("utf-16-le"), "NUL bytes, as UTF-16 without"),
    "half a character": (codecs.BOM_UTF8 + b"[\xff]", "byte 4 is not UTF-8"),
    "half a unit": (codecs.BOM_UTF16_LE + b"[", "is not UTF-16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_json_that_cannot_be_read_is_told_why(name, tmp_path):
    content, words = REFUSED[name]
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.json.*: .*{words}"):
        read_json(tmp_path / "a.json", Problems())


def test_text_larger_than_the_memory_and_pipes_are_refused_before_they_are_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: a pipe or device"):
        read_text(tmp_path / "pipe")
    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setattr("pps_fast.machine.free_memory", lambda: 16)
    with pytest.raises(ValueError, match="a.txt: its text needs 32 bytes of memory, 16 bytes are free"):
        read_text(tmp_path / "a.txt")


SEEDS = (
    b'{"v": {"duration": 9, "x": [[0, 1e5]]}}',
    b'[["A", 1, [0, 2], "\\ud800"]]',
    b'id;length\r\n"x\ny";3\n',
    *ENCODINGS.values(),
)


@st.composite
def _mutated(draw) -> bytes:
    """A good text with a slice replaced by other bytes, or other bytes alone."""
    seed = draw(st.sampled_from((b"", *SEEDS)))
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(seed))] * 2)))
    return seed[:start] + draw(st.binary(max_size=40)) + seed[end:]


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, derandomize=True, database=None)
@given(content=_mutated())
def test_no_bytes_give_anything_but_values_or_one_short_sentence(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(content)
    for read in (
        lambda: read_json(path, Problems()),
        lambda: list(read_csv(path, ("id", "length"))),
        lambda: list(read_lines(path)),
    ):
        try:
            read()
        except ValueError as error:
            assert len(str(error)) <= MAX_MESSAGE and "\n" not in str(error)
            assert str(error).startswith(str(path))
