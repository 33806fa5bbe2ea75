"""What a model folder holds for answering sentences and videos that are not in its data set, beside the words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load

from pps_fast.alignment.confidence import Confidence
from pps_fast.config_tree import from_dict
from pps_fast.reading import FAILURES, brief
from pps_fast.runs.model_folder import CONFIDENCE_FILE, MAX_NUM_WORDS, RECIPE_FILE, WORDS_FILE, read_listed


def read_max_num_words(folder: Path) -> int:
    """Returns how many words of a sentence count, the first ones: of a model that does not say, MAX_NUM_WORDS.

    Raises:
        ValueError: for a damaged file.
    """
    content = read_listed(folder, WORDS_FILE)
    if content is None:
        return MAX_NUM_WORDS
    try:
        return int(load(content).get("max_num_words", MAX_NUM_WORDS))
    except FAILURES as error:
        raise ValueError(f"{folder / WORDS_FILE}: damaged ({brief(error)}); copy the whole folder again") from error


def read_recipe(folder: Path) -> dict[str, Any]:
    """Reads how the features and vectors of sentences that a model was trained with were made; empty where unknown.

    Raises:
        ValueError: for a damaged file.
    """
    content = read_listed(folder, RECIPE_FILE)
    if content is None:
        return {}
    try:
        recipe = json.loads(content)
    except FAILURES as error:
        raise ValueError(f"{folder / RECIPE_FILE}: {brief(error)}; copy the whole folder again") from error
    return recipe if isinstance(recipe, dict) else {}


def read_confidence(folder: Path) -> Confidence | None:
    """Reads how a model's confidence is calibrated; None where the folder does not say.

    Raises:
        ValueError: for a damaged file.
    """
    content = read_listed(folder, CONFIDENCE_FILE)
    if content is None:
        return None
    try:
        confidence: Confidence = from_dict(Confidence, json.loads(content), "confidence")
    except FAILURES as error:
        raise ValueError(f"{folder / CONFIDENCE_FILE}: {brief(error)}; copy the whole folder again") from error
    return confidence
