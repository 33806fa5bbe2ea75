"""The videos of a demo: their files, and what the model has read of them, each encoded when it is first asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from pps_fast.ground.grounder import Grounder
from pps_fast.ground.page import page_of
from pps_fast.ground.segments import EncodedVideo

Encode = Callable[[Path, str], EncodedVideo]

# where gradio serves files, beside its own page
_SERVED = "gradio_api/file="


class Library:
    """Answers sentences about videos, as pages.

    Args:
        grounder: the model.
        files: of the videos, by name.
        encode: reads the file of a video of some name; it raises a ValueError for one that cannot be used.
        encoded: videos that were read already, of features for instance; they need no file.
        top: most moments of an answer.
        min_match: below this match a sentence counts as not there.
    """

    def __init__(
        self,
        grounder: Grounder,
        files: Mapping[str, Path],
        encode: Encode,
        *,
        encoded: Sequence[EncodedVideo] = (),
        top: int = 5,
        min_match: float = 0.5,
    ) -> None:
        self._grounder, self._encode = grounder, encode
        self._files = dict(files)
        self._encoded = {str(video.name): video for video in encoded}
        self._dropped: set[str] = set()
        self._top, self._min_match = top, min_match

    @property
    def names(self) -> list[str]:
        """Names of the videos of the folder, which everyone may ask."""
        return sorted({*self._files, *self._encoded} - self._dropped)

    def has(self, name: str) -> bool:
        """Whether a name is that of a video, dropped ones included."""
        return name in self._files or name in self._encoded

    def add(self, path: Path) -> str:
        """Takes in a file that somebody has dropped, and returns the name that it has from now on.

        It is not among `names`, so that no search of all videos shows it to others.
        """
        name, number = path.stem, 1
        while self.has(name) and self._files.get(name) != path:
            number += 1
            name = f"{path.stem} ({number})"
        if not self.has(name):
            self._files[name] = path
            self._dropped.add(name)
        return name

    def page(self, sentence: str, names: Sequence[str]) -> tuple[str, list[str]]:
        """Returns a page with the answer to a sentence about some videos, and a sentence for each that is left out.

        Raises:
            ValueError: for a sentence that cannot be used, or where no video can be.
        """
        if not sentence.strip():
            raise ValueError("no sentence; type one, like “person opens the door”")
        videos, failures = [], []
        for name in names:
            try:
                videos.append(self._video(name))
            except ValueError as error:
                failures.append(str(error))
        if not videos:
            raise ValueError(failures[0] if failures else "no video; choose one, or drop a file")
        answers = self._grounder.search(videos, [sentence.strip()], top=self._top)
        addresses = {name: address(self._files[name]) for name in names if name in self._files}
        page = page_of(self._grounder, videos, answers, addresses=addresses, min_match=self._min_match, is_framed=True)
        return page, failures

    def _video(self, name: str) -> EncodedVideo:
        if name not in self._encoded:
            self._encoded[name] = self._encode(self._files[name], name)
        return self._encoded[name]


def address(path: Path) -> str:
    """Returns the address of a file that gradio serves."""
    return _SERVED + quote(str(path.absolute()))
