"""The card of a shared model: what it is, how to ask it, and its last evaluation beside what guesses reach."""

from __future__ import annotations

from typing import Any

from pps_fast.runs.model_folder import Header

_METRICS = ("R@1 IoU>=0.3", "R@1 IoU>=0.5", "R@1 IoU>=0.7", "R@1 mIoU")
_METHODS = {"proposals": "proposals trained by losses of pairs (PPS, CPL or CNM)", "alignment": "closed-form alignment"}
# of a source of features
_TOLD = ("file", "encoder", "revision", "fps", "pooling")
_FRONT = """---
library_name: pps_fast
tags:
- temporal-video-grounding
- video-moment-retrieval
- weakly-supervised
---
"""


def model_card(header: Header, recipe: dict[str, Any], evaluation: dict[str, Any] | None, name: str) -> str:
    """Returns the card as Markdown with the hub's header.

    Args:
        recipe: how the features were made.
        evaluation: record of an evaluation on the test split, or None.
        name: USER/NAME.
    """
    sizes, environment = header.sizes, header.environment
    data = header.data.get("name", "unnamed")
    lines = [
        _FRONT,
        f"# {_escaped(name)}",
        "",
        "Finds when in a video a sentence happens. Learned by pps_fast from pairs of video and sentence without times.",
        "",
        "```python",
        "from pps_fast import load",
        "",
        f'grounder = load("{name}")',
        *_question(recipe),
        "```",
        "",
        f"`frames` are features [segments, {sizes.frame_dim}] of one video, made as those of the training:",
        "",
        *_features(recipe),
        "",
        "## What it is",
        "",
        f"* Method: {_METHODS[header.config.method]}.",
        f"* Trained on: {_escaped(str(data))}, {sizes.num_segments} segments a video, {sizes.vocab_size} words.",
        f"* Made with: pps_fast {environment.get('pps_fast', 'unknown')}, torch {environment.get('torch', 'unknown')}, "
        f"commit {environment.get('commit') or 'unknown'}.",
        "",
        "## How good it is",
        "",
        *(_table(evaluation) if evaluation else ["It came without an evaluation: how good it is was not measured."]),
        "",
    ]
    return "\n".join(lines)


def _question(recipe: dict[str, Any]) -> list[str]:
    """Returns the lines that ask the model: of a video file, too, where it knows how its features were made."""
    sources = recipe.get("sources") or []
    is_known = bool(sources) and all(isinstance(source.get("extraction"), dict) for source in sources)
    of_file = ['moments = grounder.ground("kitchen.mp4", "person opens the door", top=5)', "# or of features"]
    of_features = 'moments = grounder.ground(frames, "person opens the door", duration_s=30.7, top=5)'
    return [*(of_file if is_known else []), of_features]


def _features(recipe: dict[str, Any]) -> list[str]:
    """Returns a line for each source of features, with what is known of how it was made."""
    lines = []
    for source in recipe.get("sources") or []:
        known = {name: source[name] for name in _TOLD if source.get(name)}
        extraction = source.get("extraction") or {}
        known |= {name: extraction[name] for name in _TOLD if extraction.get(name)}
        lines.append("* " + _escaped(", ".join(f"{name} {value}" for name, value in known.items())))
    return lines or ["* how they were made was not recorded"]


def _table(evaluation: dict[str, Any]) -> list[str]:
    """Returns the table of one moment per query with 95 % intervals by video, and the sentence that it ends with."""
    rows = evaluation["rows"]
    chosen = [row for row in rows if not row[0].isdigit() and all(metric in rows[row] for metric in _METRICS)]
    size = f"{evaluation['num_samples']:,} queries of {evaluation.get('num_videos', 0):,} videos"
    where = f"{evaluation.get('name', 'unnamed')}, protocol {evaluation.get('protocol', 'unknown')}"
    lines = [
        f"{_escaped(where)}, {evaluation['split']} split, {size}. Percent, with 95 % intervals by video; rows below",
        "the model's ignore the video, ignore the sentence, or need no network.",
        "",
        "| R@1 | " + " | ".join(metric.removeprefix("R@1 ") for metric in _METRICS) + " |",
        "| --- | " + " | ".join("---:" for _ in _METRICS) + " |",
    ]
    for row in chosen:
        cells = (rows[row][metric] for metric in _METRICS)
        texts = (f"{cell['value']:.2f} [{cell['low']:.1f}, {cell['high']:.1f}]" for cell in cells)
        lines.append(f"| {_escaped(row)} | " + " | ".join(texts) + " |")
    verdict = evaluation.get("verdict")
    return [*lines, "", *([str(verdict)] if verdict else [])]


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: on one line, without tables, links or tags."""
    plain = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in plain)
