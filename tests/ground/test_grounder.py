"""A grounder answers as the evaluation does, without a prepared file: for every kind of model folder."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import torch

import pps_fast
import pps_fast.ground.sentences as sentences_module
from pps_fast.alignment.model import AlignmentModel
from pps_fast.config_tree import override
from pps_fast.data.identity import describe_data
from pps_fast.data.store import Store
from pps_fast.data.tokens import tokenize
from pps_fast.eval.predictions import predict_samples
from pps_fast.files import Note
from pps_fast.ground.scorers import AlignmentScorer
from pps_fast.ground.sentences import encode_queries
from pps_fast.predict import temporal_iou
from pps_fast.prepare.readers.encoders import SentenceEncoder
from pps_fast.prepare.readers.frames import resample
from pps_fast.runs.checkpoint import find_checkpoint, load_model
from pps_fast.train.closed_form import fit_in_closed_form
from tests.support.eval_fakes import CONFIG, DATA, SPLITS
from tests.support.grounders import ALIGNMENT, alignment_run, network_run
from tests.support.model_folders import as_older_version
from tests.support.train_runs import small_input

SAMPLES = SPLITS.test[:7]


def _ask(grounder: pps_fast.Grounder, sample: int, data=DATA, **options):
    video = data.sample_video[sample]
    return grounder.ground(
        data.features[video], data.sentences[sample], duration_s=float(data.duration_s[video]), **options
    )


@pytest.mark.parametrize("curve", ["linear", "standardized"])
def test_an_alignment_answers_new_sentences_as_its_evaluation(curve: str) -> None:
    run = alignment_run(curve)
    grounder, (model, config, _) = pps_fast.load(run), load_model(run)
    expected = predict_samples(model, Store(DATA), SAMPLES, config)
    for row, sample in enumerate(SAMPLES):
        answer = _ask(grounder, sample)
        duration = DATA.duration_s[DATA.sample_video[sample]]
        spans = [(moment.start_s / duration, moment.end_s / duration) for moment in answer]
        np.testing.assert_allclose(spans, expected.spans[row][: len(spans)], atol=1e-6)
        np.testing.assert_allclose([m.score for m in answer], -expected.nll[row][: len(answer)], rtol=1e-4)
        assert 0 < answer.match < 1 and 0 <= answer.clarity <= 1 and not answer.unknown_words


@pytest.mark.parametrize("method", ["tiny", "cpl_demo", "cnm_demo"])
def test_a_model_with_proposals_answers_as_its_evaluation_and_has_no_confidence(method: str) -> None:
    run, trained = network_run(method)
    store, _ = small_input(trained)
    data, sample = store.data, np.array([0])
    grounder = pps_fast.load(run)
    model, config, _ = load_model(run)
    # the hidden words of the first sample are those of any sentence that is asked
    expected = predict_samples(model, store, sample, config)
    answer = _ask(grounder, 0, data)
    assert answer[0].start == pytest.approx(float(expected.top1[0, 0]), abs=1e-5)
    assert answer[0].end == pytest.approx(float(expected.top1[0, 1]), abs=1e-5)
    assert answer.match is None and answer.clarity is None and "rebuild the sentence" in grounder.no_match


def test_a_model_answers_in_the_precision_of_its_evaluation_or_in_the_one_that_is_named() -> None:
    run, trained = network_run("tiny")
    store, _ = small_input(trained)
    model, config, _ = load_model(run)
    starts = {}
    for precision in ("fp32", "bf16"):
        expected = predict_samples(model, store, np.array([0]), override(config, {"inference.precision": precision}))
        grounder = pps_fast.load(run, precision=precision)
        assert grounder.config.inference.precision == precision
        starts[precision] = _ask(grounder, 0, store.data)[0].start
        # the evaluation's batch is larger, and rounds in another order
        atol = 1e-5 if precision == "fp32" else 1e-2
        assert starts[precision] == pytest.approx(float(expected.top1[0, 0]), abs=atol)
    assert starts["fp32"] != starts["bf16"] and pps_fast.load(run).config.inference.precision == "fp32"


def test_a_model_with_an_alignment_in_it_is_as_sure_as_that(tmp_path: Path) -> None:
    run, trained = network_run("aligned")
    store, splits = small_input(trained)
    grounder, data = pps_fast.load(run), store.data
    alone = AlignmentModel(trained, store.sizes)
    alone.alignment.load_state_dict(load_model(run)[0].alignment.state_dict())
    scorer = AlignmentScorer(alone.alignment.eval(), grounder.confidence)
    videos = [grounder.encode(data.features[video], name=str(video)) for video in range(4)]
    queries = encode_queries(data.sentences[:3], grounder._words, None, 0)
    with torch.inference_mode():
        expected = scorer.score(scorer.encode(torch.cat([video.frames for video in videos])), queries, 1)
    answers = grounder.ground_all(videos, data.sentences[:3], top=2)
    for video, row in enumerate(answers):
        for sentence, answer in enumerate(row):
            assert answer.match == pytest.approx(float(expected.match[video, sentence]), rel=1e-5)
            assert answer.clarity == pytest.approx(float(expected.clarity[video, sentence]), rel=1e-5)
    assert grounder.no_match is None
    # the moments are the model's own
    model, config, _ = load_model(run)
    evaluated = predict_samples(model, store, np.array([0]), config)
    assert _ask(grounder, 0, data)[0].start == pytest.approx(float(evaluated.top1[0, 0]), abs=1e-5)
    matches = [moment.match for moment in grounder.search(videos, [data.sentences[0]], top=4)[0]]
    assert matches == sorted(matches, reverse=True)


def test_models_that_mix_the_samples_of_a_batch_answer_each_question_alone() -> None:
    run, _ = network_run("tiny")
    grounder = pps_fast.load(run)
    data = small_input(network_run("tiny")[1])[0].data
    videos = [grounder.encode(data.features[video], name=str(video)) for video in range(3)]
    sentences = [data.sentences[index] for index in (0, 4, 7)]
    together = grounder.ground_all(videos, sentences)
    for video, answers in zip(videos, together, strict=True):
        for sentence, answer in zip(sentences, answers, strict=True):
            alone = grounder.ground(video, sentence)
            np.testing.assert_allclose([m.start for m in answer], [m.start for m in alone], atol=1e-5)


def test_frames_are_resampled_as_prepare_does_and_encoded_once() -> None:
    grounder = pps_fast.load(alignment_run())
    frames = np.random.default_rng(0).normal(size=(45, DATA.sizes.frame_dim)).astype(np.float32)
    prepared = resample(frames, DATA.sizes.num_segments).astype(np.float16)
    sentence = DATA.sentences[0]
    assert grounder.ground(frames, sentence) == grounder.ground(prepared, sentence)
    video = grounder.encode(torch.from_numpy(frames))
    assert grounder.ground(video, sentence) == grounder.ground(frames, sentence)
    assert grounder.ground(frames, sentence)[0].start_s is None
    assert type(grounder.ground(frames, sentence, duration_s=np.float64(9.5))[0].start_s) is float


def test_a_search_ranks_videos_by_match_and_finds_the_right_one_more_often_than_chance() -> None:
    grounder = pps_fast.load(alignment_run())
    names = np.unique(DATA.sample_video[SPLITS.test])
    videos = [grounder.encode(DATA.features[video], name=str(video)) for video in names]
    answers = grounder.search(videos, [DATA.sentences[sample] for sample in SPLITS.test], top=3)
    for answer in answers:
        matches = [moment.match for moment in answer]
        assert matches == sorted(matches, reverse=True) and len({moment.video for moment in answer}) == 3
    hits = [
        str(DATA.sample_video[sample]) in {moment.video for moment in answer}
        for sample, answer in zip(SPLITS.test, answers, strict=True)
    ]
    assert np.mean(hits) > 1.5 * 3 / len(names)


@pytest.mark.parametrize("top", [1, 3, 12, 40])
def test_a_search_reads_further_moments_only_where_the_first_are_too_few(top: int) -> None:
    grounder = pps_fast.load(alignment_run())
    videos = [grounder.encode(DATA.features[video], name=str(video)) for video in range(6)]
    sentences = [DATA.sentences[index] for index in (0, 4, 9)]
    counts = []
    score = grounder._scorer.score

    def counted(frames, queries, count):
        counts.append(count)
        return score(frames, queries, count)

    grounder._scorer.score = counted
    answers = grounder.search(videos, sentences, top=top)
    assert counts == ([1] if top <= 6 else [top])
    each = [[grounder.ground(video, sentence, top=top) for video in videos] for sentence in sentences]
    for answer, alone in zip(answers, each, strict=True):
        ranks = zip_longest(*alone)
        in_order = [
            moment for row in ranks for moment in sorted(filter(None, row), key=lambda one: one.match, reverse=True)
        ]
        names = [by_video.moments for by_video in alone]
        for moment, other in zip(answer, in_order, strict=False):
            assert (moment.start, moment.end) == pytest.approx((other.start, other.end), abs=1e-6)
            assert moment.match == pytest.approx(other.match, rel=1e-5)
        assert len(answer) == min(top, sum(map(len, names)))


def test_one_long_video_has_further_moments_of_its_windows() -> None:
    grounder = pps_fast.load(alignment_run())
    frames = np.concatenate([DATA.features[video] for video in range(3)])
    video = grounder.encode(frames, duration_s=90.0, name="v", segment_seconds=30.0)
    assert grounder.search([video], [DATA.sentences[0]], top=4)[0] == grounder.ground(video, DATA.sentences[0], top=4)


def _with_vectors(folder: Path) -> tuple[Path, np.ndarray]:
    """Fits an alignment to vectors of sentences that depend on these alone."""
    vectors = _encode(list(DATA.sentences))
    recipe = {**(DATA.recipe or {}), "sentence_vectors": {"encoder": "some/encoder@1", "width": vectors.shape[1]}}
    data = replace(DATA, sentence_vectors=vectors, recipe=recipe)
    fit_in_closed_form(ALIGNMENT, Store(data), SPLITS, folder / "run", resume=False, progress=False)
    return folder / "run", vectors


def _encode(sentences: list[str]) -> np.ndarray:
    words = [[DATA.words.index(word) for word in tokenize(sentence) if word in DATA.words] for sentence in sentences]
    return np.stack([DATA.word_vectors[row].mean(axis=0) for row in words]).astype(np.float32)


def test_new_sentences_are_encoded_by_the_encoder_that_the_model_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, vectors = _with_vectors(tmp_path)
    opened = []

    def open_encoder(named: str) -> SentenceEncoder:
        opened.append(named)
        width = 3 if named == "narrow" else vectors.shape[1]
        return SentenceEncoder(name=named, width=width, pooling="mean", run=_encode)

    monkeypatch.setattr(sentences_module, "open_encoder", open_encoder)
    grounder = pps_fast.load(run)
    frames, sentence = DATA.features[DATA.sample_video[0]], DATA.sentences[0]
    assert grounder.ground(frames, sentence) == grounder.ground(frames, sentence, sentence_vector=vectors[0])
    grounder.ground(frames, sentence)
    assert opened == ["some/encoder@1"]
    assert pps_fast.load(run, sentence_encoder="folder").ground(frames, sentence) == grounder.ground(frames, sentence)
    assert opened[1:] == ["folder"]
    with pytest.raises(ValueError, match="encoder narrow: makes vectors of width 3, .* of some/encoder@1; name that"):
        pps_fast.load(run, sentence_encoder="narrow")
    with pytest.raises(ValueError, match="sentence_encoder: the model was trained on words"):
        pps_fast.load(alignment_run(), sentence_encoder="folder")


def test_an_encoder_that_is_not_there_is_told_with_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = _with_vectors(tmp_path)

    def absent(named: str) -> SentenceEncoder:
        raise ValueError(f"sentence encoder {named}: not there")

    monkeypatch.setattr(sentences_module, "open_encoder", absent)
    message = (
        r"fitted to vectors of the encoder some/encoder@1, .* not there; or name its folder .* .--sentence-encoder"
    )
    with pytest.raises(ValueError, match=message):
        pps_fast.load(run).ground(DATA.features[0], "person opens the door")


def test_features_of_joined_sources_are_named_where_others_are_given(tmp_path: Path) -> None:
    sources = [{"source": "clip", "width": 4}, {"source": "slowfast", "width": 2}]
    data = replace(DATA, recipe={"sources": sources, "joining": "side by side"})
    fit_in_closed_form(ALIGNMENT, Store(data), SPLITS, tmp_path / "run", resume=False, progress=False)
    grounder = pps_fast.load(tmp_path / "run")
    assert grounder.source_names == ("clip", "slowfast")
    with pytest.raises(ValueError, match=r"features of width 6 \(clip 4 \+ slowfast 2, joined\); take"):
        grounder.encode(np.ones((9, 4)))


def test_unknown_words_are_named_and_a_sentence_of_them_is_refused() -> None:
    grounder = pps_fast.load(alignment_run())
    answer = grounder.ground(DATA.features[0], "Person opens the zebrafish, quickly.")
    assert answer.unknown_words == ("zebrafish", "quickly")
    assert answer.moments == grounder.ground(DATA.features[0], "person opens the .").moments
    with pytest.raises(ValueError, match="'zebrafish swim': no word that the model knows .it does not know zebrafish"):
        grounder.ground(DATA.features[0], "zebrafish swim")


def test_a_long_video_is_read_in_windows_and_a_coarse_one_is_warned_of() -> None:
    grounder = pps_fast.load(alignment_run())
    videos = DATA.sample_video[SPLITS.test]
    sample, others = SPLITS.test[0], videos[videos != videos[0]]
    parts = [others[0], others[7], videos[0], others[11]]
    frames, second = np.concatenate([DATA.features[part] for part in parts]), 30.0
    windowed = grounder.ground(frames, DATA.sentences[sample], duration_s=4 * second, segment_seconds=second, top=20)
    alone = grounder.ground(DATA.features[videos[0]], DATA.sentences[sample], duration_s=second)
    # the third window of the four, and the half-way ones between, hold the moment that the video by itself has
    target = torch.tensor([alone[0].start_s + 2 * second, alone[0].end_s + 2 * second])
    spans = torch.tensor([[moment.start_s, moment.end_s] for moment in windowed])
    assert temporal_iou(spans, target).max() > 0.95
    matches = [moment.match for moment in windowed]
    assert matches[0] == max(matches)
    with pytest.warns(Note, match="a segment is 30.0 s long, more than a third of .* segment_seconds"):
        grounder.encode(DATA.features[0], duration_s=30.0 * DATA.sizes.num_segments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grounder.encode(frames, duration_s=1000.0, segment_seconds=60.0)
    with pytest.warns(Note, match="rows of features, too few to find a moment in"):
        grounder.encode(frames, duration_s=1000.0, segment_seconds=20.0)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (np.ones((9, 3)), {}, "width 3, the model was trained with features of width 6"),
        (np.full((9, 6), np.nan), {}, "54 NaN or infinite values"),
        (np.zeros((9, 6)), {}, "only zeros"),
        (np.ones((9, 6)), {"duration_s": 0.0}, "duration_s = 0.0: expected seconds above 0"),
        (np.ones((9, 6)), {"segment_seconds": 5.0}, "length of the video is unknown"),
        (np.ones((9, 6)), {"segment_seconds": 0.0, "duration_s": 5.0}, "segment_seconds = 0.0"),
        (np.ones((9, 6)), {"top": 0}, "top = 0: expected 1 to 1,000"),
        (np.ones((9, 6)), {"top": 1001}, "top = 1001: expected 1 to 1,000"),
        (np.ones((9, 6)), {"sentence_vector": np.ones(4)}, "sentence_vectors: the model was trained on words"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(frames, options, message: str) -> None:
    grounder = pps_fast.load(alignment_run())
    with pytest.raises(ValueError, match=message):
        grounder.ground(frames, "person opens the door .", **options)


def test_a_search_refuses_the_same() -> None:
    grounder = pps_fast.load(alignment_run())
    videos = [grounder.encode(DATA.features[video]) for video in range(2)]
    for top in (0, 1001):
        with pytest.raises(ValueError, match=f"top = {top}: expected 1 to 1,000"):
            grounder.search(videos, [DATA.sentences[0]], top=top)
    with pytest.raises(ValueError, match="no video; give one at least"):
        grounder.search([], [DATA.sentences[0]])


def test_a_folder_without_words_says_so(tmp_path: Path) -> None:
    folder = shutil.copytree(find_checkpoint(network_run("tiny")[0]), tmp_path / "old")
    as_older_version(folder, describe_data(small_input(network_run("tiny")[1])[0].data))
    with pytest.raises(ValueError, match="has no words, so that it cannot read a sentence"):
        pps_fast.load(folder)


def test_a_moved_model_folder_is_all_that_is_needed(tmp_path: Path) -> None:
    moved = shutil.copytree(find_checkpoint(alignment_run()), tmp_path / "moved")
    grounder, moved_grounder = pps_fast.load(alignment_run()), pps_fast.load(moved)
    assert _ask(moved_grounder, SAMPLES[0]) == _ask(grounder, SAMPLES[0])
    assert moved_grounder.config.data == CONFIG.data
