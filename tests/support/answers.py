"""Small files of answers and their annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

QUERIES: list[dict[str, Any]] = [
    {"qid": 1, "vid": "a", "query": "Door opens.", "duration": 20.0, "relevant_windows": [[2.0, 8.0], [12.0, 18.0]]},
    {"qid": 2, "vid": "a", "query": "a dog runs", "duration": 20.0, "relevant_windows": [[10.0, 20.0]]},
    {"qid": 3, "vid": "b", "query": "a dog runs", "duration": 60.0, "relevant_windows": [[0.0, 40.0]]},
    {"qid": 4, "vid": "c", "query": "no times", "duration": 10.0},
]
"""four queries of three videos, one without times"""

ANSWERS: list[dict[str, Any]] = [
    {"qid": 1, "vid": "a", "query": "Door opens.", "pred_relevant_windows": [[12.0, 18.0, 0.9], [2.0, 5.0, 0.5]]},
    {"qid": 2, "vid": "a", "query": "a dog runs", "pred_relevant_windows": [[10.0, 25.0, 0.2], [10.0, 20.0, 0.8]]},
    {"qid": 3, "vid": "b", "query": "a dog runs", "pred_relevant_windows": [[41.0, 60.0, 0.7]]},
    {"qid": 4, "vid": "c", "query": "no times", "pred_relevant_windows": [[0.0, 1.0, 0.1]]},
]
"""answers to them in QVHighlights' submission form; the second reaches beyond its video, and has a better one below"""


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes a line of JSON for each row."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ranked(row: dict[str, Any]) -> dict[str, Any]:
    """Returns an answer of the submission form with ranked_predicted_windows, its first window as the answer."""
    windows = row["pred_relevant_windows"]
    others = {name: value for name, value in row.items() if name != "pred_relevant_windows"}
    ranking = sorted(windows, key=lambda window: -window[2])
    return {**others, "predicted_window": windows[0][:2], "ranked_predicted_windows": ranking}
