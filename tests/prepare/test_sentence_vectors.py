"""Vectors of sentences beside the annotations: in the packed file, by sample; the encoder is recorded or asked for."""

from __future__ import annotations

import numpy as np
import pytest

from pps_fast.prepare import sentence_vectors
from pps_fast.prepare.options import PrepareOptions
from pps_fast.prepare.readers.encoders import SentenceEncoder
from pps_fast.prepare.report import format_summary
from tests.support.prepare_inputs import TEST, TRAIN, build, make_inputs, write_json

SENTENCES = [row[3].strip() for row in [*TRAIN, *TEST]]
VECTORS = np.random.default_rng(3).standard_normal((len(SENTENCES), 3)).astype(np.float32)


@pytest.fixture
def inputs(tmp_path):
    return make_inputs(tmp_path)


def _vectors_in(path, **changes):
    np.savez(path, **({"vectors": VECTORS, "sentences": np.array(SENTENCES), "encoder": np.array("E@1")} | changes))
    return path


def test_every_sample_has_the_vector_of_its_sentence_whatever_the_order_of_rows(inputs, tmp_path):
    order = np.random.default_rng(0).permutation(len(SENTENCES))
    path = _vectors_in(tmp_path / "v.npz", vectors=VECTORS[order], sentences=np.array(SENTENCES)[order])
    data = build(PrepareOptions(**inputs, sentence_vectors=path))
    np.testing.assert_array_equal(data.sentence_vectors, VECTORS)
    assert data.sizes.sentence_dim == 3
    source = data.provenance["sources"]["sentence_vectors"]
    assert (source["encoder"], source["by"], source["width"], source["file"]) == ("E@1", "sentences", 3, "v.npz")
    assert data.recipe["sentence_vectors"] == source and str(tmp_path) not in repr(data.provenance)
    assert "vectors of width 3, by sentences, of E@1" in format_summary(data, 4, inputs["out"])


def test_without_vectors_nothing_of_the_content_changes(inputs, tmp_path):
    plain = build(PrepareOptions(**inputs))
    path = _vectors_in(tmp_path / "v.npz")
    data = build(PrepareOptions(**inputs, sentence_vectors=path))
    differing = {name for name in data.content if data.content[name] != plain.content[name]}
    assert differing == {"sentences", "record"} and plain.sentence_vectors is None


def test_a_sentence_that_is_left_out_takes_its_vector_along(inputs, tmp_path):
    vectors = VECTORS.copy()
    vectors[3] = np.nan
    path = _vectors_in(tmp_path / "v.npz", vectors=vectors, sentences=np.array(["another", *SENTENCES[1:]]))
    data = build(PrepareOptions(**inputs, sentence_vectors=path, skip_bad=True))
    np.testing.assert_array_equal(data.sentence_vectors, VECTORS[[1, 2, 4, 5, 6]])
    assert data.provenance["skipped"]["counts"] == {"bad sentence vector": 1, "no sentence vector": 1}
    with pytest.raises(
        ValueError, match=r"train.json, row 0: sentence 'Person opens.* has no vector in v.npz; .*row 3"
    ):
        build(PrepareOptions(**inputs, sentence_vectors=path))


def test_a_query_without_id_and_another_width_are_refused(inputs, tmp_path):
    rows = [
        {"qid": index, "vid": row[0], "duration": row[1], "query": row[3], "relevant_windows": [row[2]]}
        for index, row in enumerate(TRAIN)
    ]
    del rows[4]["qid"]
    lines = "\n".join(write_json(tmp_path / "row", row).read_text(encoding="utf-8") for row in rows)
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    entries = {str(index): VECTORS[index] for index in range(3)} | {"3": np.ones(5)}
    np.savez(tmp_path / "v.npz", **entries)
    options = {**inputs, "train": tmp_path / "train.jsonl", "test": None, "sentence_vectors": tmp_path / "v.npz"}
    with pytest.raises(
        ValueError, match=r"line 4: its vector in v.npz has width 5, expected 3.*line 5: query None has"
    ):
        build(PrepareOptions(**options, sentence_encoder="E@1"))
    data = build(PrepareOptions(**options, sentence_encoder="E@1", skip_bad=True))
    np.testing.assert_array_equal(data.sentence_vectors, VECTORS[:3])


def test_the_encoder_is_asked_for_where_the_file_does_not_name_it(inputs, tmp_path):
    np.savez(tmp_path / "v.npz", vectors=VECTORS, sentences=np.array(SENTENCES))
    with pytest.raises(ValueError, match="v.npz: does not say which encoder .*--sentence-encoder NAME@REVISION"):
        build(PrepareOptions(**inputs, sentence_vectors=tmp_path / "v.npz"))
    data = build(PrepareOptions(**inputs, sentence_vectors=tmp_path / "v.npz", sentence_encoder="E@2"))
    assert data.recipe["sentence_vectors"]["encoder"] == "E@2"


def test_vectors_come_with_planted_features_too(inputs, tmp_path):
    path = _vectors_in(tmp_path / "v.npz")
    options = {**inputs, "features": (type(path)("planted"),), "sentence_vectors": path}
    np.testing.assert_array_equal(build(PrepareOptions(**options)).sentence_vectors, VECTORS)


def test_an_encoder_alone_encodes_each_sentence_once_and_is_named(inputs, monkeypatch):
    asked = []

    def run(sentences):
        asked.extend(sentences)
        return np.array([[len(sentence), 1.0] for sentence in sentences], dtype=np.float32)

    encoder = SentenceEncoder(name="E@1", width=2, pooling="mean", run=run)
    monkeypatch.setattr(sentence_vectors, "open_encoder", lambda named: encoder)
    again = [*TRAIN, TRAIN[0]]
    write_json(inputs["train"], again)
    data = build(PrepareOptions(**inputs, sentence_encoder="folder"))
    assert len(asked) == len(set(asked)) == len(set(data.sentences))
    np.testing.assert_array_equal(data.sentence_vectors[:, 0], [len(sentence) for sentence in data.sentences])
    record = data.recipe["sentence_vectors"]
    assert record == {"format": "encoder", "by": "encoding", "width": 2, "encoder": "E@1", "pooling": "mean"}


def test_a_layout_of_the_field_has_the_vectors_of_queries_inside(tmp_path):
    for name in ("clip", "clip_text"):
        (tmp_path / name).mkdir()
    assert sentence_vectors.text_folder(tmp_path) == tmp_path / "clip_text"
    assert sentence_vectors.text_folder(tmp_path / "clip") == tmp_path / "clip"
    (tmp_path / "qid1.npz").write_bytes(b"")
    assert sentence_vectors.text_folder(tmp_path) == tmp_path
