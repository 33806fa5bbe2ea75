"""Builds our model and batch from a golden file of the published code and pairs up what both computed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.config_tree import override
from pps_fast.losses import Objective
from pps_fast.model import PPS
from pps_fast.published.weights import import_released, released_config
from pps_fast.types import Batch, FeatureSizes, LossReport, MaskSet, ModelOutput, Reconstruction, ReconstructorInput

# larger than any log-probability, so that exactly the recorded words are hidden
_SURELY_HIDDEN = 1e4


class Golden:
    """A golden file: arrays by name, and its settings."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with np.load(self.path, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.meta = json.loads(str(self.arrays["meta/config_json"])) if "meta/config_json" in self.arrays else {}

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Returns an array as a tensor, as `dtype` if it is floating."""
        value = torch.from_numpy(np.array(self.arrays[name]))
        return value.to(dtype) if dtype is not None and value.is_floating_point() else value

    def state(self) -> dict[str, Tensor]:
        """Returns the published state dict."""
        return {name.removeprefix("state/"): self.tensor(name) for name in self.arrays if name.startswith("state/")}

    @property
    def progress(self) -> float:
        """Share of the training's epochs; only CPL's files say how many there are."""
        return float(self["in/epoch"]) / self.meta["model"]["max_epoch"] if "max_epoch" in self.meta["model"] else 0.0

    def config(self) -> PPSConfig:
        """Returns the config that computes what the file records."""
        return released_config(self.meta["model"], self.meta["loss"], repaired=self.meta["variant"] == "fixed")


@dataclass
class Captured:
    """What the model computes on its way.

    Attributes:
        is_hidden: [B, L] hidden words.
        g_cls: [B, D].
        video_rows: [B, S + 1, D] all rows of the generator's video stack; the model computes the last one only.
        summaries: [B, mixed components, D] r_cls, of a model that reads importance from them.
        inputs: of the reconstructor, with all tokens; the scoring passes leave out those that predict no word.
        reconstructions: of every scoring pass. Under the plain schedule it is one, of all masks; under the shared
            schedule one of the positives and one of the best positives, their negatives and the whole video.
    """

    is_hidden: Tensor | None = None
    g_cls: Tensor | None = None
    video_rows: Tensor | None = None
    summaries: Tensor | None = None
    inputs: ReconstructorInput | None = None
    reconstructions: list[Reconstruction] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """Our model on a golden file's input, after the backward pass."""

    golden: Golden
    model: PPS
    batch: Batch
    output: ModelOutput
    report: LossReport
    captured: Captured

    @property
    def schedule(self) -> str:
        """The reconstructor's schedule."""
        return self.model.config.reconstructor.schedule


def batch_of(golden: Golden, dtype: torch.dtype) -> Batch:
    """Returns the file's input; its hidden words become noise that hides exactly them."""
    words = golden.tensor("in/words_feat", dtype)[:, 1:]
    hidden = golden["in/hidden_positions"]
    noise = torch.zeros(words.shape[:2], dtype=dtype)
    for sample, positions in enumerate(hidden):
        noise[sample, positions[positions > 0] - 1] = _SURELY_HIDDEN
    num_words = golden.tensor("in/words_len")
    is_word = torch.arange(words.shape[1]) < num_words.unsqueeze(1)
    return Batch(
        frames=golden.tensor("in/frames_feat", dtype),
        num_frames=golden.tensor("in/frames_len"),
        words=words,
        word_ids=golden.tensor("in/words_id"),
        num_words=num_words,
        hide_prob=golden.tensor("in/weights", dtype).clamp(min=1e-6) * is_word,
        word_noise=noise,
        dropout_key=torch.zeros(len(words), dtype=torch.int32),
        sample_index=torch.arange(len(words)),
        progress=torch.full((len(words),), golden.progress, dtype=dtype),
    )


def model_of(golden: Golden, dtype: torch.dtype, config: PPSConfig | None = None) -> PPS:
    """Returns our model with the file's weights, in eval mode."""
    sizes = FeatureSizes(
        frame_dim=golden["in/frames_feat"].shape[2],
        word_dim=golden["in/words_feat"].shape[2],
        vocab_size=golden["state/fc_rec.weight" if "state/fc_rec.weight" in golden else "state/fc_comp.weight"].shape[
            0
        ],
        num_segments=golden["in/frames_feat"].shape[1],
    )
    model = PPS(config or golden.config(), sizes).to(dtype)
    import_released(model, golden.state())
    return model.eval()


def listen(model: PPS) -> Captured:
    """Returns a record that fills while the model runs."""
    captured = Captured()
    hidden_query, video_stack = model.embed.hidden_query, model.generator.video_stack
    summaries, vocabulary = model.reconstruct.summaries, model.reconstruct.vocabulary
    reconstruct, predicting_tokens = vocabulary.reconstruct, vocabulary.predicting_tokens
    run_video = video_stack.forward

    def hear_hidden(batch: Batch, is_hidden: Tensor, dropout_key: Tensor | None) -> Tensor:
        captured.is_hidden = is_hidden
        return hidden_query(batch, is_hidden, dropout_key)

    def hear_video(x: Tensor, keys: Any, context: Any, row: Tensor | None = None) -> Tensor:
        result = run_video(x, keys, context, row)
        if row is None:
            # a pass of the reconstructor, which may share the stack
            return result
        captured.g_cls = result.squeeze(1)
        with torch.no_grad():
            captured.video_rows = run_video(x, keys, context)
        return result

    def hear_summaries(inputs: Any, masks: MaskSet) -> Tensor:
        captured.summaries = summaries(inputs, masks)
        return captured.summaries

    def hear_reconstructions(*inputs: Any) -> Reconstruction:
        captured.reconstructions.append(reconstruct(*inputs))
        return captured.reconstructions[-1]

    def hear_inputs(inputs: ReconstructorInput, batch: Batch) -> ReconstructorInput:
        captured.inputs = inputs
        return predicting_tokens(inputs, batch)

    model.embed.hidden_query, video_stack.forward = hear_hidden, hear_video
    model.reconstruct.summaries = hear_summaries
    vocabulary.reconstruct, vocabulary.predicting_tokens = hear_reconstructions, hear_inputs
    return captured


def run_golden(golden: Golden, dtype: torch.dtype, changes: dict[str, Any]) -> Run:
    """Runs forward, losses and backward on a file's input, under the file's config with dotted changes."""
    model, batch = model_of(golden, dtype, override(golden.config(), changes)), batch_of(golden, dtype)
    captured = listen(model)
    output = model(batch)
    report = Objective(model.config).to(batch.frames.device)(output)
    report.total.backward()
    return Run(golden=golden, model=model, batch=batch, output=output, report=report, captured=captured)
