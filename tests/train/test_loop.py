"""The loop: deterministic, honest about its best checkpoint, safe against losses that are not finite."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pps_fast.config_tree import override
from pps_fast.data.sampler import epoch_batches
from pps_fast.data.store import Store
from pps_fast.files import Note
from pps_fast.model import PPS
from pps_fast.runs.checkpoint import find_checkpoint, load_model, read_header
from pps_fast.runs.metrics_log import read_metrics
from pps_fast.runs.pointers import read_pointer
from pps_fast.train.loop import train
from pps_fast.train.optimizer import Adam
from pps_fast.train.schedule import learning_rate
from pps_fast.train.watch import NonFiniteLossError
from tests.support.train_runs import STEPS_PER_EPOCH, run_small, small_config, small_input, weights

VALIDATED = {"train__keep": "validation", "data__validation_fraction": 0.2}


def _scripted(scores):
    """Returns an evaluate callable that gives these scores in turn, and draws random numbers on the way."""
    remaining = iter(scores)

    def evaluate(model):
        assert not model.training
        torch.rand(100)
        return {"mIoU": next(remaining)}

    return evaluate


def _training_lines(run):
    return [line for line in read_metrics(run) if "loss" in line]


def test_same_seed_gives_the_same_bytes_whatever_torch_drew_before(tmp_path):
    torch.manual_seed(123)
    run_small(small_config(train__max_steps=4), tmp_path / "a")
    torch.rand(7)
    run_small(small_config(train__max_steps=4), tmp_path / "b")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    run_small(small_config(train__max_steps=4, train__seed=9), tmp_path / "c")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


def test_the_share_of_the_epochs_begun_is_what_the_model_sees(tmp_path, monkeypatch):
    seen = []
    forward = PPS.forward
    monkeypatch.setattr(
        PPS,
        "forward",
        lambda model, batch, *others, **options: (
            (model.training and seen.append(batch.progress.tolist())) or forward(model, batch, *others, **options)
        ),
    )
    run_small(small_config(train__epochs=4, train__max_steps=2 * STEPS_PER_EPOCH), tmp_path)
    assert [row[0] for row in seen] == [0.25] * STEPS_PER_EPOCH + [0.5] * STEPS_PER_EPOCH


def test_every_step_is_logged_with_rate_loss_and_terms(tmp_path):
    config = small_config(train__epochs=1, losses__pull=0.0)
    result = run_small(config, tmp_path)
    assert (result.step, result.stopped_by, result.model.training) == (STEPS_PER_EPOCH, None, True)
    lines = _training_lines(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, STEPS_PER_EPOCH + 1))
    for line in lines:
        assert line["lr"] == learning_rate(line["step"] - 1, config.train)
        weighted = sum(getattr(config.losses, name) * value for name, value in line["terms"].items())
        assert line["loss"] == pytest.approx(weighted, rel=1e-5)
        # a term of weight 0 is not computed, so it is not reported either
        assert sorted(line["terms"]) == ["contrastive", "push_inter", "push_intra", "reconstruction"]
        assert line["epoch"] == 1 and line["grad_norm"] > 0 and line["samples_per_s"] > 0
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)


def test_every_update_is_made_at_the_rate_of_its_number(tmp_path, monkeypatch):
    config = small_config(train__max_steps=7, train__warmup_updates=4)
    rates = []
    update = Adam.clip_and_step

    def recorded(adam, *arguments):
        rates.append(adam.param_groups[0]["lr"].item())
        return update(adam, *arguments)

    monkeypatch.setattr(Adam, "clip_and_step", recorded)
    run_small(config, tmp_path)
    w, low, high = 4, config.train.warmup_learning_rate, config.train.learning_rate
    # the first update has the lowest rate, update w + 1 the highest, and then it falls as the root of the updates done
    warm_up = [low + done * (high - low) / w for done in range(w)]
    assert rates == pytest.approx(warm_up + [high * math.sqrt(w / done) for done in range(w, 7)], rel=1e-12)


def test_every_epoch_has_its_own_order_and_hidden_words(tmp_path):
    config = small_config(train__max_steps=STEPS_PER_EPOCH + 2)
    store, splits = small_input(config)
    seen = []

    class Spy(Store):
        def gather(self, index, *others):
            # the pass it belongs to decides which words are hidden
            if self._pass[0] == config.train.seed:
                seen.append((index.tolist(), self._pass))
            return super().gather(index, *others)

    train(config, Spy(store.data), splits, tmp_path, progress=False)
    expected = []
    for epoch in (0, 1):
        for samples in epoch_batches(splits.train, config.train.batch_size, config.train.seed, epoch):
            expected.append((samples.tolist(), (config.train.seed, epoch)))
    assert seen == expected[: len(seen)] and len(seen) == STEPS_PER_EPOCH + 2


def test_log_every_thins_the_log_but_keeps_the_last_step(tmp_path):
    run_small(small_config(train__max_steps=5, train__log_every=3), tmp_path)
    assert [line["step"] for line in _training_lines(tmp_path)] == [3, 5]


def test_run_stopped_by_max_steps_and_extended_equals_the_long_run(tmp_path):
    long = small_config(train__max_steps=9)
    run_small(long, tmp_path / "long")
    # 4 ends inside the first epoch, 7 just after it
    for number, steps in enumerate((4, 7, 9)):
        run_small(small_config(train__max_steps=steps), tmp_path / "parts", resume=number > 0)
        header = read_header(find_checkpoint(tmp_path / "parts"))
        assert (header.step, header.epoch, header.batch) == (steps, *divmod(steps, STEPS_PER_EPOCH))
    assert weights(tmp_path / "long") == weights(tmp_path / "parts")


def test_last_checkpoint_is_the_best_where_nothing_chose_one(tmp_path):
    run_small(small_config(train__max_steps=3), tmp_path)
    assert read_pointer(tmp_path, "best") is None
    assert find_checkpoint(tmp_path, "best") == find_checkpoint(tmp_path, "latest")


def test_best_checkpoint_is_that_of_the_highest_validation_score(tmp_path):
    config = small_config(train__epochs=4, **VALIDATED)
    result = run_small(config, tmp_path, evaluate=_scripted([0.1, 0.3, 0.3, 0.2]))
    best = read_pointer(tmp_path, "best")
    per_epoch = result.step // 4
    # of equal scores the first stays
    assert (best["step"], best["mIoU"]) == (2 * per_epoch, 0.3)
    assert find_checkpoint(tmp_path, "latest").name == f"step_{result.step:06d}"
    scored = [(line["step"], line["validation"]["mIoU"]) for line in read_metrics(tmp_path) if "validation" in line]
    assert scored == [(per_epoch * n, score) for n, score in zip((1, 2, 3, 4), (0.1, 0.3, 0.3, 0.2), strict=True)]
    chosen = load_model(tmp_path)[0].state_dict()
    assert any(not torch.equal(value, result.model.state_dict()[name]) for name, value in chosen.items())


def test_validation_does_not_disturb_the_training(tmp_path):
    config = small_config(train__epochs=2, data__validation_fraction=0.2)
    run_small(config, tmp_path / "plain")
    scored = override(config, {"train.evaluate_every": 1})
    run_small(scored, tmp_path / "scored", evaluate=_scripted([0.1, 0.2]))
    assert weights(tmp_path / "plain") == weights(tmp_path / "scored")
    assert read_pointer(tmp_path / "scored", "best") is None


def test_evaluate_every_counts_epochs_and_always_ends_with_one(tmp_path):
    config = small_config(train__epochs=3, train__evaluate_every=2, data__validation_fraction=0.2)
    run_small(config, tmp_path, evaluate=_scripted([0.1, 0.2]))
    assert [line["epoch"] for line in read_metrics(tmp_path) if "validation" in line] == [2, 3]


def _late_sample(data, samples, config):
    """Returns a sample whose video no other training sample shows, with training samples that bring it up late."""
    for sample in samples:
        others = samples[data.sample_video[samples] != data.sample_video[sample]]
        train = np.sort(np.append(others, sample))
        batches = epoch_batches(train, config.train.batch_size, config.train.seed, 0)
        number = next(i for i, batch in enumerate(batches) if sample in batch)
        if number == 3:
            return int(sample), train, batches[number]
    raise AssertionError("no sample comes up in the fourth batch")


def test_nan_feature_stops_with_its_sample_named_and_keeps_the_last_good_checkpoint(tmp_path):
    config = small_config(train__epochs=1)
    store, splits = small_input(config)
    sample, samples, batch = _late_sample(store.data, splits.train, config)
    features = store.data.features.copy()
    features[store.data.sample_video[sample], 3, 1] = float("nan")
    data = replace(store.data, features=features)
    with pytest.raises(NonFiniteLossError) as caught:
        train(config, Store(data), replace(splits, train=samples), tmp_path, progress=False)
    message, video = str(caught.value), data.video_ids[data.sample_video[sample]]
    assert message.startswith("update 4, epoch 1: loss nan")
    assert f"not finite: samples {sample} (video {video!r}, sentence {data.sentences[sample]!r});" in message
    assert f"samples of the batch: {', '.join(map(str, batch))}." in message
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]
    # checkpoints are written after every second update
    checkpoint = find_checkpoint(tmp_path)
    assert checkpoint.name == "step_000002" and str(checkpoint) in message
    assert all(torch.isfinite(value).all() for value in load_model(tmp_path)[0].state_dict().values())


def test_training_whose_loss_explodes_without_leaving_the_finite_numbers_says_so(tmp_path):
    config = small_config(train__epochs=1, train__learning_rate=1e3, train__warmup_updates=1)
    with pytest.warns(Note, match=r"the loss rose from .* lower train\.learning_rate"):
        run_small(config, tmp_path)
