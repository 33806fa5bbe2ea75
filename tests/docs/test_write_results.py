"""docs/results.md is what its result files give, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from docs import real_video, write_results

PUBLISHED = json.loads(write_results.PUBLISHED.read_text(encoding="utf-8"))


def test_the_page_is_what_the_files_give() -> None:
    assert write_results.main(["--check"]) == 0


def test_every_published_figure_stands_on_the_page() -> None:
    lines = write_results.page().splitlines()
    for record in PUBLISHED["tables"]:
        assert len(record["metrics"]) == 6
        for row in record["rows"]:
            cells = ["-" if value is None else f"{value:.2f}" for value in row["values"]]
            assert any(line.endswith(f"| {' | '.join(cells)} |") and row["method"] in line for line in lines)


def test_a_changed_result_changes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "benchmarks" / "results"
    shutil.copytree(write_results.RESULTS, results)
    monkeypatch.setattr(write_results, "ROOT", tmp_path)
    monkeypatch.setattr(write_results, "RESULTS", results)
    monkeypatch.setattr(write_results, "LAB", results / "lab")
    assert write_results.main(["--check"]) == 0
    file = results / write_results.BLIND[1][1]
    record = json.loads(file.read_text(encoding="utf-8"))
    record["rows"]["whole video"]["R@1 mIoU"]["value"] = 12.34
    file.write_text(json.dumps(record), encoding="utf-8")
    assert "| 12.34 |" in write_results.page() and "| 12.34 |" not in write_results.PAGE.read_text(encoding="utf-8")
    assert write_results.main(["--check"]) == 1
    assert "results.md is not what its result files give" in capsys.readouterr().err


def test_figures_are_of_the_protocol_they_stand_under() -> None:
    for title, name in write_results.BLIND:
        record = write_results.read(write_results.RESULTS / name)
        expected = {"filtered": 3158, "full": 3720, "as_is": 17031}[record["protocol"]]
        assert record["num_samples"] == expected and record["name"] in title


def test_every_row_of_the_lab_stands_on_the_page_with_blind_baseline_and_control() -> None:
    page = write_results.page()
    records = {path.stem: write_results.read(path) for path in sorted(write_results.LAB.glob("*.json"))}
    assert records
    for name, record in records.items():
        section = page.split(f"### {name}: ")[1].split("\n### ")[0]
        for row in record["rows"]:
            mean = f"{row['results']['all']['R@1 mIoU']['value']:.2f} ["
            assert any(line.startswith(f"| {row['label']} |") and mean in line for line in section.splitlines())
        assert "| best blind baseline |" in section and f"| {record['reference']}, shuffled queries |" in section
        # every one says what it was made of
        assert all(f"{seed}" in section for seed in record["protocol"]["seeds"]) and record["preset"] in section


def test_how_sure_answers_are_stands_on_the_page_with_every_fold_and_tenth() -> None:
    page, record = write_results.page(), write_results.read(real_video.GROUNDING)
    section = page.split("## How sure an answer is\n")[1].split("\n## ")[0]
    for row in record["rows"]:
        first = (
            f"| {real_video.FEATURES[row['data']]}, {row['fold']} | {row['auc']:.3f} | {row['calibration_error']:.3f} |"
        )
        assert first in section
    # of one tenth by hand
    tenths = [row["reliability"][3] for row in record["rows"] if row["data"] == "b32"]
    share = sum(share * weight for _, share, weight in tenths) / sum(weight for *_, weight in tenths)
    assert f"| 0.3 to 0.4 | 0.35: {share:.2f} right |" in section and "equally likely" in section
