"""The training loop: epochs of deterministic batches, metrics, checkpoints, and a stop that loses no step."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from pps_fast.config import PPSConfig
from pps_fast.data.sampler import epoch_batches
from pps_fast.data.splits import Splits
from pps_fast.data.store import Store
from pps_fast.distributed import ALONE, World
from pps_fast.files import Note
from pps_fast.model import PPS, Model
from pps_fast.runs.checkpoint import TRAINING_FILE, read_header, restore
from pps_fast.runs.environment import differences_that_move_bits
from pps_fast.runs.lock import owning
from pps_fast.runs.model_folder import ModelInputs
from pps_fast.runs.run_directory import open_run
from pps_fast.train.alternating import TRAIN_STEPS
from pps_fast.train.cross_fit import begin_alignment, inputs_of_model
from pps_fast.train.cuda_graph import step_of
from pps_fast.train.interrupt import StopRequest
from pps_fast.train.options import Evaluate, check_options, is_validation_due
from pps_fast.train.progress import Progress
from pps_fast.train.run_files import RunFiles
from pps_fast.train.schedule import learning_rate
from pps_fast.train.state import load_training_state, take_statistics
from pps_fast.train.step import StepReport
from pps_fast.train.video_gain import VideoGain
from pps_fast.train.watch import FiniteWatch


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a training ended.

    Attributes:
        model: after the last update, in train mode; or as fitted.
        step: updates done in all.
        stopped_by: number of the signal that stopped it early, or None.
        ensure_saved: writes the last checkpoint again where the run directory was deleted after the training; for the
            owner of the run directory (see `runs.lock`).
    """

    model: Model
    step: int
    stopped_by: int | None
    ensure_saved: Callable[[], None] = lambda: None


def train(
    config: PPSConfig,
    store: Store,
    splits: Splits,
    directory: str | Path,
    *,
    resume: bool = False,
    evaluate: Evaluate | None = None,
    progress: bool = True,
    world: World = ALONE,
) -> TrainResult:
    """Trains a model on `splits.train` and leaves config, metrics and checkpoints in `directory`.

    Everything random follows from `config.train.seed`: the initial weights by torch's generators, all else by counters.
    A resumed run continues bit-identically on the same kind of device, torch and number of threads.

    Args:
        store: data on the device that trains.
        splits: which samples train; the test split is not touched.
        directory: run directory; empty or new without `resume`.
        evaluate: returns the metrics of a model on the validation split, among them "mIoU".
        progress: show on stderr how far the training is: a bar on a terminal, else a line every `log_every` steps.
        world: processes that divide each batch among them. They compute what one process does, up to the order of sums.

    Raises:
        ValueError: for a run directory that cannot be used or is in use, no validation split, or no tensorboard.
        NonFiniteLossError: when loss or gradient is not finite; the last checkpoint stays.
    """
    check_options(config, splits, evaluate, world)
    run = Path(directory)
    with owning(run) if world.is_first else nullcontext() as lock:
        trainer = _Trainer(config, splits, evaluate, RunFiles(run, config, store, lock, world.size), world)
        trainer.restore(_open(trainer, resume), progress and world.is_first)
        with (
            trainer.files.open(splits.train, trainer.step),
            StopRequest(is_shown=world.is_first) as stop,
            trainer.progress(is_shown=progress and world.is_first) as bar,
        ):
            stopped_by = trainer.run_steps(stop, bar)
    return trainer.result(stopped_by)


def _open(trainer: _Trainer, resume: bool) -> Path | None:
    """Opens the run directory in the first process; returns, in all, the checkpoint to continue from."""
    files, checkpoint = trainer.files, None
    if trainer.world.is_first:
        # the first to write: all that can be refused was refused before
        checkpoint = open_run(files.run, trainer.config, files.data, files.store.device.type, resume)
    name = trainer.world.tell("" if checkpoint is None else checkpoint.name)
    return files.run / "checkpoints" / name if name else None


