"""Progress: each run that begins or ends, with its place where that has a name."""

from __future__ import annotations

from pps_fast.lab.board import Board
from pps_fast.lab.runs import plan_run
from tests.support.lab_experiments import CONFIG


def test_lines_tell_run_place_and_count(tmp_path, capsys):
    runs = [plan_run(CONFIG, {"sha256": str(index)}, 1, None, f"run {index}") for index in range(4)]
    folder = tmp_path / runs[1].name
    folder.mkdir()
    (folder / "metrics.jsonl").write_text('{"step": 3}\n')
    with Board(tmp_path, runs, runs[1:], {run.name: 5 for run in runs}) as board:
        assert board.left == {runs[1].name: 2, runs[2].name: 5, runs[3].name: 5}
        board.start(runs[1], "")
        board.start(runs[2], "on GPU 1")
        board.finish(runs[1], "")
        board.fail(runs[2], "on GPU 1", "it is so")
        board.finish(runs[3], "by another command")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["4 runs, 1 of them finished before", "[1/4] started on GPU 1: run 2"]
    assert lines[2].startswith("[2/4] finished: run 1, about ")
    assert lines[3].startswith("[3/4] FAILED on GPU 1: run 2: it is so, about ")
    assert lines[4] == "[4/4] finished by another command: run 3"


def test_the_bar_tells_each_place_apart(tmp_path):
    runs = [plan_run(CONFIG, {"sha256": str(index)}, 1, None, "x") for index in range(2)]
    board = Board(tmp_path, runs, runs, {run.name: 5 for run in runs})
    board.bar.disable = False
    board.bar.set_description = lambda text: said.append(text)
    said: list[str] = []
    (tmp_path / runs[1].name).mkdir()
    (tmp_path / runs[1].name / "metrics.jsonl").write_text('{"step": 3}\n')
    board.show({"job 1": runs[0], "job 2": runs[1]})
    assert board.bar.n == 3 and said[0].endswith("(job 1 0/5, job 2 3/5)")
    board.bar.disable = True
