"""The card: figures beside what guesses reach, how features were made, and names that Markdown cannot misread."""

from __future__ import annotations

from typing import Any

from pps_fast import PRESETS
from pps_fast.hub.card import model_card
from pps_fast.runs.model_folder import Header
from pps_fast.types import FeatureSizes

HEADER = Header(
    step=3,
    epoch=1,
    batch=0,
    elapsed_s=1.0,
    device="cpu",
    config=PRESETS["tiny"],
    sizes=FeatureSizes(frame_dim=8, word_dim=4, vocab_size=23, num_segments=16),
    data={"name": "my|data", "sha256": "0" * 64},
    environment={"pps_fast": "0.1.0", "torch": "2.13.0", "commit": "abc"},
)
METRICS = ("R@1 IoU>=0.3", "R@1 IoU>=0.5", "R@1 IoU>=0.7", "R@1 mIoU")


def _evaluation(**rows: float) -> dict[str, Any]:
    cells = {name: {m: {"value": v, "low": v - 1, "high": v + 1} for m in METRICS} for name, v in rows.items()}
    return {
        "rows": cells, "num_samples": 1234, "num_videos": 56, "split": "test", "name": "x", "protocol": "full",
        "verdict": "This model does not find moments better than chance.",
    }  # fmt: skip


def test_the_table_has_the_model_and_its_baselines_with_intervals_and_the_verdict() -> None:
    evaluation = _evaluation(model=31.0, **{"model, shuffled queries": 20.0, "5 fixed intervals, mIoU": 60.0})
    card = model_card(HEADER, {}, evaluation, "me/door")
    assert "| model | 31.00 [30.0, 32.0] | 31.00" in card
    assert "| model, shuffled queries | 20.00 [19.0, 21.0]" in card
    assert "fixed intervals" not in card, "guesses of several moments are not compared with one"
    assert "1,234 queries of 56 videos" in card and "This model does not find moments better than chance." in card
    assert card.startswith("---\nlibrary_name: pps_fast\n")


def test_a_model_without_an_evaluation_says_so_and_an_unknown_recipe_too() -> None:
    card = model_card(HEADER, {}, None, "me/door")
    assert "was not measured" in card and "how they were made was not recorded" in card
    assert 'load("me/door")' in card and "[segments, 8]" in card


def test_sources_of_features_are_named_and_names_do_not_break_the_page() -> None:
    recipe = {"sources": [{"file": "a|b.h5", "encoder": "clip", "fps": 1, "sha256": "f" * 64}]}
    card = model_card(HEADER, recipe, None, "me/door")
    assert "* file a\\|b.h5, encoder clip, fps 1" in card and "f" * 64 not in card
    assert "my\\|data" in card and ".mp4" not in card


def test_a_model_that_knows_its_encoder_names_it_and_is_asked_about_a_video_file() -> None:
    extraction = {"encoder": "openai/clip@1", "fps": 2.0, "pooling": "projection", "image_mean": [0.5]}
    card = model_card(HEADER, {"sources": [{"file": "frames.h5", "extraction": extraction}]}, None, "me/door")
    assert "* file frames.h5, encoder openai/clip@1, fps 2.0, pooling projection\n" in card
    assert 'grounder.ground("kitchen.mp4", "person opens the door", top=5)' in card
