"""python -m pps_fast.hub: share a model by the Hugging Face Hub, or look at what would be shared."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from pps_fast.cli import exit_status, parse
from pps_fast.help_text import Program


@dataclass(frozen=True, kw_only=True)
class Push:
    """upload a model with its card; `load("USER/NAME")` and `ground --model USER/NAME` then take it anywhere"""

    source: tyro.conf.Positional[Path]
    """run folder, whose last evaluation goes into the card, or a model folder"""
    name: tyro.conf.Positional[str]
    """USER/NAME of the repository, which is made where it is not there"""
    private: bool = False
    """make a new repository private"""
    message: str = "Model of pps_fast"
    """message of the commit"""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """write what would be uploaded to a new folder, and upload nothing"""

    source: tyro.conf.Positional[Path]
    """run folder, whose last evaluation goes into the card, or a model folder"""
    name: tyro.conf.Positional[str]
    """USER/NAME that the card shall name"""
    out: Path
    """new folder to write to"""


Options = Annotated[Push, tyro.conf.subcommand("push")] | Annotated[Bundle, tyro.conf.subcommand("bundle")]

PROGRAM: Program[Any] = Program(
    name="hub",
    description="""Shares a model by the Hugging Face Hub: weights, words, how features were made, and a card with its
last evaluation. No state of training and no path of this machine is in it, and no file that is run as code. Needs the
library huggingface_hub (pip install 'pps-fast[hub]') and, to upload, its login: hf auth login.""",
    options=Options,  # type: ignore[arg-type]  # a union stands for its subcommands
    subcommands={"push": Push, "bundle": Bundle},
    verb="COMMAND",
    positional="source",
    examples="""python -m pps_fast.hub bundle runs/charades_alignment me/charades-alignment --out shared
python -m pps_fast.hub push runs/charades_alignment me/charades-alignment
python -m pps_fast.ground --model me/charades-alignment --features new.npy "person opens the door" """,
)


def run(arguments: Push | Bundle) -> int:
    """Writes the folder that is shared, uploads it where that is asked for; returns the exit status.

    Raises:
        ValueError: for a model that cannot be shared, a name that is none, or a hub that does not take it.
    """
    from pps_fast.hub.bundle import write_bundle
    from pps_fast.hub.push import push_folder, require_name

    require_name(arguments.name)
    if isinstance(arguments, Bundle):
        files = write_bundle(arguments.source, arguments.out, arguments.name)
        print(f"written: {arguments.out} ({', '.join(files)})")
        return 0
    with tempfile.TemporaryDirectory(prefix="pps_fast_hub_") as scratch:
        folder = Path(scratch) / "model"
        files = write_bundle(arguments.source, folder, arguments.name)
        address = push_folder(folder, arguments.name, is_private=arguments.private, message=arguments.message)
    print(f"uploaded: {', '.join(files)}\nto {address}")
    print(f'to ask it: python -m pps_fast.ground --model {arguments.name} --features FILE "a sentence"')
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(parse(PROGRAM, argv)))


if __name__ == "__main__":
    sys.exit(main())
