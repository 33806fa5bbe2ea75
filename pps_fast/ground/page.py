"""One HTML file with answers along their videos, which needs nothing else but the files of the videos to play them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from pps_fast import __version__
from pps_fast.files import replace_bytes
from pps_fast.ground.answers import Answer, Moment
from pps_fast.ground.grounder import Grounder
from pps_fast.ground.page_cards import Card, note, section
from pps_fast.ground.page_links import GENERATOR, links, require_page
from pps_fast.ground.segments import EncodedVideo

_HINT = "Choose an answer to go to its start, and again to play it to its end. Up and down go from answer to answer."


def write_page(
    path: Path,
    grounder: Grounder,
    videos: Sequence[EncodedVideo],
    answers: Sequence[Answer],
    *,
    video_files: Mapping[str, Path] | None = None,
    min_match: float = 0.5,
    about: str = "",
) -> None:
    """Writes a page with answers that `grounder` gave about `videos`.

    Args:
        path: of the page; one that is there is replaced if it is such a page, too.
        video_files: files of the videos by name, as far as they are known; the page names them relative to itself.
        min_match: below this match a sentence counts as not there.
        about: what the answers were made with, in a few words.
    Raises:
        ValueError: for a path that cannot be written to, or holds something else, and as `page_of`.
    """
    require_page(path)
    text = page_of(
        grounder, videos, answers, addresses=links(path, video_files or {}), min_match=min_match, about=about
    )
    # a name that is no text, as names of files may be, must not stop the page
    replace_bytes(path, text.encode("utf-8", "replace"))


def page_of(
    grounder: Grounder,
    videos: Sequence[EncodedVideo],
    answers: Sequence[Answer],
    *,
    addresses: Mapping[str, str] | None = None,
    min_match: float = 0.5,
    about: str = "",
    is_framed: bool = False,
) -> str:
    """Returns the page as text; as `write_page`, with the addresses of the videos' files as the page names them.

    Args:
        is_framed: for a frame in another page, which has a heading.

    Raises:
        ValueError: for videos that have no names that tell them apart.
    """
    by_name = {video.name: (number, video) for number, video in enumerate(videos)}
    if len(by_name) < len(videos):
        raise ValueError("page: several videos have the same name, or none; encode each with a name of its own")
    cards = [_cards(grounder, answer, by_name, addresses or {}) for answer in answers]
    sections = [
        section(query, answer, of_answer, min_match)
        for query, (answer, of_answer) in enumerate(zip(answers, cards, strict=True), 1)
    ]
    link = next((card.link for of_answer in cards for card in of_answer if card.link is not None), None)
    why = grounder.no_match
    notes = [] if why is None else [f"No match and no clarity: {why}."]
    if link is None:
        notes.append("No file of a video is known, so there is nothing to play: the timelines work alone.")
    page = _fill(answers, len(videos), sections, notes=notes, first_link=link, about=about)
    return page.replace("<body>", '<body class="framed">', 1) if is_framed else page


def _cards(
    grounder: Grounder,
    answer: Answer,
    by_name: Mapping[str | None, tuple[int, EncodedVideo]],
    addresses: Mapping[str, str],
) -> list[Card]:
    """Returns the videos of an answer, by their best rank."""
    ranked: dict[str | None, list[tuple[int, Moment]]] = {}
    for rank, moment in enumerate(answer, 1):
        ranked.setdefault(moment.video, []).append((rank, moment))
    shown = [by_name[name] for name in ranked]
    seen = grounder.evidence([video for _, video in shown], answer.sentence, count=max(map(len, ranked.values())))
    return [
        Card(
            number=number, video=video, link=addresses.get(str(video.name)), ranked=ranked[video.name], windows=windows
        )
        for (number, video), windows in zip(shown, seen, strict=True)
    ]


def _fill(
    answers: Sequence[Answer],
    num_videos: int,
    sections: Sequence[str],
    *,
    notes: Sequence[str],
    first_link: str | None,
    about: str,
) -> str:
    """Returns the page around its sections."""
    template, style, script = (_part(name) for name in ("page.html", "page.css", "page.js"))
    what = "1 video" if num_videos == 1 else f"{num_videos:,} videos"
    is_one = len(answers) == 1
    title = answers[0].sentence if is_one else f"{len(answers)} sentences about {what}"
    player = ""
    if first_link is not None:
        look = 'id="player" aria-label="player" controls playsinline preload="metadata"'
        player = f'<video {look} src="{escape(first_link)}"></video>'
    return Template(template).substitute(
        generator=escape(GENERATOR + __version__),
        policy=escape(_policy(script)),
        title=escape(title),
        style=style,
        heading="When it happens" if is_one else escape(title),
        about=escape(" · ".join(filter(None, [what if is_one else "", about]))),
        notes="\n".join(map(note, notes)),
        contents="" if is_one else _contents(answers),
        layout="alone" if first_link is None else "with-player",
        player=player,
        hint=_HINT if player else "",
        results="\n".join(sections),
        script=script,
    )


def _policy(script: str) -> str:
    """Returns what the page may load: its own script by its hash, videos beside it, and nothing from a network."""
    sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"style-src 'unsafe-inline'; script-src 'sha256-{sha256}'; media-src 'self' file:"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _contents(answers: Sequence[Answer]) -> str:
    """Returns a list of the sentences."""
    items = []
    for query, answer in enumerate(answers, 1):
        match = "" if answer.match is None else f'<span class="soft">match {100 * answer.match:.0f} %</span>'
        link = f'<a href="#sentence-{query}" dir="auto">“{escape(answer.sentence)}”</a>'
        items.append(f"<li>{link}{match}</li>")
    return f'<nav aria-label="Sentences"><ol>{"".join(items)}</ol></nav>'


def _part(name: str) -> str:
    return files("pps_fast.ground").joinpath(name).read_text(encoding="utf-8")
