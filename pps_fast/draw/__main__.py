"""python -m pps_fast.draw: pictures of queries, runs and what pull and push do."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
import tyro

from pps_fast.cli import Device, choose_device, exit_status
from pps_fast.config import PPSConfig
from pps_fast.config_tree import from_dict
from pps_fast.data.load import load_data
from pps_fast.data.prepared import PreparedData
from pps_fast.data.splits import select_samples
from pps_fast.data.store import Store
from pps_fast.draw.curves import draw_curves
from pps_fast.draw.style import render, require_matplotlib
from pps_fast.draw.timeline import draw_timeline
from pps_fast.draw.trajectories import TracedQuery, TracedRun, draw_trajectories
from pps_fast.draw.variants import draw_variants
from pps_fast.draw.view import View
from pps_fast.files import read_json, replace_bytes
from pps_fast.predict import predict
from pps_fast.proposals.layout import layout_of
from pps_fast.runs.checkpoint import load_model
from pps_fast.runs.metrics_log import METRICS_FILE, read_metrics
from pps_fast.runs.run_directory import CONFIG_FILE
from pps_fast.runs.trace import read_trace

if TYPE_CHECKING:
    from pps_fast.draw.style import Figure

DESCRIPTION = """Draws pictures of runs of `python -m pps_fast.train` (needs matplotlib: pip install 'pps_fast[plot]').

examples:
  python -m pps_fast.draw timeline --checkpoint runs/demo
  python -m pps_fast.draw timeline --checkpoint runs/demo --query "opens the door" --out door.svg
  python -m pps_fast.draw variants --checkpoints runs/demo runs/without_push --labels full "without push"
  python -m pps_fast.draw curves --runs runs/demo runs/without_push
  python -m pps_fast.train --train.trace-every 5 --out runs/traced
  python -m pps_fast.draw trajectories --runs runs/traced