class _Trainer:
    """The state of a run; its position in the data follows from the number of updates."""

    def __init__(
        self, config: PPSConfig, splits: Splits, evaluate: Evaluate | None, files: RunFiles, world: World
    ) -> None:
        self.config, self.store, self.samples, self.evaluate = config, files.store, splits.train, evaluate
        self.files, self.world, options, store = files, world, config.train, files.store
        torch.manual_seed(options.seed)
        self.model = PPS(config, store.sizes).to(store.device).train()
        self.train_step = TRAIN_STEPS[options.update](self.model, config, world)
        self.run_step = step_of(self.train_step, store, options)
        self.steps_per_epoch = -(-len(self.samples) // options.batch_size)
        self.watch = FiniteWatch(self.train_step, store.data, self.steps_per_epoch)
        self.last_step = min(options.epochs * self.steps_per_epoch, options.max_steps or 2**62)
        self.gain = VideoGain(config, store, splits)
        self.step, self._samples_since_mark = 0, 0
        self._begin = self._mark = time.perf_counter()

    @cached_property
    def inputs(self) -> ModelInputs:
        """What the saved models need besides their weights; computed for the first of them."""
        return inputs_of_model(self.model, self.store, self.samples)

    @property
    def epoch(self) -> int:
        """Pass over the data of the last update, from 1."""
        return -(-self.step // self.steps_per_epoch)

    def progress(self, *, is_shown: bool) -> Progress:
        """Returns what shows how far the training is."""
        return Progress(total=self.last_step, done=self.step, epochs=self.config.train.epochs, is_shown=is_shown)

    def restore(self, checkpoint: Path | None, progress: bool) -> None:
        """Restores the state at `checkpoint`; None starts at the beginning, with what the training videos decide."""
        begin_alignment(self.model, self.store, self.samples, is_fitted=checkpoint is not None, progress=progress)
        if checkpoint is None:
            take_statistics(self.model, self.inputs)
            self._begin_equal()
            return
        tensors = restore(checkpoint, self.model)
        try:
            load_training_state(self.model, self.train_step.optimizers, tensors)
        except ValueError as error:
            raise ValueError(f"{checkpoint / TRAINING_FILE}: {error}") from error
        header = read_header(checkpoint)
        changed = differences_that_move_bits(header.environment, self.world.size)
        if changed is not None and header.device == "cpu":
            warnings.warn(changed, Note, stacklevel=2)
        self.step, self.files.latest = header.step, checkpoint
        self._begin -= header.elapsed_s
        self._begin_equal()

    def _begin_equal(self) -> None:
        """Gives all processes the weights of the first one, and refuses one that has another past."""
        self.world.require_same(step=self.step, data=self.files.data["content"], samples=len(self.samples))
        for tensor in self.model.state_dict().values():
            self.world.broadcast_(tensor)

    def run_steps(self, stop: StopRequest, shown: Progress) -> int | None:
        """Trains to the last step or to a signal; after each step: log, trace, score and save what is due.

        Returns:
            Number of the signal that any of the processes has received, or None.
        """
        options, stopped_by = self.config.train, 0
        if self.step == 0:
            self._trace(is_last=False)
        epoch_of_batches, batches = -1, []
        while self.step < self.last_step and not stopped_by:
            epoch, position = divmod(self.step, self.steps_per_epoch)
            if epoch != epoch_of_batches:
                epoch_of_batches = epoch
                batches = epoch_batches(self.samples, options.batch_size, options.seed, epoch)
                shown.begin_epoch(epoch + 1)
            report = self._train_on(batches[position], epoch)
            self.run_step.read_ahead(batches[position + 1 : position + 3])
            shown.update()
            is_last = self.step == self.last_step
            is_epoch_end = position + 1 == self.steps_per_epoch
            if is_last or self.step % options.log_every == 0:
                self._log(report, shown)
            self._trace(is_last)
            score = None
            if is_last or is_epoch_end:
                self._measure_gain()
                score = self._validate(is_last)
            # read once: a signal after this line stops the loop after the next step, which is then saved
            stopped_by = self.world.largest(stop.signal or 0)
            if is_last or is_epoch_end or stopped_by or self.step % options.checkpoint_every == 0:
                self.files.rewrite_deleted()
                self._save(score)
        return self.world.largest(stop.signal or 0) or None

    def _train_on(self, samples: np.ndarray, epoch: int) -> StepReport:
        for optimizer in self.train_step.optimizers:
            optimizer.set_learning_rate(learning_rate(self.step, self.config.train))
        self.store.begin_pass(self.config.train.seed, epoch, progress=(epoch + 1) / self.config.train.epochs)
        report = self.run_step(samples)
        self.step += 1
        self._samples_since_mark += len(samples)
        self.watch.add(self.step, samples, report)
        # reading the flag costs nothing on the CPU; on a GPU it would wait for the step
        if self.store.device.type == "cpu":
            self._check()
        return report

    def _check(self) -> None:
        """Raises NonFiniteLossError if a step since the last check was not finite."""
        self.watch.check(self.files.latest)

    def _log(self, report: StepReport, shown: Progress) -> None:
        """Writes a line of metrics and shows its main figures."""
        self._check()
        loss = report.loss
        total, norm, *terms = torch.stack([loss.total, report.grad_norm, *loss.terms.values()]).tolist()
        now = time.perf_counter()
        samples_per_s = self._samples_since_mark / (now - self._mark)
        self._mark, self._samples_since_mark = now, 0
        self.files.log(
            {
                "step": self.step,
                "epoch": self.epoch,
                "lr": learning_rate(self.step - 1, self.config.train),
                "loss": total,
                "terms": dict(zip(loss.terms, terms, strict=True)),
                "grad_norm": norm,
                "seconds": now - self._begin,
                "samples_per_s": samples_per_s,
            }
        )
        shown.log(step=self.step, epoch=self.epoch, loss=total, samples_per_s=samples_per_s)

    def _trace(self, is_last: bool) -> None:
        """Writes a line of the trace if one is due; time spent here is no training speed."""
        if self.files.is_trace_due(self.step, is_last=is_last):
            self._check()
            began = time.perf_counter()
            self.files.trace(self.model, self.step)
            self._mark += time.perf_counter() - began

    def _measure_gain(self) -> None:
        """Writes what the video tells the model; may warn from half of the updates on: before, no model knows much."""
        self._check()
        if not self.world.is_first:
            # it is small, and nothing follows from it
            return
        began = time.perf_counter()
        line = self.gain.line(self.model, self.step, self.epoch)
        self._mark += time.perf_counter() - began
        if line is not None:
            self.files.log(line)
            if 2 * self.step >= self.last_step:
                self.gain.warn(line["video_gain"])

    def _validate(self, is_last: bool) -> float | None:
        """Scores the model on the validation split if that is due now, and returns its mIoU."""
        evaluate, options = self.evaluate, self.config.train
        if evaluate is None or not is_validation_due(options, self.step, self.steps_per_epoch, is_last=is_last):
            return None
        self._check()
        began = time.perf_counter()
        with torch.no_grad():
            metrics = evaluate(self.model.eval())
        self.model.train()
        # time spent here is no training speed
        self._mark += time.perf_counter() - began
        self.files.log({"step": self.step, "epoch": self.epoch, "validation": metrics})
        return metrics["mIoU"]

    def _save(self, score: float | None) -> None:
        """Writes a checkpoint; `score` is the model's mIoU on the validation split, if it was measured now."""
        self._check()
        header = self.files.header(self.step, self.steps_per_epoch, self._begin)
        self.files.save(self.train_step, self.inputs, header, score)

    def result(self, stopped_by: int | None) -> TrainResult:
        """Returns how the training ended; `stopped_by` is the signal that stopped it early.

        Warns:
            Note: where the loss has grown out of all proportion.
        """
        self.watch.warn_if_diverged()
        return TrainResult(model=self.model, step=self.step, stopped_by=stopped_by, ensure_saved=self._ensure_saved)

    def _ensure_saved(self) -> None:
        """Saves again where the run directory was deleted after the last step."""
        if self.files.rewrite_deleted():
            self._save(None)
