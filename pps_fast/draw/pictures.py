"""From the options of a picture to its file: reads runs and data, asks models, calls the drawing function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pps_fast.config import PPSConfig
from pps_fast.data.load import load_data
from pps_fast.data.prepared import PreparedData
from pps_fast.data.splits import select_samples
from pps_fast.data.store import Store
from pps_fast.devices import choose_device
from pps_fast.draw.curves import draw_curves
from pps_fast.draw.options import Curves, QueryOptions, Timeline, Trajectories, Variants
from pps_fast.draw.style import render, require_matplotlib
from pps_fast.draw.timeline import draw_timeline
from pps_fast.draw.trajectories import TracedQuery, TracedRun, draw_trajectories
from pps_fast.draw.variants import draw_variants
from pps_fast.draw.view import View
from pps_fast.eval.predictions import note_batch_memory
from pps_fast.files import replace_bytes
from pps_fast.model import PPS
from pps_fast.predict import evaluation_batch_size, predict
from pps_fast.proposals.layout import layout_of
from pps_fast.runs.checkpoint import load_pps, read_header, read_newest
from pps_fast.runs.matching import match_data
from pps_fast.runs.metrics_log import METRICS_FILE, read_metrics
from pps_fast.runs.records import read_config
from pps_fast.runs.trace import read_trace
from pps_fast.types import FeatureSizes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _timeline(options: Timeline) -> tuple[Figure, Path]:
    (view,) = _views([options.model], options)
    return draw_timeline(view), options.model


def _variants(options: Variants) -> tuple[Figure, Path]:
    labels = _labels(options.labels, options.models)
    views = _views(options.models, options)
    return draw_variants(dict(zip(labels, views, strict=True))), options.models[0]


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
    configs = [read_config(run) for run in options.runs]
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
    if not data.num_windows[sample]:
        raise ValueError(f"sample {sample}: has no times, and pictures show the true moment; choose another sample")
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
        return load_data(replace(configs[0].data, path=str(path), residence="auto"))
    origins = [config.data.path or config.data.planted for config in configs]
    for run, origin in zip(runs, origins, strict=True):
        if origin != origins[0]:
            raise ValueError(f"{run}: trained on another data set than {runs[0]}; choose one for both with --data")
    return load_data(replace(configs[0].data, residence="auto"))


def _views(checkpoints: Sequence[Path], options: QueryOptions) -> list[View]:
    """Asks the same query of every model."""
    device = choose_device(options.device)
    configs = [read_newest(checkpoint, "best", read_header).config for checkpoint in checkpoints]
    data = _same_data(checkpoints, configs, options.data)
    models = []
    for checkpoint in checkpoints:
        # one checkpoint for both, while a training may go on
        model, data = read_newest(
            checkpoint, "best", partial(_model_and_data, data=data, options=options, device=device)
        )
        models.append(model)
        sizes = model[2]
        if data.sizes != sizes:
            raise ValueError(
                f"{checkpoint}: trained with {sizes}, the data set has {data.sizes}; choose it with --data"
            )
    store = Store(data, device)
    sample = _choose_sample(data, models[0][1], options)
    return [_view(model, config, store, sample) for model, config, _ in models]


def _model_and_data(
    folder: Path, data: PreparedData, options: QueryOptions, device: torch.device
) -> tuple[tuple[PPS, PPSConfig, FeatureSizes], PreparedData]:
    matched, _ = match_data(folder, data, is_chosen=options.data is not None)
    return load_pps(folder, device), matched


def _choose_sample(data: PreparedData, config: PPSConfig, options: QueryOptions) -> int:
    if options.sample is not None and options.query is not None:
        raise ValueError("--sample and --query: give one of them")
    if options.sample is not None:
        return options.sample
    samples: np.ndarray = getattr(select_samples(data, config.data), options.split)
    samples = samples[data.num_windows[samples] > 0]
    if len(samples) == 0:
        raise ValueError(
            f"--split {options.split}: has no samples with times; choose another, or a sample with --sample"
        )
    if options.query is None:
        return int(samples[data.num_words[samples].argmax()])
    words = " ".join(options.query.lower().split())
    for sample in samples.tolist():
        if words in " ".join(data.sentences[sample].lower().split()):
            return sample
    raise ValueError(f"--query {options.query!r}: no sentence of the {options.split} split has these words in a row")


def _view(model: torch.nn.Module, config: PPSConfig, store: Store, sample: int) -> View:
    """Asks one query in a batch of the shape that the evaluation uses, so that the answer is the one it scored."""
    query, data = _query(store.data, sample), store.data
    note_batch_memory(config, store)
    samples = np.full(evaluation_batch_size(config, store.device), sample)
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
    if is_dataclass(record) and not isinstance(record, type):
        return replace(record, **{item.name: _first(getattr(record, item.name)) for item in fields(record)})
    return record


def draw(options: Timeline | Variants | Curves | Trajectories) -> Path:
    """Draws a picture and writes it; returns the file.

    Raises:
        ValueError: for runs, data or options that cannot be used, or matplotlib not installed.
    """
    require_matplotlib()
    name = type(options).__name__.lower()
    out = options.out
    if out is not None and (out.suffix not in (".png", ".svg") or not out.parent.is_dir()):
        raise ValueError(f"--out {out}: expected a .png or .svg file in a folder that exists")
    figure, folder = _PICTURES[type(options)](options)
    out = out or folder / f"{name}.png"
    replace_bytes(out, render(figure, "svg" if out.suffix == ".svg" else "png"))
    return out


_PICTURES: dict[type, Callable[[Any], tuple[Figure, Path]]] = {
    Timeline: _timeline,
    Variants: _variants,
    Curves: _curves,
    Trajectories: _trajectories,
}
