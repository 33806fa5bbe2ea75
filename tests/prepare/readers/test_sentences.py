"""Vectors of sentences: every form gives the same vectors; what cannot be used is refused with its cause."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pps_fast.prepare.readers.sentences import open_sentences
from pps_fast.reading import Refused
from tests.support.shared import shared_path

TOKENS = np.arange(6, dtype=np.float16).reshape(3, 2)
VECTOR = np.array([0.5, -1.0], dtype=np.float32)


def _rows_npz(folder: Path) -> Path:
    np.savez(folder / "rows.npz", vectors=np.stack([-VECTOR, VECTOR]), query_id=np.array([5, 7]))
    return folder / "rows.npz"


def _rows_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "rows.h5", "w") as file:
        file["vectors"] = np.stack([-VECTOR, VECTOR])
        file["query_id"] = ["5", "7"]
    return folder / "rows.h5"


def _entries_npz(folder: Path) -> Path:
    np.savez(folder / "entries.npz", **{"7": VECTOR, "8": TOKENS})
    return folder / "entries.npz"


def _entries_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "entries.h5", "w") as file:
        file["7/pooler_output"], file["7/last_hidden_state"] = VECTOR, TOKENS
        file["8"] = TOKENS
    return folder / "entries.h5"


def _folder(folder: Path) -> Path:
    target = folder / "texts"
    target.mkdir()
    np.savez(target / "qid7.npz", pooler_output=VECTOR[None], last_hidden_state=TOKENS)
    np.save(target / "8.npy", TOKENS)
    return target


@pytest.mark.parametrize("write", [_rows_npz, _rows_hdf5, _entries_npz, _entries_hdf5, _folder])
def test_every_form_has_the_vector_of_a_query(write, tmp_path):
    with open_sentences(write(tmp_path), None, [7]) as reader:
        vector = reader.read("7")
        assert vector.dtype == np.float32 and reader.by == "query_id" and reader.encoder is None
        np.testing.assert_array_equal(vector, VECTOR)
        assert "6" not in reader.locate


@pytest.mark.parametrize("write", [_entries_npz, _entries_hdf5, _folder])
def test_the_vector_of_tokens_is_their_mean(write, tmp_path):
    with open_sentences(write(tmp_path), None, [8]) as reader:
        np.testing.assert_array_equal(reader.read("8"), [2.0, 3.0])


@pytest.mark.parametrize("write", [_entries_hdf5, _folder])
def test_a_key_chooses_among_the_arrays_of_a_query(write, tmp_path):
    path = write(tmp_path)
    with open_sentences(path, "last_hidden_state", [7]) as reader:
        np.testing.assert_array_equal(reader.read("7"), [2.0, 3.0])
    with open_sentences(path, "x", [7]) as reader, pytest.raises(Refused, match=r"has no array 'x' \(it has .*--sent"):
        reader.read("7")


def test_sentences_name_rows_where_queries_have_no_ids_and_the_file_says_its_encoder(tmp_path):
    path = tmp_path / "rows.npz"
    names = np.array([" a dog sits. ", "a man", "a man"])
    vectors = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    np.savez(path, vectors=vectors, sentences=names, query_id=np.arange(3), encoder=np.array("MiniLM@1"))
    with open_sentences(path, None, None) as reader:
        assert (reader.form, reader.by, reader.encoder) == ("rows", "sentences", "MiniLM@1")
        np.testing.assert_array_equal(reader.read("a dog sits."), vectors[0])
        np.testing.assert_array_equal(reader.read("a man"), vectors[1])
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["vectors"], file["sentences"] = vectors, ["a dog sits.", "b", "c"]
        file.attrs["encoder"] = "MiniLM@2"
    with open_sentences(tmp_path / "rows.h5", None, None) as reader:
        assert reader.encoder == "MiniLM@2"
        np.testing.assert_array_equal(reader.read("c"), vectors[2])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1.0, np.nan]), "1 NaN or infinite values"),
        (np.zeros(2), "has only zeros"),
        (np.zeros((0, 2)), r"shape \[0, 2\]"),
        (np.zeros((2, 3, 4)), r"shape \[2, 3, 4\], expected \[width\]"),
        (np.array(["a"]), "of numbers"),
        (np.array([1e300, 1.0]), "beyond float32"),
    ],
)
def test_a_vector_that_is_none_is_refused_with_its_cause(array, message, tmp_path):
    np.savez(tmp_path / "entries.npz", **{"7": array})
    with open_sentences(tmp_path / "entries.npz", None, [7]) as reader, pytest.raises(Refused, match=message):
        reader.read("7")


@pytest.mark.parametrize(
    ("arrays", "queries", "message"),
    [
        ({"7": VECTOR}, None, "names its vectors by query id, and the annotations have none"),
        ({"vectors": np.ones((2, 2))}, [7], "holds vectors and not which query a row is of; add `query_id` or"),
        ({"query_id": np.array([7])}, [7], r"has no array vectors or pooler_output"),
        ({"vectors": np.ones((2, 2)), "query_id": np.array([7])}, [7], r"shape \[2, 2\] and query_id of shape \[1\]"),
        ({"vectors": np.ones((2, 2)), "query_id": np.array([7, 7])}, [7], "the query id '7' in the rows 0 and 1"),
    ],
)
def test_a_file_that_names_no_queries_is_refused_by_its_name(arrays, queries, message, tmp_path):
    path = tmp_path / "texts.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"texts.npz: .*{message}"), open_sentences(path, None, queries):
        pass


def test_a_missing_file_an_empty_folder_and_a_truncated_archive_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.npz").write_bytes(_rows_npz(tmp_path).read_bytes()[:100])
    for name, message in (("none.npz", "no such file"), ("empty", "holds no .npz or .npy"), ("cut.npz", "truncated")):
        with pytest.raises(ValueError, match=f"{name}: .*{message}"), open_sentences(tmp_path / name, None, [7]):
            pass


def test_real_clip_text_features_of_a_query_are_read(tmp_path):
    source = shared_path("data/features/qvh_qid5263_clip_text.npz")
    (tmp_path / "qid5263.npz").write_bytes(source.read_bytes())
    with np.load(source) as archive:
        pooled, tokens = archive["pooler_output"], archive["last_hidden_state"]
    for wanted, expected in ((None, pooled), ("last_hidden_state", tokens.mean(axis=0, dtype=np.float64))):
        with open_sentences(tmp_path, wanted, [5263]) as reader:
            np.testing.assert_array_equal(reader.read("5263"), expected.astype(np.float32))
