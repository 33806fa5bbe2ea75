"""Builds our model and batch from a golden file of the published code and pairs up what both computed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pps_fast.config import PPSConfig
from pps_fast.losses.objective import Objective
from pps_fast.model import PPS
from pps_fast.train.released import import_released, released_config
from pps_fast.types import Batch, FeatureSizes, LossReport, ModelOutput

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

    def config(self) -> PPSConfig:
        """Returns the config that computes what the file records."""
        return released_config(self.meta["model"], self.meta["loss"], repaired=self.meta["variant"] == "fixed")


@dataclass(frozen=True)
class Run:
    """Our model on a golden file's input, after the backward pass."""

    golden: Golden
    model: PPS
    batch: Batch
    output: ModelOutput
    report: LossReport
    captured: dict[str, Tensor]


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
        sample_index=torch.arange(len(words)),
    )


def model_of(golden: Golden, dtype: torch.dtype, config: PPSConfig | None = None) -> PPS:
    """Returns our model with the file's weights, in eval mode."""
    sizes = FeatureSizes(
        frame_dim=golden["in/frames_feat"].shape[2],
        word_dim=golden["in/words_feat"].shape[2],
        vocab_size=golden["state/fc_comp.weight"].shape[0],
        num_segments=golden["in/frames_feat"].shape[1],
    )
    model = PPS(config or golden.config(), sizes).to(dtype)
    import_released(model, golden.state())
    return model.eval()


def _capture_hidden(model: PPS, captured: dict[str, Tensor]):
    original = model.embed.hidden_query

    def hidden_query(batch: Batch, is_hidden: Tensor) -> Tensor:
        captured["is_hidden"] = is_hidden
        return original(batch, is_hidden)

    return hidden_query


def _capture_summaries(model: PPS, captured: dict[str, Tensor]):
    original = model.reconstruct.summaries

    def summaries(shared, masks: Tensor) -> Tensor:
        captured["summaries"] = original(shared, masks)
        return captured["summaries"]

    return summaries


def _capture_features(model: PPS, captured: dict[str, Tensor]):
    original = model.reconstruct.features

    def features(shared, masks: Tensor) -> Tensor:
        captured["features"] = original(shared, masks)
        return captured["features"]

    return features


def run_golden(golden: Golden, dtype: torch.dtype) -> Run:
    """Runs forward, losses and backward on a file's input."""
    model, batch = model_of(golden, dtype), batch_of(golden, dtype)
    captured: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module, inputs, result):
            captured[name] = result

        return hook

    for name in ("generator.video_stack", "reconstruct"):
        model.get_submodule(name).register_forward_hook(keep(name))
    model.embed.hidden_query = _capture_hidden(model, captured)
    # the last of its two calls is that of the proposals
    model.reconstruct.features = _capture_features(model, captured)
    model.reconstruct.summaries = _capture_summaries(model, captured)
    output = model(batch)
    report = Objective(model.config).to(batch.frames.device)(output)
    report.total.backward()
    return Run(golden=golden, model=model, batch=batch, output=output, report=report, captured=captured)
