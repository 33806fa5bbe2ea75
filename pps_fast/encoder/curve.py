"""The curve of a query along its video as an input of the generator, which the reconstructor does not see."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pps_fast.alignment.equations import zscored_curve
from pps_fast.config import CurveInput, PPSConfig
from pps_fast.encoder.positions import Positions


def _added(frames: Tensor, rows: Tensor) -> Tensor:
    """Adds the rows to those of the frames; v_cls, behind them, stays."""
    num_frames = rows.shape[1]
    return torch.cat((frames[:, :num_frames] + rows, frames[:, num_frames:]), 1)


def _only(frames: Tensor, rows: Tensor) -> Tensor:
    """Puts the rows in the place of the frames; v_cls, behind them, stays."""
    return torch.cat((rows, frames[:, rows.shape[1] :]), 1)


# embedded frames [B, n, D], rows of the curve [B, S, D] -> [B, n, D], by the names of `config.CurveInput`
CURVE_INPUTS: dict[CurveInput, Callable[[Tensor, Tensor], Tensor] | None] = {
    "none": None,
    "added": _added,
    "only": _only,
}


class CurveEmbedding(nn.Module):
    """Embeds the z-scored curve, one number a frame, with the position of the frame.

    A projection of frame and number side by side is the sum of a projection of each.
    """

    def __init__(self, config: PPSConfig) -> None:
        super().__init__()
        self._join = CURVE_INPUTS[config.encoder.curve]
        self.projection = None if self._join is None else nn.Linear(1, config.encoder.hidden_dim)
        self.positions = None if self._join is None else Positions(config.encoder.hidden_dim)

    def forward(self, frames: Tensor, curve: Tensor | None, frame_valid: Tensor) -> Tensor:
        """Joins the curve with the embedded frames, as the config says.

        Args:
            frames: [B, S + 1, D], v_cls last; or [B, S, D] without it.
            curve: [B, S] scores of frames; None for a model without an alignment.
            frame_valid: [B, S + 1] or [B, S] bool.
        Returns:
            As frames; the frames themselves with `encoder.curve` = 'none'.
        """
        if self._join is None or self.projection is None or self.positions is None or curve is None:
            return frames
        zeta = zscored_curve(curve, frame_valid[:, : curve.shape[1]])
        rows = self.positions(self.projection(zeta.to(self.projection.weight.dtype).unsqueeze(-1)))
        return self._join(frames, rows.to(frames.dtype))
