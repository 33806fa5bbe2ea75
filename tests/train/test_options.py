"""What a training cannot do is refused before it writes, and validation is due when the options say."""

from __future__ import annotations

import pytest

from pps_fast.config_tree import override
from pps_fast.distributed import ALONE, Place, World
from pps_fast.presets import PRESETS
from pps_fast.train.options import is_validation_due, require_separable
from tests.support.train_runs import run_small, small_config


@pytest.mark.parametrize("changes", [{"train__keep": "validation"}, {"train__evaluate_every": 1}])
def test_validation_without_a_split_or_a_scorer_is_refused_before_anything_is_written(changes, tmp_path):
    with pytest.raises(ValueError, match="needs a validation split.*--data.validation-fraction 0.1"):
        run_small(small_config(**changes), tmp_path / "run", evaluate=lambda model: {"mIoU": 0.0})
    with pytest.raises(ValueError, match="needs `evaluate`"):
        run_small(small_config(**changes, data__validation_fraction=0.2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_tensorboard_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    def refuse() -> None:
        raise ValueError("not installed")

    monkeypatch.setattr("pps_fast.train.options.require_tensorboard", refuse)
    with pytest.raises(ValueError, match="not installed"):
        run_small(small_config(train__tensorboard=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "due"),
    [
        ({}, []),
        ({"train__keep": "validation"}, [3, 6, 9, 10]),
        ({"train__evaluate_every": 2}, [6, 10]),
        ({"train__keep": "validation", "train__evaluate_every": 3}, [9, 10]),
    ],
)
def test_validation_is_due_after_so_many_epochs_and_after_the_last_update(options, due):
    train = small_config(**options).train
    assert [step for step in range(1, 11) if is_validation_due(train, step, 3, is_last=step == 10)] == due


@pytest.mark.parametrize(
    ("preset", "changes", "refused"),
    [
        ("charades_released", {}, "generator.width_source, reconstructor.word_cls, reconstructor.target_length: as in"),
        ("charades", {"reconstructor.target_length": "plus_one"}, "reconstructor.target_length: as in the published"),
        ("charades", {"generator.width_source": "across_batch"}, "generator.width_source"),
        ("alignment_demo", {}, "method = 'alignment': is fitted by one process"),
        ("charades", {"generator.width_source": "first"}, None),
        ("cnm", {}, None),
        ("cpl", {}, None),
        ("charades_align", {}, None),
    ],
)
def test_what_mixes_the_samples_of_a_batch_is_for_one_process(preset, changes, refused):
    config, world = override(PRESETS[preset], changes), World()
    world.place = Place(rank=1, size=2)
    require_separable(config, ALONE)
    if refused is None:
        require_separable(config, world)
        return
    with pytest.raises(ValueError, match=f"^{refused}"):
        require_separable(config, world)
