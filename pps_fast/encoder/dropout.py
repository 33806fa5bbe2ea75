"""The places of a model where dropout happens: each decides with a number of its own, by counters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pps_fast.config import PPSConfig
from pps_fast.ops.residual_norm import residual_norm
from pps_fast.randomness import dropout, mix


class DropoutSite(nn.Module):
    """A place with dropout. `number_sites` gives every place of a model its number."""

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        self.rate = config.encoder.dropout
        self.site = 0


class Dropout(DropoutSite):
    """Dropout by counters (see `counters.dropout`)."""

    def forward(self, x: Tensor, key: Tensor | None) -> Tensor:
        """[G, n, D] -> [G, n, D]; `key` [G] int32 of the sequences, None for no dropout."""
        return x if key is None else dropout(x, mix(key, self.site), self.rate)


class ResidualNorm(DropoutSite):
    """LayerNorm(x + dropout(branch)), the end of every sub-layer."""

    def __init__(self, config: PPSConfig) -> None:
        super().__init__(config)
        self.backend = config.backend
        self.weight = nn.Parameter(torch.ones(config.encoder.hidden_dim))
        self.bias = nn.Parameter(torch.zeros(config.encoder.hidden_dim))

    def forward(self, x: Tensor, branch: Tensor, key: Tensor | None, first_row: Tensor | None = None) -> Tensor:
        """[G, n, D] -> [G, n, D]; `first_row` [G] is the position of the first row in its sequence."""
        dropping = (key, self.site, self.rate, first_row)
        return residual_norm(x, branch, self.weight, self.bias, *dropping, backend=self.backend)


def number_sites(model: nn.Module) -> None:
    """Numbers the places of a model in the order of its modules."""
    sites = [module for module in model.modules() if isinstance(module, DropoutSite)]
    for number, site in enumerate(sites):
        site.site = number


def mask_keys(key: Tensor, num_masks: int) -> Tensor:
    """Keys of the sequences that are reconstructed from the masks of each sample: [B] int32 -> [B, N] int32.

    None is the sample's own key, with which its other sequences decide.
    """
    number = torch.arange(1, num_masks + 1, dtype=torch.int32, device=key.device)
    # two rounds, so that no mask meets another place of its sample
    return mix(mix(key.unsqueeze(1), -number), number)