Without --sample or --query the longest sentence of the split is drawn, the first of equals: the choice looks at no
model's answer.
"""


@dataclass(frozen=True, kw_only=True)
class _OfQuery:
    """Options of the pictures of one query."""

    sample: int | None = None
    """position of the sample in the data set"""
    query: str | None = None
    """words of the sentence: draw the first sample of the split that has them in a row"""
    split: Literal["test", "validation", "train"] = "test"
    """where a sample is looked for; with --sample it may be of any split"""
    data: Path | None = None
    """file written by `python -m pps_fast.prepare`; without one, what the checkpoint was trained on"""
    device: Device = "auto"
    """where the model runs; 'auto' is cuda where there is one"""
    out: Path | None = None
    """.png or .svg file; without one, a png of the picture's name in the first run's directory"""


@dataclass(frozen=True, kw_only=True)
class Timeline(_OfQuery):
    """one query: truth, proposals, what they are mixed of, and the vote"""

    checkpoint: Path
    """run directory, or one of its checkpoints"""


@dataclass(frozen=True, kw_only=True)
class Variants(_OfQuery):
    """one query: what several models answer (the paper's Fig. 5)"""

    checkpoints: tuple[Path, ...]
    """run directories, or checkpoints, trained on the same data"""
    labels: tuple[str, ...] = ()
    """a name for each; without them, the directories'"""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """learning curves: losses, gradient norm, learning rate, validation mIoU"""

    runs: tuple[Path, ...]
    """run directories"""
    labels: tuple[str, ...] = ()
    """a name for each; without them, the directories'"""
    out: Path | None = None
    """.png or .svg file; without one, curves.png in the first run's directory"""


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """how the components of a proposal move in training, of runs with --train.trace-every"""

    runs: tuple[Path, ...]
    """run directories, trained on the same data"""
    labels: tuple[str, ...] = ()
    """a name for each; without them, the directories'"""
    samples: tuple[int, ...] = ()
    """traced samples, a row for each; without them, those of the longest and of the shortest sentence"""
    proposal: int | None = None
    """1 to K; without one, the last, which has the most components in the paper's layout"""
    data: Path | None = None
    """file written by `python -m pps_fast.prepare`; without one, what the runs were trained on"""
    out: Path | None = None
    """.png or .svg file; without one, trajectories.png in the first run's directory"""


def _timeline(options: Timeline) -> tuple[Figure, Path]:
    (view,) = _views([options.checkpoint], options)
    return draw_timeline(view), options.checkpoint


def _variants(options: Variants) -> tuple[Figure, Path]:
    labels = _labels(options.labels, options.checkpoints)
    views = _views(options.checkpoints, options)
    return draw_variants(dict(zip(labels, views, strict=True))), options.checkpoints[0]


def _curves(options: Curves) -> tuple[Figure, Path]:
    labels = _labels(options.labels, options.runs)
    for run in options.runs:
        if not (run / METRICS_FILE).is_file():
            raise ValueError(f"{run}: no {METRICS_FILE}; expected a run directory of `python -m pps_fast.train`")
    runs = {label: read_metrics(run) for label, run in zip(labels, options.runs, strict=True)}
    return draw_curves(runs), options.runs[0]


def _trajectories(options: Trajectories) -> tuple[Figure, Path]:
    labels = _labels(options.labels, options.runs)
    lines = [read_trace(run) for run in options.runs]
    configs: list[PPSConfig] = [from_dict(PPSConfig, read_json(run / CONFIG_FILE, ("train",))) for run in options.runs]
    data = _same_data(options.runs, configs, options.data)
    for run, of_run in zip(options.runs, lines, strict=True):
        if not of_run or of_run[0]["samples"] != lines[0][0]["samples"]:
            raise ValueError(f"{run}: its trace is empty or of other samples than that of {options.runs[0]}")
    traced = {
        label: TracedRun(lines=of_run, layout=layout_of(config.proposals))
        for label, of_run, config in zip(labels, lines, configs, strict=True)
    }
    chosen = options.samples or _longest_and_shortest(data, lines[0][0]["samples"])
    queries = [TracedQuery(**_query(data, sample)) for sample in chosen]
    proposal = -1 if options.proposal is None else options.proposal - 1
    if options.proposal is not None and options.proposal < 1:
        raise ValueError(f"--proposal {options.proposal}: expected 1 or more")
    return draw_trajectories(traced, queries, proposal), options.runs[0]


def _longest_and_shortest(data: PreparedData, samples: list[int]) -> list[int]:
    """Returns two samples, the first of equals; one where all sentences are equally long."""
    words = data.num_words[samples]
    return list(dict.fromkeys([samples[int(words.argmax())], samples[int(words.argmin())]]))


def _query(data: PreparedData, sample: int) -> dict[str, Any]:
    """Returns what the annotations say of a sample."""
    if not 0 <= sample < data.num_samples:
        raise ValueError(f"sample {sample}: the data set has samples 0 to {data.num_samples - 1}")
    duration_s = float(data.duration_s[data.sample_video[sample]])
    # clipped to the video, as evaluation sees it
    start, end = (data.moment[sample] * duration_s).tolist()
    return {
        "sample": sample,
        "sentence": data.sentences[sample],
        "duration_s": duration_s,
        "moment_s": (start, end),
    }


def _labels(labels: tuple[str, ...], runs: Sequence[Path]) -> list[str]:
    """Returns a label for each run, all different."""
    if not runs:
        raise ValueError("no run was given; name at least one run directory")
    if labels and len(labels) != len(runs):
        raise ValueError(f"--labels: {len(labels)} labels for {len(runs)} runs; give one for each, in their order")
    names = list(labels) or [run.resolve().name for run in runs]
    if len(set(names)) != len(names):
        raise ValueError(f"two runs have the same label in {', '.join(names)}; name them apart with --labels")
    return names


def _same_data(runs: Sequence[Path], configs: Sequence[PPSConfig], path: Path | None) -> PreparedData:
    """Loads the data set that all runs were trained on, or the one at `path`."""
    if path is not None:
        return load_data(replace(configs[0].data, path=str(path)))
    origins = [config.data.path or config.data.planted for config in configs]
    for run, origin in zip(runs, origins, strict=True):
        if origin != origins[0]:
            raise ValueError(f"{run}: trained on another data set than {runs[0]}; choose one for both with --data")
    return load_data(configs[0].data)


def _views(checkpoints: Sequence[Path], options: _OfQuery) -> list[View]:
    """Asks the same query of every model."""
    device = choose_device(options.device)
    models = [load_model(checkpoint, device) for checkpoint in checkpoints]
    data = _same_data(checkpoints, [config for _, config, _ in models], options.data)
    for checkpoint, (_, _, sizes) in zip(checkpoints, models, strict=True):
        if data.sizes != sizes:
            raise ValueError(
                f"{checkpoint}: trained with {sizes}, the data set has {data.sizes}; choose it with --data"
            )
    store = Store(data, device)
    sample = _choose_sample(data, models[0][1], options)
    return [_view(model, config, store, sample) for model, config, _ in models]


def _choose_sample(data: PreparedData, config: PPSConfig, options: _OfQuery) -> int:
    if options.sample is not None and options.query is not None:
        raise ValueError("--sample and --query: give one of them")
    if options.sample is not None:
        return options.sample
    samples: np.ndarray = getattr(select_samples(data, config.data), options.split)
    if len(samples) == 0:
        raise ValueError(f"--split {options.split}: has no samples; choose another, or a sample with --sample")
    if options.query is None:
        return int(samples[data.num_words[samples].argmax()])
    words = " ".join(options.query.lower().split())
    for sample in samples.tolist():
        if words in " ".join(data.sentences[sample].lower().split()):
            return sample
    raise ValueError(f"--query {options.query!r}: no sentence of the {options.split} split has these words in a row")


def _view(model: torch.nn.Module, config: PPSConfig, store: Store, sample: int) -> View:
    """Asks one query as the evaluation does, in a batch of the same shape: the answer is the one that counted."""
    query, data = _query(store.data, sample), store.data
    samples = np.full(config.inference.batch_size, sample)
    with torch.inference_mode():
        output = _first(model(store.batch(samples, seed=config.inference.seed)))
    splits = select_samples(data, config.data)
    return View(
        **query,
        video_id=data.video_ids[data.sample_video[sample]],
        split=next((name for name in ("train", "validation", "test") if sample in getattr(splits, name)), "no split"),
        layout=layout_of(config.proposals),
        output=output,
        prediction=predict(output, config.inference.selector),
    )


def _first(record: Any) -> Any:
    """Returns a record of a batch's first sample, on the CPU."""
    if isinstance(record, torch.Tensor):
        return record[:1].cpu()
    if is_dataclass(record):
        return replace(record, **{item.name: _first(getattr(record, item.name)) for item in fields(record)})
    return record


def run(options: Timeline | Variants | Curves | Trajectories) -> int:
    """Draws, writes and says where; returns the exit status.

    Raises:
        ValueError: for runs, data or options that cannot be used, or matplotlib not installed.
    """
    require_matplotlib()
    name = type(options).__name__.lower()
    out = options.out
    if out is not None and (out.suffix not in (".png", ".svg") or not out.parent.is_dir()):
        raise ValueError(f"--out {out}: expected a .png or .svg file in a folder that exists")
    figure, place = PICTURES[type(options)](options)
    out = out or place / f"{name}.png"
    replace_bytes(out, render(figure, "svg" if out.suffix == ".svg" else "png"))
    print(f"written: {out}")
    return 0


PICTURES = {Timeline: _timeline, Variants: _variants, Curves: _curves, Trajectories: _trajectories}
Options = (
    Annotated[Timeline, tyro.conf.subcommand("timeline")]
    | Annotated[Variants, tyro.conf.subcommand("variants")]
    | Annotated[Curves, tyro.conf.subcommand("curves")]
    | Annotated[Trajectories, tyro.conf.subcommand("trajectories")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv

    def program() -> int:
        return run(tyro.cli(Options, args=list(argv), prog="python -m pps_fast.draw", description=DESCRIPTION))

    return exit_status(program)


if __name__ == "__main__":
    sys.exit(main())
