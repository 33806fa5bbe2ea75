"""People's answers to test queries: the re-annotations of Otani et al. (BMVC 2020), as baselines beside models.

Their files give, for some test queries of Charades-STA and ActivityNet Captions, the moments that five people marked in
percent of the video's length. They are matched to the samples of a data set by video and sentence.

Letters: m samples that people answered.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pps_fast.eval.metrics import MAX_RANK, SampleTable, best_overlap, sample_values

COLUMNS = ("video_id", "description", "start", "end")
NUM_PEOPLE = 5
ONE_PERSON, BEST_PERSON = "one person", "best of five people"

People = dict[tuple[str, str], Tensor]
"""video and sentence, as `_query` writes them -> [5, 2] float64 fractions of the video"""


def _query(video: str, sentence: str) -> tuple[str, str]:
    """Returns a query as data sets and re-annotations share it: no file ending, no "v_" of ActivityNet."""
    return video.removesuffix(".mp4").removeprefix("v_"), " ".join(sentence.lower().split()).rstrip(".")


def read_people(paths: list[Path]) -> People:
    """Reads re-annotations.

    Raises:
        ValueError: for a file that is missing or no such table, a row with a time that is not within 0 to 100, or a
            query without five answers; the message names file and row.
    """
    answers: dict[tuple[str, str], list[list[float]]] = {}
    last: dict[tuple[str, str], str] = {}
    for path in paths:
        for where, row in _rows(path):
            query = _query(row["video_id"], row["description"])
            answers.setdefault(query, []).append([_fraction(row, name, where) for name in ("start", "end")])
            start, end = answers[query][-1]
            if start > end:
                raise ValueError(f"{where}: start {row['start']} is after end {row['end']}; mend the row or remove it")
            last[query] = where
    for query, moments in answers.items():
        if len(moments) != NUM_PEOPLE:
            raise ValueError(
                f"{last[query]}: {len(moments)} answers to {query[1]!r} in video {query[0]!r}, expected {NUM_PEOPLE}; "
                "give every file once, and no other"
            )
    return {query: torch.tensor(moments, dtype=torch.float64) for query, moments in answers.items()}


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Returns (file and row, values by column)."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give the CSV files of the re-annotation")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{path}, row 1: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
            rows = [(f"{path}, row {reader.line_num}", row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    for where, row in rows:
        if any(row[name] is None for name in COLUMNS):
            raise ValueError(f"{where}: too few columns; expected {', '.join(COLUMNS)}")
    return rows


def _fraction(row: dict[str, str], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 100:
        raise ValueError(f"{where}: {name} {row[name]!r}: expected percent of the video's length, 0 to 100")
    return value / 100


def find_people(people: People, video_id: np.ndarray, sentence: np.ndarray) -> tuple[np.ndarray, Tensor]:
    """Returns which of B samples were re-annotated, [B] bool, and the people's moments of those, [m, 5, 2]."""
    queries = [_query(str(video), str(text)) for video, text in zip(video_id, sentence, strict=True)]
    is_answered = np.array([query in people for query in queries], dtype=bool)
    moments = [people[query] for query in queries if query in people]
    return is_answered, torch.stack(moments) if moments else torch.zeros(0, NUM_PEOPLE, 2, dtype=torch.float64)


def human_values(moments: Tensor, truth: Tensor, thresholds: tuple[float, ...]) -> dict[str, dict[str, Tensor]]:
    """Scores people as models are scored; returns baseline -> metric -> [m] percentages.

    One person's answer is R@1, averaged over the five; the best of the five is R@5.

    Args:
        moments: [m, 5, 2] what they marked.
        truth: [m, 2], or [m, w, 2] for several windows.
        thresholds: the m of IoU >= m.
    """
    overlap = best_overlap(moments, truth)  # [m, 5]
    alone = [
        sample_values(SampleTable(iou_top1=overlap[:, person], iou_topn=None, num_ranked=1), thresholds)
        for person in range(NUM_PEOPLE)
    ]
    best = SampleTable(iou_top1=None, iou_topn=overlap.amax(dim=1), num_ranked=MAX_RANK)
    one = {metric: torch.stack([person[metric] for person in alone]).mean(dim=0) for metric in alone[0]}
    return {ONE_PERSON: one, BEST_PERSON: sample_values(best, thresholds)}
