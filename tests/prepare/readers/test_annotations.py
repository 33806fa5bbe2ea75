"""Annotation readers: every form gives the same rows."""

from __future__ import annotations

import json

import pytest

from pps_fast.prepare.readers.annotations import (
    ANNOTATION_READERS,
    detect_annotation_format,
    read_annotations,
    read_durations,
)
from pps_fast.prepare.readers.problems import Problems
from tests.support.shared import shared_path

DURATIONS = {"v_1": 30.0, "v_2": 9.5}
EXPECTED = [
    ("v_1", 30.0, 24.3, 30.4, "Person turns a light on."),
    ("v_1", 30.0, 0.0, 2.0, "a ## b"),
    ("v_2", 9.5, 1.0, 9.0, "it ends."),
]
FILES = {
    "published_json": ("a.json", json.dumps([[v, d, [s, e], " " + t] for v, d, s, e, t in EXPECTED])),
    "charades_txt": ("a.txt", "".join(f"{v} {s} {e}##{t}\n" for v, d, s, e, t in EXPECTED) + "\n"),
    "activitynet_json": (
        "a.json",
        ' {"v_1": {"duration": 30, "timestamps": [[24.3, 30.4], [0, 2]],'
        ' "sentences": [" Person turns a light on.", "a ## b"]},'
        ' "v_2": {"duration": 9.5, "timestamps": [[1, 9]], "sentences": ["it ends. "], "fps": 3}}',
    ),
    "qvhighlights_jsonl": (
        "a.jsonl",
        "\n".join(
            json.dumps({"qid": 1, "query": t, "duration": d, "vid": v, "relevant_windows": [[s, e], [0, 1]]})
            for v, d, s, e, t in EXPECTED
        ),
    ),
    "plain_jsonl": (
        "a.jsonl",
        "\n".join(
            json.dumps({"video": v, "sentence": f" {t}", "start": s, "end": e, "duration": d if v == "v_1" else None})
            for v, d, s, e, t in EXPECTED
        ),
    ),
    "plain_csv": (
        "a.csv",
        "sentence;end;video;start;fps\n" + "".join(f"{t};{e};{v};{s};3\n" for v, d, s, e, t in EXPECTED),
    ),
}


def rows_of(annotations):
    return [(a.video_id, a.duration_s, *a.windows[0], a.sentence) for a in annotations]


def test_every_format_is_tried_here():
    assert FILES.keys() == ANNOTATION_READERS.keys()


@pytest.mark.parametrize("file_format", FILES)
def test_every_form_gives_the_same_rows_and_is_recognized(file_format, tmp_path):
    name, text = FILES[file_format]
    (tmp_path / name).write_text(text)
    assert detect_annotation_format(tmp_path / name) == file_format
    problems = Problems()
    annotations = read_annotations(tmp_path / name, file_format, DURATIONS, problems)
    problems.settle()
    assert rows_of(annotations) == EXPECTED
    assert all(a.where.startswith(f"{name}, ") for a in annotations)


UNTIMED = {
    "published_json": ("a.json", '[["v_1", 30.0, null, "a"], ["v_1", 30.0, [], "a"]]'),
    "charades_txt": ("a.txt", "v_1##a\nv_1 ##a\n"),
    "activitynet_json": (
        "a.json",
        '{"v_1": {"duration": 30, "sentences": ["a"]},'
        ' "v_2": {"duration": 9, "timestamps": [null], "sentences": ["a"]}}',
    ),
    "qvhighlights_jsonl": (
        "a.jsonl",
        '{"qid": 1, "query": "a", "duration": 30, "vid": "v_1"}\n'
        '{"qid": "b", "query": "a", "duration": 30, "vid": "v_1", "relevant_windows": []}',
    ),
    "plain_jsonl": (
        "a.jsonl",
        '{"video": "v_1", "sentence": "a"}\n{"video": "v_1", "sentence": "a", "start": null, "end": null, "id": 3}',
    ),
    "plain_csv": ("a.csv", "video,sentence,start,end,duration\nv_1,a,,,\nv_1,a,,,30.0\n"),
}


def test_the_plain_form_has_names_of_queries_and_splits(tmp_path):
    (tmp_path / "a.csv").write_text(
        "video,sentence,id,split,duration\nv,a,7,val,2\nv,a,x,,2\nv,a,,test,2\nv,a,8,dev,2\n"
    )
    lines = [{"id": 7, "split": "validation"}, {"id": "x"}, {"split": "test"}, {"split": "dev"}]
    rows = [json.dumps({"video": "v", "sentence": "a", "duration": 2, **line}) for line in lines]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    for name, first in (("a.csv", "7"), ("a.jsonl", 7)):
        problems = Problems(skip=True)
        file_format = detect_annotation_format(tmp_path / name)
        annotations = read_annotations(tmp_path / name, file_format, {}, problems)
        problems.settle()
        expected = [(first, "validation"), ("x", None), (None, "test")]
        assert [(a.query_id, a.split) for a in annotations] == expected
        assert problems.summary()["counts"] == {"malformed row": 1}


@pytest.mark.parametrize("row", ["v,a,1,", "v,a,,2", "v,a,x,2", "v,,1,2x", "v"])
def test_a_plain_row_has_both_times_or_none(row, tmp_path):
    (tmp_path / "a.csv").write_text(f"video,sentence,start,end\n{row}\n")
    problems = Problems()
    assert read_annotations(tmp_path / "a.csv", "plain_csv", {"v": 3.0}, problems) == []
    with pytest.raises(ValueError, match="a.csv, line 2: not a row of the format plain_csv, such as x,a man talks"):
        problems.settle()


