"""One sentence on a page of answers: a card for each video, with buttons, timeline and proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from pps_fast.ground.answers import Answer, Moment
from pps_fast.ground.evidence import Evidence, ProposalShape, curve_of_video
from pps_fast.ground.page_plots import answer_bars, clock, curve_plot, proposal_plot, time_scale
from pps_fast.ground.report import is_missed
from pps_fast.ground.segments import EncodedVideo

_NO_NAME = "video"
# a page's moment is one of a window's proposals: rounding apart
_SAME = 1e-5


@dataclass(frozen=True, kw_only=True)
class Card:
    """A video with its answers to one sentence.

    Attributes:
        number: of the video on the page.
        video: as it was asked.
        link: address of its file, or None.
        ranked: rank and moment of each answer in it.
        windows: what the model saw of it.
    """

    number: int
    video: EncodedVideo
    link: str | None
    ranked: list[tuple[int, Moment]]
    windows: list[Evidence]


def section(query: int, answer: Answer, cards: Sequence[Card], min_match: float) -> str:
    """Returns one sentence with all its videos.

    Args:
        query: number of the sentence, from 1.
        cards: at least one, by their best rank.
        min_match: below this match the sentence counts as not there.
    """
    notes = []
    if answer.unknown_words:
        notes.append(f"Words that the model does not know: {', '.join(answer.unknown_words)}.")
    if answer.num_cut:
        notes.append(f"The last {answer.num_cut} words were not read: the sentence is too long.")
    if is_missed(answer, min_match):
        notes.append(f"Not found: no match reaches {100 * min_match:.0f} %. These moments are the nearest.")
    curves = [curve_of_video(card.video.start, card.video.end, card.windows) for card in cards]
    # one scale, so that a video with nothing in it does not look like one with a moment
    scores = np.concatenate([curve[1] for curve in curves if curve is not None] or [np.zeros(1)])
    scale = (float(scores.min()), float(scores.max()))
    parts = [f'<section id="sentence-{query}" aria-labelledby="heading-{query}">']
    parts.append(f'<h2 id="heading-{query}" dir="auto">“{escape(answer.sentence)}”</h2>')
    parts += [note(text) for text in notes]
    parts += [_card(query, card, curve, scale) for card, curve in zip(cards, curves, strict=True)]
    return "\n".join([*parts, "</section>"])


def _card(query: int, card: Card, curve: tuple[np.ndarray, np.ndarray] | None, scale: tuple[float, float]) -> str:
    video, name = card.video, escape(card.video.name or _NO_NAME)
    length = "" if video.duration_s is None else f'<span class="soft">{clock(video.duration_s)}</span>'
    data = f'data-video="{card.number}"'
    data += "" if video.duration_s is None else f' data-length="{video.duration_s:.6g}"'
    data += "" if card.link is None else f' data-src="{escape(card.link)}"'
    bars = [(rank, f"bar-{query}-{rank}", moment.start, moment.end) for rank, moment in card.ranked]
    best = card.ranked[0][1]
    rows = [_row("answers", answer_bars(bars))]
    if curve is not None:
        rows.append(_row("fit", curve_plot(curve, *scale, (best.start, best.end))))
    slider = (
        f'<input type="range" min="0" max="1" step="any" value="0" aria-label="position in {name}" '
        f'aria-valuetext="{clock(0) if video.duration_s is not None else "0 %"}">'
    )
    scrub = f'<div class="scrub">{slider}{time_scale(video.duration_s)}</div>'
    return "\n".join(
        [
            f'<article class="card" {data}>',
            f"<header><h3><bdi>{name}</bdi>{length}</h3>{_sure(card)}</header>",
            '<p class="missing">No file of this video is known.</p>' if card.link is None else "",
            f'<ol class="answers">{"".join(_button(query, rank, moment) for rank, moment in card.ranked)}</ol>',
            f'<div class="timeline">{"".join(rows)}{scrub}</div>',
            _proposals(card),
            "</article>",
        ]
    )


def _button(query: int, rank: int, moment: Moment) -> str:
    first = " first" if rank == 1 else ""
    data = f'data-bar="bar-{query}-{rank}" data-start="{moment.start:.6f}" data-end="{moment.end:.6f}"'
    return (
        f'<li><button type="button" class="answer{first}" {data} aria-label="{_spoken(rank, moment)}">'
        f'<span class="rank">{rank}</span><span class="when">{_when(moment)}</span></button></li>'
    )


def _spoken(rank: int, moment: Moment) -> str:
    sure = "" if moment.match is None else f", match {100 * moment.match:.0f} %"
    sure += "" if moment.clarity is None else f", clarity {100 * moment.clarity:.0f} %"
    return f"answer {rank}, {_when(moment).replace('–', 'to')}{sure}"


def _when(moment: Moment) -> str:
    if moment.start_s is None or moment.end_s is None:
        return f"{100 * moment.start:.0f} % – {100 * moment.end:.0f} %"
    return f"{clock(moment.start_s)} – {clock(moment.end_s)}"


def _sure(card: Card) -> str:
    """Returns match and clarity, of the best answer: those of a window are the same for all its answers."""
    best = card.ranked[0][1]
    values = [("match", best.match), ("clarity", best.clarity)]
    spans = "".join(f"<span>{name} <b>{100 * value:.0f} %</b></span>" for name, value in values if value is not None)
    return f'<p class="sure">{spans}</p>' if spans else ""


def _proposals(card: Card) -> str:
    """Returns the proposals, folded: of a video of several windows those that are answers, else all."""
    rows = []
    for start, end, window in zip(card.video.start, card.video.end, card.windows, strict=True):
        for shape in window.proposals:
            rank = _rank_of(card, shape, start, end)
            if rank is not None or len(card.windows) == 1:
                rows.append((rank is None, rank or 0, _proposal(rank, shape, start, end)))
    if not rows:
        return ""
    has_parts = any(len(shape.weights) > 1 for window in card.windows for shape in window.proposals)
    what = f"Proposals{' and their parts' if has_parts else ''} ({len(rows)})"
    # the answers by rank, then the others in the model's order
    pictures = "".join(picture for _, _, picture in sorted(rows, key=lambda row: row[:2]))
    return f'<details><summary>{what}</summary><div class="timeline">{pictures}</div></details>'


def _proposal(rank: int | None, shape: ProposalShape, start: float, end: float) -> str:
    shares = "+".join(f"{100 * weight:.0f}" for weight in shape.weights)
    label = "no answer" if rank is None else f"<b>answer {rank}</b>"
    label += f"<br>{shares} %" if len(shape.weights) > 1 else ""
    return _row(label, proposal_plot(shape, start, end))


def _rank_of(card: Card, shape: ProposalShape, start: float, end: float) -> int | None:
    """Returns the rank of the answer that a proposal of a window from `start` to `end` is; None for none."""
    first, last = start + (end - start) * shape.start, start + (end - start) * shape.end
    same = [
        rank for rank, moment in card.ranked if abs(moment.start - first) < _SAME and abs(moment.end - last) < _SAME
    ]
    return same[0] if same else None


def _row(label: str, picture: str) -> str:
    return f'<div class="label">{label}</div><div class="plot">{picture}</div>'


def note(text: str) -> str:
    """Returns a line that stands out."""
    return f'<p class="note" dir="auto">{escape(text)}</p>'
