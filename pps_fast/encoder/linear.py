"""Linear layers outside the transformers' blocks."""

from __future__ import annotations

from torch import Tensor, nn

from pps_fast.ops.linear import linear


class Linear(nn.Linear):
    """A linear layer that chooses its backend, else as torch's.

    Args:
        in_features, out_features: widths of input and result.
        backend: see `config.PPSConfig`.
    """

    def __init__(self, in_features: int, out_features: int, backend: str) -> None:
        super().__init__(in_features, out_features)
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        return linear(x, self.weight, self.bias, self.backend)
