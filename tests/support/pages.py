"""Reads pages of answers back, as a browser does."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from pps_fast import load
from pps_fast.ground.answers import Answer
from pps_fast.ground.grounder import Grounder
from pps_fast.ground.segments import EncodedVideo
from tests.support.eval_fakes import DATA
from tests.support.grounders import alignment_run
from tests.support.videos import write_video

VOID = {"meta", "input", "br"}
HOSTILE = (
    '"><script>document.title = 1</script>',
    "' onmouseover='document.title = 1",
    "</script><!-- <script>",
    "</style></title></textarea>--> ]]>",
    "$heading ${title} $$ {{x}} &amp; &lt; &#34;",
    "line\u2028and\u2029paragraph\nand break",
    "\u202e4pm.olc \u0301\u0000\x1b",
    "a:b/../../etc/passwd?x=1#t=3%2e",
    "no text: \udcff",
)
"""what must not leave its place in a page"""


class Page(HTMLParser):
    """Elements of a page with their attributes, and their text.

    Raises:
        AssertionError: where tags are not closed in their order.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element that closes itself, as those of SVG may."""
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Closes the innermost element."""
        assert self._open and self._open[-1] == tag, (tag, self._open)
        self._open.pop()

    def handle_data(self, data: str) -> None:
        """Notes text with the element that it stands in."""
        if self._open:
            self.texts.append((self._open[-1], data))

    def all(self, tag: str, look: str | None = None) -> list[dict[str, str | None]]:
        """Returns the attributes of elements with a tag, and of a class."""
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and (look is None or look in (attributes.get("class") or "").split())
        ]

    def text_of(self, tag: str) -> list[str]:
        """Returns the texts of elements with a tag."""
        return [text for name, text in self.texts if name == tag]


def asked(
    names: tuple[str, ...], top: int = 3, sentences: int = 1
) -> tuple[Grounder, list[EncodedVideo], list[Answer]]:
    """Returns an alignment, videos of some names that last 8 seconds, and its answers about them."""
    grounder = load(alignment_run())
    videos = [grounder.encode(DATA.features[index], duration_s=8.0, name=name) for index, name in enumerate(names)]
    return grounder, videos, grounder.search(videos, DATA.sentences[:sentences], top=top)


def address_of(page: Path) -> str:
    """Returns how a browser is told of a file."""
    return page.resolve().as_uri()


def write_brightening(path: Path) -> Path:
    """Writes a video of 8 seconds, mp4 or webm, that goes from black to white, so that a frame tells its time."""
    levels = np.linspace(0, 255, 80).round().astype(np.uint8)
    frames = (np.full((64, 64, 3), level) for level in levels)
    return write_video(path, frames, fps=10, codec="libvpx" if path.suffix == ".webm" else "libx264")
