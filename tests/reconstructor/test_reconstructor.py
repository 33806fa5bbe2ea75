"""Masks are processed side by side, q_cls only reads, and the score is that of the words alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pps_fast.encoder.dropout import number_sites
from pps_fast.equations import log_mask
from pps_fast.reconstructor.reconstructor import SCHEDULES, Reconstructor, kept_segments
from pps_fast.types import Candidates, MaskSet, ReconstructorInput, join_masks
from tests.support import oracles, oracles_model
from tests.support.cases import SIZES, random_batch, randomize, small_config
from tests.support.compare import assert_agree

BATCH = random_batch(dtype=torch.float64)
POSITIONS = 4


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _reconstructor(schedule: str, **changes) -> Reconstructor:
    config = small_config(reconstructor__num_layers=2, reconstructor__schedule=schedule, **changes)
    reconstruct = randomize(Reconstructor(config, SIZES.vocab_size).double())
    number_sites(reconstruct)
    return reconstruct


def _inputs(is_padded: bool = False) -> ReconstructorInput:
    slot = torch.arange(11)
    lengths = torch.tensor([[4], [2], [3], [4]]) if is_padded else torch.full((4, 1), POSITIONS)
    return ReconstructorInput(
        frames=_draw(4, POSITIONS, 8),
        frame_valid=torch.arange(POSITIONS) < lengths,
        query=_draw(4, 11, 8, seed=1),
        word_valid=slot < (BATCH.num_words + 1).unsqueeze(1),
        num_words=BATCH.num_words,
    )


def _masks(num_masks: int = 3, is_dropping: bool = False, seed: int = 2) -> MaskSet:
    generator = torch.Generator().manual_seed(seed)
    log_masks = log_mask(torch.rand(4, num_masks, POSITIONS, generator=generator, dtype=torch.float64))
    dropout_key = torch.randint(-(2**31), 2**31, (4, num_masks), generator=generator).to(torch.int32)
    return MaskSet(log_masks=log_masks, dropout_key=dropout_key if is_dropping else None)


@pytest.fixture(params=sorted(SCHEDULES))
def schedule(request: pytest.FixtureRequest) -> str:
    """Every schedule has every property."""
    return request.param


@pytest.mark.parametrize("is_dropping", [False, True], ids=["kept", "dropped"])
def test_many_masks_at_once_equal_single_passes(schedule: str, is_dropping: bool) -> None:
    reconstruct, inputs, masks = _reconstructor(schedule), _inputs(), _masks(5, is_dropping)
    features = reconstruct.features(inputs, masks)
    assert features.shape == (4, 5, 11, 8)
    nll = reconstruct(inputs, masks, BATCH).nll
    for n, single in enumerate(masks.split((1,) * 5)):
        assert_agree("features", reconstruct.features(inputs, single), features[:, n : n + 1], atol=1e-12)
        assert_agree("nll", reconstruct(inputs, single, BATCH).nll, nll[:, n : n + 1], atol=1e-12)


def test_a_mask_decides_what_of_the_video_is_seen(schedule: str) -> None:
    reconstruct, inputs = _reconstructor(schedule), _inputs()
    masks = MaskSet(log_masks=log_mask(torch.tensor([1.0, 0.0, 1.0, 0.0]).double()).expand(4, 1, -1))
    before = reconstruct.features(inputs, masks)
    for position, is_seen in enumerate([True, False, True, False]):
        frames = inputs.frames.clone()
        frames[:, position] += 1
        moved = (reconstruct.features(replace(inputs, frames=frames), masks) - before).abs().max()
        # the floor of 1e-10 lets a trace of hidden frames through
        assert moved > 1e-3 if is_seen else moved < 1e-7, position


def test_padding_of_frames_and_words_never_influences_words(schedule: str) -> None:
    reconstruct, inputs, masks = _reconstructor(schedule), _inputs(is_padded=True), _masks()
    before = reconstruct(inputs, masks, BATCH)
    frames, query = inputs.frames.clone(), inputs.query.clone()
    frames[~inputs.frame_valid] += 5
    query[~inputs.word_valid] += 5  # q_cls is among them
    after = reconstruct(replace(inputs, frames=frames, query=query), masks, BATCH)
    assert_agree("nll", after.nll, before.nll)


def test_the_summary_is_the_row_of_q_cls_and_q_cls_changes_only_its_own_row(schedule: str) -> None:
    reconstruct, inputs, masks = _reconstructor(schedule), _inputs(), _masks()
    before = reconstruct.features(inputs, masks)
    query, rows = inputs.query.clone(), torch.arange(4)
    query[rows, BATCH.num_words + 1] += 1
    changed = replace(inputs, query=query)
    after = reconstruct.features(changed, masks)
    is_cls = torch.zeros(4, 11, dtype=torch.bool)
    is_cls[rows, BATCH.num_words + 1] = True
    difference = (after - before).abs().amax((1, 3))
    assert_agree("moved rows", difference > 0, is_cls)
    for got, features in (
        (reconstruct.summaries(inputs, masks), before),
        (reconstruct.summaries(changed, masks), after),
    ):
        expected = torch.stack([features[b, :, n + 1] for b, n in enumerate(BATCH.num_words.tolist())])
        assert_agree("summary", got, expected, atol=1e-13)


def test_words_are_predicted_from_the_words_before_them_only(schedule: str) -> None:
    reconstruct, inputs, masks = _reconstructor(schedule), _inputs(), _masks()
    before = reconstruct(inputs, masks, BATCH).logits
    query = inputs.query.clone()
    query[:, 4] += 1
    after = reconstruct(replace(inputs, query=query), masks, BATCH).logits
    assert_agree("earlier", after[:, :, :4], before[:, :, :4], atol=1e-13)
    assert (after - before)[:, :, 4].abs().max() > 1e-3


@pytest.mark.parametrize("target_length", ["exact", "plus_one", "end_of_sentence"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_score_is_the_cross_entropy_of_the_targets(schedule: str, target_length: str, smoothing: float) -> None:
    changes = {"reconstructor__target_length": target_length, "reconstructor__label_smoothing": smoothing}
    reconstruct, inputs, masks = _reconstructor(schedule, **changes), _inputs(), _masks()
    got = reconstruct(inputs, masks, BATCH)
    logits = reconstruct.vocabulary(reconstruct.features(inputs, masks))
    assert_agree("logits", got.logits, logits[:, :, :9], atol=1e-13)
    longest = int(BATCH.num_words.max())
    count = {"exact": lambda n: n, "plus_one": lambda n: min(n + 1, longest), "end_of_sentence": lambda n: n + 1}
    is_target = torch.arange(10) < torch.tensor([[count[target_length](n)] for n in BATCH.num_words.tolist()])
    targets = torch.cat((BATCH.word_ids, torch.zeros(4, 1, dtype=torch.int64)), 1)
    arrays = [value.detach().numpy() for value in (logits[:, :, :10], targets, is_target)]
    assert_agree("nll", got.nll, oracles.reconstruction_nll(*arrays, smoothing), atol=1e-12)


def test_the_end_is_predicted_even_of_a_sentence_that_fills_all_columns(schedule: str) -> None:
    reconstruct = _reconstructor(schedule, reconstructor__target_length="end_of_sentence")
    batch = random_batch((9, 9, 9, 9), dtype=torch.float64)
    inputs = replace(_inputs(), num_words=batch.num_words, word_valid=torch.arange(11).expand(4, -1) < 10)
    got = reconstruct(inputs, _masks(), batch)
    assert got.logits.shape == (4, 3, 9, SIZES.vocab_size)
    logits = reconstruct.vocabulary(reconstruct.features(inputs, _masks()))[:, :, :10].detach().numpy()
    targets = torch.nn.functional.pad(batch.word_ids, (0, 1)).numpy()
    expected = oracles.reconstruction_nll(logits, targets, targets >= 0, 0.1)
    assert_agree("nll", got.nll, expected, atol=1e-12)


@pytest.mark.parametrize("num_negatives", [1, 2])
@pytest.mark.parametrize("num_best", [1, 2, 3])
@pytest.mark.parametrize("is_dropping", [False, True], ids=["kept", "dropped"])
def test_scores_are_those_of_each_mask_and_the_best_come_with_their_own_negatives(
    schedule: str, is_dropping: bool, num_best: int, num_negatives: int
) -> None:
    reconstruct, inputs = _reconstructor(schedule, losses__num_best=num_best), _inputs()
    sizes = (3, 3 * num_negatives, 1)
    parts = [_masks(n, is_dropping, seed=s) for s, n in enumerate(sizes)]
    candidates = Candidates(positives=parts[0], negatives=parts[1], whole_video=parts[2])
    got = reconstruct.score(inputs, candidates, BATCH)
    every = reconstruct(inputs, join_masks(parts), BATCH).nll
    positive, negative, whole = every.split(sizes, 1)
    best = oracles.best_proposals(positive.detach().numpy(), num_best)
    assert len({int(ks[0]) for ks in best}) > 1, "every sample has the same best; the test would see little"
    assert_agree("positive", got.positive_nll, positive, atol=1e-12)
    assert_agree("best", got.best, best)
    assert_agree("whole video", got.whole_video_nll, whole.squeeze(1), atol=1e-12)
    for b, ks in enumerate(best):
        assert_agree("best positive", got.best_nll[b], positive[b, list(ks)], atol=1e-12)
        for n, k in enumerate(ks):
            expected = negative[b, k * num_negatives : (k + 1) * num_negatives]
            assert_agree("best negative", got.negative_nll[b, n], expected, atol=1e-12)


def test_borrowed_stacks_are_run_and_stay_their_owners() -> None:
    owner = _reconstructor("shared")
    borrowing = Reconstructor(owner.config, SIZES.vocab_size, borrowed=owner).double()
    borrowing.vocabulary.load_state_dict(owner.vocabulary.state_dict())
    assert {name for name, _ in borrowing.named_parameters()} == {"vocabulary.weight", "vocabulary.bias"}
    assert {name.split(".")[0] for name in borrowing.state_dict()} == {"vocabulary"}
    assert_agree("features", borrowing.features(_inputs(), _masks()), owner.features(_inputs(), _masks()))


def test_segments_are_kept_as_in_the_published_code() -> None:
    kept = kept_segments(200, 4, torch.device("cpu")).tolist()
    assert kept[:18] == [*range(0, 65, 4), 69]
    assert kept[-2:] == [194, 199]
    assert len(kept) == 50
    for num_segments, stride in ((200, 4), (64, 4), (16, 4), (20, 4), (200, 2), (37, 5)):
        got = kept_segments(num_segments, stride, torch.device("cpu")).tolist()
        assert got == oracles_model.kept_segments(num_segments, stride), (num_segments, stride)
        assert len(set(got)) == len(got)


def test_fp32_keeps_other_segments_than_exact_arithmetic_for_41_sizes() -> None:
    sizes = range(8, 1025)
    device = torch.device("cpu")
    differs = [s for s in sizes if kept_segments(s, 4, device).tolist() != oracles_model.kept_segments(s, 4)]
    assert len(differs) == 41
    assert 200 not in differs


def test_stride_one_keeps_all_and_too_few_positions_are_refused() -> None:
    assert kept_segments(7, 1, torch.device("cpu")).tolist() == list(range(7))
    with pytest.raises(ValueError, match="7 segments at reconstructor.stride = 4: fewer than 2 mask positions"):
        kept_segments(7, 4, torch.device("cpu"))
