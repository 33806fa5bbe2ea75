"""Models of PPS's interface whose answers are known, on a small planted data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast.config import PlantedConfig, PPSConfig
from pps_fast.config_tree import override
from pps_fast.data.prepared import PreparedData
from pps_fast.data.splits import Splits, select_samples
from pps_fast.data.store import Store
from pps_fast.data.synthetic import planted_data
from pps_fast.presets import PRESETS
from pps_fast.types import Batch, Components, ModelOutput, Proposals

PLANTED = PlantedConfig(num_videos=40, num_segments=16, frame_dim=6)
CONFIG: PPSConfig = override(
    PRESETS["tiny"], {"data.planted": PLANTED, "inference.num_bootstrap": 100, "inference.batch_size": 16}
)
DATA: PreparedData = planted_data(PLANTED)
SPLITS: Splits = select_samples(DATA, CONFIG.data)


def store() -> Store:
    """Returns the planted data on the CPU."""
    return Store(DATA)


def output_of(nll: Tensor, spans: Tensor) -> ModelOutput:
    """Returns a model's output with nothing but what inference reads: nll [B, K], spans [B, K, 2]."""
    nothing = nll.new_zeros(len(nll), 0)
    components = Components(center=nothing, width=nothing, masks=nothing, log_masks=nothing)
    start, end = spans.unbind(-1)
    proposals = Proposals(
        components=components, importance=nothing, masks=nothing, log_masks=nothing, start=start, end=end
    )
    return ModelOutput(proposals=proposals, positive_nll=nll)


class Fake(nn.Module):
    """Remembers how it was called; `answer` decides what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.calls: list[tuple[int, bool, bool]] = []
        self.noise: dict[int, Tensor] = {}
        self.columns: dict[int, int] = {}

    def forward(self, batch: Batch, with_negatives: bool = True) -> ModelOutput:
        """Returns the output of `answer`, and notes batch size, with_negatives and training mode."""
        self.calls.append((len(batch.sample_index), with_negatives, self.training or self.dropout.training))
        for sample, noise in zip(batch.sample_index.tolist(), batch.word_noise, strict=True):
            self.noise.setdefault(sample, noise)
            assert torch.equal(self.noise[sample], noise), "a sample's hidden words changed"
            self.columns[sample] = batch.words.shape[1]
        return self.answer(batch)

    def answer(self, batch: Batch) -> ModelOutput:
        """Returns K = 3 proposals per sample, nll [B, 3] and spans [B, 3, 2]."""
        raise NotImplementedError


class KnowsTheQuery(Fake):
    """Answers every query with its own truth, whatever the video; the true moment has the lowest C."""

    def answer(self, batch: Batch) -> ModelOutput:
        truth = torch.from_numpy(DATA.moment)[batch.sample_index].float()
        wrong = torch.stack([truth * 0.01, 1 - truth * 0.01], dim=1).sort(dim=-1).values
        nll = torch.tensor([3.0, 1.0, 2.0]).expand(len(truth), 3)
        return output_of(nll, torch.cat([wrong[:, :1], truth[:, None], wrong[:, 1:]], dim=1))


class SeesOnlyTheVideo(Fake):
    """Answers with moments that depend on the frames alone; one of them leaves the video."""

    def answer(self, batch: Batch) -> ModelOutput:
        seed = batch.frames.flatten(1)[:, :6].sigmoid().unflatten(1, (3, 2))  # [B, 3, 2]
        spans = seed.sort(dim=-1).values + torch.tensor([0.0, 0.5])
        return output_of(seed.sum(dim=2) + 1, spans)
