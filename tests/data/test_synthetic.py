"""The embedded planted-moment data: its grammar, its truth, and that looking at the video is what helps."""

from __future__ import annotations

import numpy as np
import pytest

from pps_fast import machine
from pps_fast.config import PlantedConfig
from pps_fast.data.synthetic import KINDS, MAX_NUM_WORDS, NOUNS, VERBS, num_events, planted_data, planted_features

DATA = planted_data(PlantedConfig())
SMALL = PlantedConfig(num_videos=15, num_segments=16, frame_dim=8)


def content(sentence: str) -> list[tuple[str, str]]:
    """Returns the (verb, noun) pairs a sentence names, in order."""
    words = sentence.split()
    return list(zip([word for word in words if word in VERBS], [word for word in words if word in NOUNS], strict=True))


def overlap(interval: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Returns the IoU of one interval with each moment, as intersection over union of lengths."""
    shared = np.minimum(interval[1], moments[:, 1]) - np.maximum(interval[0], moments[:, 0])
    shared = np.maximum(shared, 0)
    return shared / (interval[1] - interval[0] + moments[:, 1] - moments[:, 0] - shared)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_fixed_interval_answers_the_embedded_data(seed):
    data = planted_data(PlantedConfig(seed=seed))
    train, test = data.moment[data.split == "train"], data.moment[data.split == "test"]
    edges = np.linspace(0, 1, 51)
    grid = [np.array([start, end]) for start in edges for end in edges if start < end]
    overlaps = [overlap(interval, train) for interval in grid]
    by_recall = grid[int(np.argmax([(iou >= 0.5).mean() for iou in overlaps]))]
    by_mean = grid[int(np.argmax([iou.mean() for iou in overlaps]))]
    for interval in (by_recall, by_mean, np.array([0.0, 1.0])):
        assert (overlap(interval, test) >= 0.5).mean() <= 0.25
        assert overlap(interval, test).mean() <= 0.30


def test_every_sample_says_its_kind():
    expected = ["multi-event" if " then " in sentence else "single-event" for sentence in DATA.sentences]
    assert DATA.kind.tolist() == expected
    assert set(expected) == set(KINDS) and expected.count("multi-event") == len(expected) // 3


def described_event_scores(keep: tuple[bool, bool]) -> float:
    """Share of one-event test sentences whose event fits them best among the video's events.

    The map from words to features is fitted with the truth of the training videos, so this is a ceiling and not a
    method; `keep` says whether the verb and the noun of the sentence may be used.
    """
    classes = np.array([DATA.words.index(word) for word in (*VERBS, *NOUNS)])
    named = (DATA.word_ids[:, :, None] == classes).any(axis=1).astype(float)  # [M, 16]
    named -= named.mean(axis=0)
    segment = (np.arange(64) + 0.5) / 64
    inside = (DATA.moment[:, :1] <= segment) & (segment < DATA.moment[:, 1:])
    shown = np.stack([DATA.features[v][i].mean(axis=0) for v, i in zip(DATA.sample_video, inside, strict=True)])
    single = num_events(DATA) == 1
    train = single & (DATA.split == "train")
    directions, *_ = np.linalg.lstsq(named[train], shown[train].astype(float), rcond=None)
    directions *= np.repeat(keep, [len(VERBS), len(NOUNS)])[:, None]
    correct = []
    for video in np.unique(DATA.sample_video[DATA.split == "test"]):
        of_video = np.flatnonzero(single & (DATA.sample_video == video))
        scores = (named[of_video] @ directions) @ shown[of_video].T.astype(float)
        correct.append(scores.argmax(axis=1) == np.arange(len(of_video)))
    return float(np.concatenate(correct).mean())


def test_verb_and_noun_together_tell_the_event_and_one_alone_does_not():
    assert described_event_scores((True, True)) > 0.95
    assert described_event_scores((True, False)) < 0.85
    assert described_event_scores((False, True)) < 0.85


def test_same_config_same_data_and_another_seed_other_data():
    first, again = planted_data(SMALL), planted_data(SMALL)
    other = planted_data(PlantedConfig(num_videos=15, num_segments=16, frame_dim=8, seed=1))
    for name in ("features", "duration_s", "word_vectors", "sample_video", "word_ids", "hide_prob", "moment_s"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.sentences == again.sentences and first.provenance == again.provenance
    assert first.sentences != other.sentences
    assert not np.array_equal(first.features, other.features)


def test_the_last_fifth_of_the_videos_is_the_test_split():
    tested = np.unique(DATA.sample_video[DATA.split == "test"])
    trained = np.unique(DATA.sample_video[DATA.split == "train"])
    np.testing.assert_array_equal(tested, np.arange(400, 500))
    np.testing.assert_array_equal(trained, np.arange(400))
    assert (DATA.fold == -1).all()


def test_a_third_of_the_sentences_describe_two_neighboring_events():
    events = num_events(DATA)
    assert (events == 2).mean() == pytest.approx(1 / 3)
    np.testing.assert_array_equal(events, [len(content(sentence)) for sentence in DATA.sentences])
    np.testing.assert_array_equal(events == 2, ["then" in sentence.split() for sentence in DATA.sentences])


def test_moment_of_two_events_reaches_from_the_first_to_the_second():
    for video in range(50):
        of_video = np.flatnonzero(DATA.sample_video == video)
        bounds = {content(DATA.sentences[i])[0]: DATA.moment_s[i] for i in of_video if num_events(DATA)[i] == 1}
        for pair in of_video[num_events(DATA)[of_video] == 2]:
            first, second = content(DATA.sentences[pair])
            np.testing.assert_array_equal(DATA.moment_s[pair], [bounds[first][0], bounds[second][1]])
            # neighbors: no third event between them
            assert not any(bounds[first][1] <= start < bounds[second][0] for start, _ in bounds.values())


def test_events_of_a_video_differ_and_often_share_a_word():
    sharing = 0
    for video in range(500):
        of_video = (DATA.sample_video == video) & (num_events(DATA) == 1)
        pairs = [content(DATA.sentences[i])[0] for i in np.flatnonzero(of_video)]
        assert len(set(pairs)) == len(pairs) == 4
        sharing += min(len({verb for verb, _ in pairs}), len({noun for _, noun in pairs})) < 4
    assert sharing > 350


def test_moments_lie_inside_their_videos_and_do_not_overlap():
    assert (DATA.moment_s[:, 0] >= 0).all()
    assert (DATA.moment_s[:, 1] <= DATA.duration_s[DATA.sample_video] + 1e-9).all()
    length = DATA.moment[:, 1] - DATA.moment[:, 0]
    assert length.min() > 0.04 and length.max() < 0.8
    single = num_events(DATA) == 1
    for video in range(50):
        borders = DATA.moment_s[single & (DATA.sample_video == video)].ravel()
        assert (np.diff(borders) >= -1e-9).all()


def test_classes_spell_the_sentence_and_hidden_words_prefer_content():
    for sample in range(60):
        count = DATA.num_words[sample]
        assert [DATA.words[i] for i in DATA.word_ids[sample, :count]] == DATA.sentences[sample].split()
        prob = DATA.hide_prob[sample, :count]
        is_function = np.isin(DATA.sentences[sample].split(), ["a", "the", "and", "."])
        np.testing.assert_allclose(prob[~is_function], prob[is_function].max() * np.e, rtol=1e-5)
        np.testing.assert_allclose(prob[is_function], prob[is_function].max(), rtol=1e-5)
    assert DATA.num_words.max() == MAX_NUM_WORDS == DATA.word_ids.shape[1]
    np.testing.assert_allclose(DATA.hide_prob.sum(axis=1), 1, atol=1e-6)


def test_smallest_config_works():
    data = planted_data(PlantedConfig(num_videos=10, num_segments=16, frame_dim=2, noise=0.0))
    assert data.features.shape == (10, 16, 2) and np.isfinite(data.features).all()


def plant(moment_s, *, video=None, frame_dim=6, noise=0.0, seed=0, word_ids=None):
    """Plants sentences of two words of ten over two videos of 10 s."""
    count = len(moment_s)
    vectors = np.random.default_rng(1).standard_normal((11, 9)).astype(np.float32)
    return planted_features(
        durations_s=np.array([10.0, 10.0]),
        sample_video=np.zeros(count, np.int64) if video is None else np.array(video),
        moment_s=np.array(moment_s, dtype=np.float64),
        word_ids=np.arange(1, 2 * count + 1).reshape(count, 2) if word_ids is None else np.array(word_ids),
        word_vectors=vectors,
        num_segments=20,
        frame_dim=frame_dim,
        noise=noise,
        seed=seed,
    )


@pytest.mark.parametrize("frame_dim", [5, 9, 30])
def test_a_sentence_is_visible_inside_its_moment_only(frame_dim):
    features = plant([[2.0, 5.0], [6.0, 9.0]], frame_dim=frame_dim).astype(np.float64)[0]
    labels = np.array([0] * 4 + [1] * 6 + [0] * 2 + [2] * 6 + [0] * 2)
    for label in range(3):
        rows = features[labels == label]
        np.testing.assert_array_equal(rows, np.broadcast_to(rows[0], rows.shape))
        assert np.linalg.norm(rows[0]) == pytest.approx(2**0.5, abs=2e-3)
    assert np.linalg.norm(features[0] - features[4]) > 0.1
    # two sentences: what is left after their common part is opposite
    np.testing.assert_allclose(features[4], -features[12], atol=2e-3)


def test_overlapping_sentences_add_up():
    features = plant([[0.0, 6.0], [4.0, 10.0], [0.0, 10.0]], video=[0, 0, 1]).astype(np.float64)[0]
    np.testing.assert_allclose(features[10], features[0] + features[19], atol=4e-3)


@pytest.mark.parametrize(
    ("moment", "segments"),
    [([3.05, 3.1], [6]), ([9.9, 14.0], [19]), ([10.0, 12.0], [19]), ([-1.0, 0.4], [0])],
    ids=["within a segment", "past the end", "after the end", "before the start"],
)
def test_every_moment_gets_at_least_a_segment(moment, segments):
    features = plant([moment, [0.0, 1.0]], video=[0, 1])[0]
    planted = np.flatnonzero((features != features[10]).any(axis=1))
    assert planted.tolist() == segments


def test_words_of_every_sentence_leave_no_trace():
    word_ids = [[1, 2, 5], [1, 2, 6], [1, 2, 7]]
    features = plant([[0.0, 3.0], [3.0, 6.0], [6.0, 9.0]], word_ids=word_ids, frame_dim=9).astype(np.float64)[0]
    alone = plant([[0.0, 3.0], [3.0, 6.0], [6.0, 9.0]], word_ids=[[5], [6], [7]], frame_dim=9).astype(np.float64)[0]
    np.testing.assert_allclose(features[:18], alone[:18], atol=2e-3)


def test_padding_is_no_word():
    word_ids = [[5, 0, 0], [6, 7, 0]]
    padded = plant([[0.0, 3.0], [3.0, 6.0]], word_ids=word_ids)
    np.testing.assert_array_equal(padded, plant([[0.0, 3.0], [3.0, 6.0]], word_ids=[[5, 0], [6, 7]]))


def test_noise_has_its_deviation_and_depends_on_the_seed():
    clean, noisy = (plant([[2.0, 5.0]], video=[1], frame_dim=800, noise=s).astype(np.float64) for s in (0.0, 0.5))
    assert (noisy - clean).std() == pytest.approx(0.5, rel=0.02)
    other = plant([[2.0, 5.0]], video=[1], frame_dim=800, noise=0.5, seed=3)
    assert not np.array_equal(noisy, other)
    assert abs(np.corrcoef((noisy - clean)[0].ravel(), (noisy - clean)[1].ravel())[0, 1]) < 0.05


def test_the_order_of_the_sentences_does_not_matter():
    moments, words = [[0.0, 3.0], [4.0, 6.0], [2.0, 8.0]], [[1, 2], [3, 4], [5, 6]]
    forward = plant(moments, video=[0, 1, 0], word_ids=words, noise=0.5)
    backward = plant(moments[::-1], video=[0, 1, 0], word_ids=words[::-1], noise=0.5)
    np.testing.assert_allclose(forward.astype(np.float64), backward.astype(np.float64), atol=2e-3)


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed of planted data = -1: expected 0 or more"):
        plant([[0.0, 1.0]], seed=-1)


def test_planted_features_beyond_the_free_memory_are_refused(monkeypatch):
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"^the planted data needs .* free; lower the number of videos"):
        planted_data(PlantedConfig())
