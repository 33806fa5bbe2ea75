"""pps-fast VERB, the same as python -m pps_fast.VERB: runs a program, or lists them all."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

from pps_fast import __version__
from pps_fast.streams import tolerant_streams

PROGRAMS = {
    "features": "video files to features, by CLIP, SigLIP, VideoMAE or another encoder",
    "prepare": "pack annotations, video features and word vectors into one data file",
    "blind": "what ignoring the video reaches on a data file, before any model is trained",
    "align": "fit the closed-form alignment in seconds, then evaluate it: the baseline to beat",
    "train": "train a model, then evaluate it on the test split",
    "eval": "score a trained model beside baselines that do not look at the video",
    "ground": "ask a model when in a video, or in which video, a sentence happens",
    "demo": "the same in a browser: choose a video, type a sentence, watch the answer",
    "draw": "pictures of queries, runs, and what the pulling and pushing losses do",
    "ablate": "tables of the paper's ablations, over seeds and folds",
    "compare": "a table of presets, over seeds and folds",
    "hub": "share a model by the Hugging Face Hub",
    "published": "convert weights of the published code of PPS, CPL and CNM, in and out",
    "info": "versions, devices, and which backend serves each op",
}


def help_text() -> str:
    """Returns what --help prints."""
    lines = [
        "usage: pps-fast VERB [options]",
        "",
        "Finds when in a video a sentence happens, learned from pairs of video and sentence alone (PPS, AAAI 2024).",
        "`pps-fast VERB` and `python -m pps_fast.VERB` are the same.",
        "",
        "verbs:",
        *(f"  {name:9s} {about}" for name, about in PROGRAMS.items()),
        "",
        "`pps-fast VERB --help` describes one. `pps-fast --version` prints the version. To begin:",
        "  pps-fast train --preset tiny --out runs/first",
        "  pps-fast eval --model runs/first",
    ]
    return "\n".join(lines)


def load(verb: str) -> ModuleType:
    """Returns the module of a program: NAME/__main__.py in a folder of that name, else NAME.py."""
    name = f"pps_fast.{verb}"
    spec = importlib.util.find_spec(name)
    is_folder = spec is not None and spec.submodule_search_locations is not None
    return importlib.import_module(f"{name}.__main__" if is_folder else name)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status of the program, 2 for a verb that does not exist."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        with tolerant_streams():
            return _run(*(words or ["--help"]))
    except KeyboardInterrupt:
        # while the program is imported; it answers for itself afterwards
        print("error: interrupted", file=sys.stderr)
        return 130


def _run(verb: str, *rest: str) -> int:
    if verb in ("-h", "--help", "--help-all"):
        print(help_text())
        return 0
    if verb == "--version":
        print(f"pps_fast {__version__}")
        return 0
    if verb not in PROGRAMS:
        print(f"error: {verb}: no such verb; expected one of {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    status: int = load(verb).main(list(rest))
    return status


if __name__ == "__main__":
    sys.exit(main())