@pytest.mark.parametrize("file_format", FILES)
def test_rows_without_times_are_read_in_every_form(file_format, tmp_path):
    name, text = UNTIMED[file_format]
    (tmp_path / name).write_text(text)
    problems = Problems()
    annotations = read_annotations(tmp_path / name, file_format, DURATIONS, problems)
    problems.settle()
    assert [(a.windows, a.sentence) for a in annotations] == [((), "a")] * 2


def test_all_windows_and_names_of_queries_are_kept_as_given(tmp_path):
    rows = [
        {"qid": qid, "query": "a", "duration": 9, "vid": "v", "relevant_windows": [[4, 5], [0, 1]]} for qid in (7, "q")
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    annotations = read_annotations(tmp_path / "a.jsonl", "qvhighlights_jsonl", {}, Problems())
    assert [(a.query_id, a.windows) for a in annotations] == [(qid, ((4, 5), (0, 1))) for qid in (7, "q")]


def test_a_file_of_another_form_is_refused_or_has_only_bad_rows(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match="expected a list of"):
        read_annotations(tmp_path / "a.json", "published_json", {}, Problems())
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match="expected an object of videos"):
        read_annotations(tmp_path / "a.json", "activitynet_json", {}, Problems())
    problems = Problems()
    assert read_annotations(tmp_path / "a.json", "charades_txt", {}, problems) == []
    with pytest.raises(ValueError, match="a.json, line 1: not a row of the format charades_txt"):
        problems.settle()


@pytest.mark.parametrize(
    "row",
    ["text", None, [], ["a", 1.0, [0, 1]], ["a", 1.0, [0, 1, 2], "s"], [3, 1.0, [0, 1], "s"], ["a", "1", [0, 1], "s"],
     ["a", 1.0, [0, True], "s"], ["a", 1.0, ["0", "1"], "s"], ["a", 1.0, [0, 1], 5], ["a", float("inf"), [0, 1], "s"]],
)  # fmt: skip
def test_malformed_rows_are_noted_and_the_others_read(row, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([["a", 1.0, [0, 1], "first"], row, ["b", 2.0, [0, 1], "last"]]))
    problems = Problems(skip=True)
    annotations = read_annotations(tmp_path / "a.json", "published_json", {}, problems)
    problems.settle()
    assert [a.sentence for a in annotations] == ["first", "last"]
    assert problems.summary()["counts"] == {"malformed row": 1}
    expected = 'a.json, row 1: not a row of the format published_json, such as ["3MSZA", 30.96, '
    assert problems.examples[0].startswith(expected) and problems.examples[0].endswith(f": {row}")


def test_durations_of_several_csv_files_are_joined_and_repeated_rows_allowed(tmp_path):
    (tmp_path / "a.csv").write_text("id,scene,length\nx,Bedroom,3.5\ny,Hall,4\n")
    (tmp_path / "b.csv").write_text("length,id\n5,z\n4.0,y\n")
    problems = Problems()
    assert read_durations([tmp_path / "a.csv", tmp_path / "b.csv"], problems) == {"x": 3.5, "y": 4.0, "z": 5.0}
    problems.settle()


@pytest.mark.parametrize("length", ["0", "-2", "nan", "inf", "", "long"])
def test_impossible_durations_are_noted(length, tmp_path):
    (tmp_path / "a.csv").write_text(f"id,length\nx,{length}\ny,4\n")
    problems = Problems()
    assert read_durations([tmp_path / "a.csv"], problems) == {"y": 4.0}
    with pytest.raises(ValueError, match="a.csv, line 2: length"):
        problems.settle()


def test_real_files_of_all_forms_are_read_without_a_bad_row():
    problems = Problems()
    counts = {}
    for name in (
        "activitynet/val_2.json",
        "activitynet/pps_test_data.json",
        "qvhighlights/highlight_val_release.jsonl",
    ):
        path = shared_path(f"data/{name}")
        counts[path.name] = len(read_annotations(path, detect_annotation_format(path), {}, problems))
    problems.settle()
    assert counts == {"val_2.json": 17031, "pps_test_data.json": 17031, "highlight_val_release.jsonl": 1550}


UNUSABLE = {
    "NUL": '["a\\u0000b", 1.0, [0, 1], "s"]',
    "half a pair": '["a", 1.0, [0, 1], "s \\ud800"]',
    "beyond every float": f'["a", 1{"0" * 400}, [0, 1], "s"]',
    "not a number": '["a", 1.0, [NaN, 1], "s"]',
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_values_that_cannot_be_stored_are_malformed(name, tmp_path):
    (tmp_path / "a.json").write_text(f'[["a", 1.0, [0, 1], "first"], {UNUSABLE[name]}]')
    problems = Problems(skip=True)
    assert len(read_annotations(tmp_path / "a.json", "published_json", {}, problems)) == 1
    problems.settle()
    assert problems.summary()["counts"] == {"malformed row": 1}


def test_a_line_nested_without_end_is_malformed_and_capitals_in_extensions_do_not_matter(tmp_path):
    path = tmp_path / "A.JSONL"
    path.write_text("[" * 100_000 + "\n")
    assert detect_annotation_format(path) == "qvhighlights_jsonl"
    problems = Problems()
    assert read_annotations(path, "qvhighlights_jsonl", {}, problems) == []
    with pytest.raises(ValueError, match="A.JSONL, line 1: not a row"):
        problems.settle()
