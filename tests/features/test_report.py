"""The end of `python -m pps_fast.features`: what was made, and every video that failed."""

from __future__ import annotations

from pathlib import Path

from pps_fast.features.report import format_outcome
from pps_fast.features.run import Outcome

RECIPE = {"encoder": "x@1", "fps": 0.5, "width": 16}


def test_what_was_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "f.h5").write_bytes(b"x" * (1 << 20))
    outcome = Outcome(num_before=3, num_rows=1500, lengths_s=[1000.0, 2000.0])
    text = format_outcome(outcome, RECIPE, tmp_path / "f.h5", 12.34)
    assert "2 encoded, 3,000 s in 12.3 s; 3 were there before" in text
    assert "1,500 rows of width 16, 0.5 a second" in text and "x@1" in text and "(1.0 MiB)" in text
    assert "failed" not in text


def test_failures_are_named_one_a_line(tmp_path: Path) -> None:
    outcome = Outcome(num_before=1, failures=[f"{index}.mp4: bad\nthing" for index in range(60)])
    lines = format_outcome(outcome, RECIPE, tmp_path / "f.h5", 1.0).splitlines()
    assert "failed    60 of 61 videos:" in lines and "  7.mp4: bad thing" in lines and lines[-1] == "  and 10 more"
    assert not any(line.startswith("file") for line in lines)
