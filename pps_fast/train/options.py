"""Whether a training can do what its options ask for, and when it scores the validation split."""

from __future__ import annotations

from collections.abc import Callable

from pps_fast.config import PPSConfig, TrainConfig
from pps_fast.data.splits import Splits
from pps_fast.distributed import ALONE, World
from pps_fast.model import PPS
from pps_fast.runs.metrics_log import require_tensorboard

Evaluate = Callable[[PPS], dict[str, float]]


def check_options(config: PPSConfig, splits: Splits, evaluate: Evaluate | None, world: World = ALONE) -> None:
    """Raises ValueError where the options ask for tensorboard, a split, or a function to score by that are missing.

    And where several processes divide a batch whose samples depend on each other.
    """
    require_separable(config, world)
    if config.train.tensorboard:
        require_tensorboard()
    wanted = [f"train.keep = {config.train.keep!r}"] if config.train.keep == "validation" else []
    if config.train.evaluate_every > 0:
        wanted.append(f"train.evaluate_every = {config.train.evaluate_every}")
    if wanted and len(splits.validation) == 0:
        raise ValueError(
            f"{wanted[0]}: needs a validation split, and the data have none; "
            "hold out a part of the training videos with --data.validation-fraction 0.1"
        )
    if wanted and evaluate is None:
        raise ValueError(f"{wanted[0]}: needs `evaluate`; pass train the function that scores the model")


def require_separable(config: PPSConfig, world: World) -> None:
    """Refuses several processes for what they cannot divide among them.

    Raises:
        ValueError: where the loss of a sample depends on the others of its batch, or nothing has batches.
    """
    if world.size == 1:
        return
    if config.method == "alignment":
        raise ValueError("method = 'alignment': is fitted by one process, in seconds; start it without torchrun")
    mixing = {
        "generator.width_source": config.generator.width_source == "across_batch",
        "reconstructor.word_cls": config.reconstructor.word_cls == "scalar_per_batch_position",
        "reconstructor.target_length": config.reconstructor.target_length == "plus_one",
    }
    fields = [name for name, is_mixing in mixing.items() if is_mixing]
    if fields:
        raise ValueError(
            f"{', '.join(fields)}: as in the published code, a sample depends on the others of its batch, which cannot "
            "be divided among processes; train with a single process, or another preset"
        )


def is_validation_due(options: TrainConfig, step: int, steps_per_epoch: int, *, is_last: bool) -> bool:
    """Whether the validation split is scored after `step` updates: every so many epochs, and after the last update."""
    if options.keep != "validation" and options.evaluate_every == 0:
        return False
    epochs, rest = divmod(step, steps_per_epoch)
    return is_last or (rest == 0 and epochs % max(options.evaluate_every, 1) == 0)
