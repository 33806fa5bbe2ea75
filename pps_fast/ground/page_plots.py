"""Pictures of a page of answers, as SVG: bars of answers, the curve of a sentence, proposals, a scale of time.

Positions along the video are percent of the picture's width, so that text keeps its shape at any width; only lines
of curves are stretched. All text is escaped by whoever passes it; these pictures have numbers alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pps_fast.ground.evidence import ProposalShape

_LANE, _CURVE_HEIGHT, _PROPOSAL_HEIGHT = 20, 64, 46
# units of a stretched picture, fine enough for a wide screen
_UNITS = 1000
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_MAX_TICKS = 6


def clock(seconds: float) -> str:
    """Returns a time as minutes and seconds with tenths, 0:07.5, with hours where there are some."""
    tenths = round(10 * seconds)
    hours, minutes, rest = tenths // 36000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def answer_bars(answers: Sequence[tuple[int, str, float, float]]) -> str:
    """Returns a bar for each answer, in as few lanes as keep them apart.

    Args:
        answers: rank, id of the bar, start and end as fractions of the video; the best one has rank 1.
    """
    lanes: list[float] = []
    bars, numbers = [], []
    for rank, name, start, end in sorted(answers, key=lambda answer: answer[2]):
        lane = next((index for index, taken in enumerate(lanes) if taken <= start), len(lanes))
        lanes[lane : lane + 1] = [end]
        look, y = " first" if rank == 1 else "", lane * _LANE
        bars.append(
            f'<rect id="{name}" class="bar{look}" x="{_percent(start)}" y="{y + 2}" width="{_percent(end - start)}" '
            f'height="{_LANE - 4}" rx="3"/>'
        )
        numbers.append(
            f'<text class="number{look}" x="{_percent((start + end) / 2)}" y="{y + _LANE / 2 + 4:g}">{rank}</text>'
        )
    label = ", ".join(f"answer {rank} from {100 * start:.0f} to {100 * end:.0f} %" for rank, _, start, end in answers)
    return _picture(max(len(lanes), 1) * _LANE, "".join(bars + numbers), f"Answers along the video: {label}")


def curve_plot(curve: tuple[np.ndarray, np.ndarray], low: float, high: float, best: tuple[float, float]) -> str:
    """Returns a curve above the moment of the best answer.

    Args:
        curve: fractions of the video, and scores.
        low, high: scores at the bottom and the top.
        best: start and end of that moment, as fractions of the video.
    """
    points, scores = curve
    heights = np.clip((scores - low) / (high - low), 0, 1) if high > low else np.full_like(scores, 0.5)
    line = _line(points, heights)
    moment = f'<rect class="moment" x="{_percent(best[0])}" y="0" width="{_percent(best[1] - best[0])}" height="100%"/>'
    first, last = round(_UNITS * float(points[0])), round(_UNITS * float(points[-1]))
    path = f'<path class="under" d="{line}V{_UNITS}H{first}Z"/>' if last > first else ""
    path += f'<path class="curve" d="{line}" vector-effect="non-scaling-stroke"/>'
    label = f"Fit of each part of the video; the highest is at {100 * float(points[int(scores.argmax())]):.0f} %"
    return _picture(_CURVE_HEIGHT, moment + _stretched(path, 3, _CURVE_HEIGHT - 6), label)


def proposal_plot(shape: ProposalShape, start: float, end: float) -> str:
    """Returns a proposal with its components, in a window from `start` to `end`, fractions of the video."""
    length = end - start
    points = start + length * np.linspace(0, 1, len(shape.mask))
    # a mixture is at most 1 high; the parts of some kinds of mixtures are not
    top = max(1.0, float(shape.mask.max()), float(shape.components.max(initial=0)))
    parts = "".join(
        f'<path class="part" d="{_line(points, part / top)}" vector-effect="non-scaling-stroke"/>'
        for part in (shape.components if len(shape.components) > 1 else ())
    )
    mixture = f'<path class="mixture" d="{_line(points, shape.mask / top)}" vector-effect="non-scaling-stroke"/>'
    base = _PROPOSAL_HEIGHT - 12
    centers = "".join(
        f'<circle class="center" cx="{_percent(start + length * float(center))}" cy="{base}" '
        f'r="{1.5 + 3 * float(weight) ** 0.5:.1f}"/>'
        for center, weight in zip(shape.centers, shape.weights, strict=True)
    )
    first, last = start + length * shape.start, start + length * shape.end
    span = (
        f'<line class="span" x1="{_percent(first)}" x2="{_percent(last)}" '
        f'y1="{_PROPOSAL_HEIGHT - 3}" y2="{_PROPOSAL_HEIGHT - 3}"/>'
    )
    line = f'<line class="base" x1="0" x2="100%" y1="{base}" y2="{base}"/>'
    label = f"Proposal from {100 * first:.0f} to {100 * last:.0f} % of the video, of {len(shape.centers)} parts"
    return _picture(_PROPOSAL_HEIGHT, line + _stretched(parts + mixture, 2, base - 2) + centers + span, label)


def time_scale(duration_s: float | None) -> str:
    """Returns marks along the video with their times, or percent where its length is unknown."""
    if duration_s is None:
        marks = [(share, f"{100 * share:.0f} %") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    else:
        step = next((step for step in _STEPS_S if duration_s / step <= _MAX_TICKS), duration_s)
        count = int(duration_s / step + 1e-9)
        # of short steps the tenths count, of others they would be noise
        marks = [
            (at * step / duration_s, clock(at * step) if step < 1 else clock(at * step)[:-2]) for at in range(count + 1)
        ]
    texts = "".join(
        f'<line x1="{_percent(share)}" x2="{_percent(share)}" y1="0" y2="4"/>'
        f'<text x="{_percent(share)}" y="16" text-anchor="{_anchor(share)}">{text}</text>'
        for share, text in marks
    )
    return f'<svg class="ticks" height="20" aria-hidden="true">{texts}</svg>'


def _anchor(share: float) -> str:
    """Returns how text is put at a mark, so that none leaves the picture."""
    return "start" if share < 0.03 else "end" if share > 0.97 else "middle"


def _picture(height: int, content: str, label: str) -> str:
    return f'<svg height="{height}" role="img" aria-label="{label}">{content}</svg>'


def _stretched(paths: str, top: int, height: int) -> str:
    """Returns paths of `_UNITS` x `_UNITS` in the whole width and some of the height of a picture."""
    box = f'x="0" y="{top}" width="100%" height="{height}" viewBox="0 0 {_UNITS} {_UNITS}" preserveAspectRatio="none"'
    return f"<svg {box}>{paths}</svg>"


def _line(points: np.ndarray, heights: np.ndarray) -> str:
    """Returns a path through points, fractions of width and height, the latter upwards."""
    across = np.rint(_UNITS * points).astype(int).tolist()
    down = np.rint(_UNITS * (1 - heights)).astype(int).tolist()
    return "M" + "L".join(f"{x} {y}" for x, y in zip(across, down, strict=True))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
