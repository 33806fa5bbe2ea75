"""README.md and CONTRIBUTING.md are true: blocks run or parse, links lead somewhere, trees show what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pps_fast.features import encoders
from pps_fast.features.encoders import open_encoder
from pps_fast.ground import sentences, videos
from pps_fast.prepare import sentence_vectors
from tests.support.documents import ROOT, Block, GuideError, broken_links, code_spans, read_blocks, read_commands
from tests.support.encoders import counting_encoder
from tests.support.programs import check_program, has_option
from tests.support.readme_inputs import write_inputs
from tests.support.walkthrough import Walkthrough, follow

README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
GUIDES = [README, CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
# fast enough to run here; all others are parsed by their own parsers
EXECUTES = frozenset({f"pps_fast.{name}" for name in ("features", "prepare", "blind", "align", "ground")})
# whose options the prose may name: a program and the words that its command line needs
PROGRAMS = (
    ("pps_fast.train",),
    ("pps_fast.prepare", "--out", "x", "--features", "x", "--vocabulary", "x", "--protocol", "full"),
    ("pps_fast.eval", "--model", "x"),
    ("pps_fast.ablate", "fig3", "--out", "x"),
    ("pps_fast.draw", "timeline", "--model", "x"),
    ("pps_fast.ground", "--model", "x", "--features", "x"),
    ("pps_fast.demo", "--model", "x", "--videos", "x"),
)


def _block(language: str, text: str, path: str = "") -> Block:
    return Block(language, path, text, "test:1")


def test_the_readme_can_be_followed_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the library of encoders is an extra
    for module in (sentence_vectors, sentences):
        monkeypatch.setattr(module, "open_encoder", counting_encoder)
    # and so are those of frames, which are not at hand
    color = open_encoder("color")
    monkeypatch.setattr(encoders, "locate_frame_encoder", lambda named: None)
    for module in (encoders, videos):
        monkeypatch.setattr(module, "open_encoder", lambda named, device="cpu": color)
    write_inputs(tmp_path)
    walkthrough = follow(README, tmp_path, EXECUTES)
    assert (tmp_path / "runs" / "first" / "evaluation_test.md").is_file()
    assert (tmp_path / "charades.h5").is_file() and "runs/charades" in walkthrough.written


def test_contributing_can_be_followed(tmp_path: Path) -> None:
    follow(CONTRIBUTING, tmp_path)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: f"{guide.parent.name}/{guide.name}")
def test_links_lead_somewhere(guide: Path) -> None:
    assert not broken_links(guide)


def test_the_first_python_of_the_readme_is_five_lines() -> None:
    first = next(block for block in read_blocks(README) if block.language == "python")
    assert len([line for line in first.text.splitlines() if line]) <= 5


@pytest.mark.parametrize("guide", [README, CONTRIBUTING], ids=lambda guide: guide.name)
def test_trees_show_files_that_exist(guide: Path) -> None:
    trees = [block for block in read_blocks(guide) if block.language == "text" and block.text.startswith("pps_fast/")]
    assert trees, "no tree"
    for tree in trees:
        assert not _absent(tree.text)


def test_the_readme_shows_every_room() -> None:
    tree = next(block.text for block in read_blocks(README) if block.text.startswith("pps_fast/"))
    listed = set(re.findall(r"^  (\S+)", tree, re.MULTILINE))
    rooms = {f"{folder.name}/" for folder in (ROOT / "pps_fast").iterdir() if (folder / "__init__.py").is_file()}
    assert rooms <= listed, f"not in the tree: {sorted(rooms - listed)}"


def test_options_in_the_prose_exist() -> None:
    spans = [span for guide in (README, CONTRIBUTING) for span in code_spans(guide) if span.startswith("--")]
    named = sorted({word.partition("=")[0] for span in spans for word in span.split() if word.startswith("--")})
    unknown = [name for name in named if not any(has_option(name, *program) for program in PROGRAMS)]
    assert len(named) > 5 and not unknown


def test_an_option_in_the_prose_that_does_not_exist_is_seen() -> None:
    assert not any(has_option("--losses.pulll", *program) for program in PROGRAMS)
    assert has_option("--losses.pull", *PROGRAMS[0]) and not has_option("--losses.pull", *PROGRAMS[1])


def test_the_table_on_the_first_screen_is_the_one_it_links_to() -> None:
    text = README.read_text(encoding="utf-8")
    link, table = re.search(r"\(\[whole table\]\((\S+)\)\):\n\n((?:\|.*\n)+)", text).groups()
    measured = (ROOT / link).read_text(encoding="utf-8").splitlines()
    rows = table.splitlines()
    assert len(rows) == 5 and all(row in measured for row in rows)


def test_the_shares_of_flops_are_those_that_were_counted() -> None:
    text = " ".join(README.read_text(encoding="utf-8").split())
    sentence = re.search(
        r"Charades-STA has (\d+) % .*? and (\d+) % .*?Captions (\d+) % and (\d+) %.*?\]\((\S+?)\)", text
    )
    *said, path = sentence.groups()
    rows = [json.loads(line) for line in (ROOT / path).read_text(encoding="utf-8").splitlines()]
    trained = {row["preset"]: row for row in rows if row["what"] == "products of a training step"}
    counted = [
        round(trained[f"{name}_released"][f"percent_saved_{device}_against_published"])
        for name in ("charades", "activitynet")
        for device in ("gpu", "cpu")
    ]
    assert [int(share) for share in said] == counted


def _absent(tree: str) -> list[str]:
    """Returns the paths of an indented tree that are not in the checkout."""
    folders: list[str] = []
    absent = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name]
        path = "".join(folders)
        if not (ROOT / path).exists():
            absent.append(path)
    return absent


# the tests above can fail


@pytest.mark.parametrize(
    "command",
    [
        "python -m pps_fast.train --losses.pulll 0",
        "python -m pps_fast.train --losses.pull -1",
        "python -m pps_fast.train --preset charade",
        "python -m pps_fast.train --out runs/never_begun --resume",
        "python -m pps_fast.no_such_program",
        "pps-fast no_such_verb",
        "python -m pps_fast.eval --model runs/never_trained",
        "python -m pps_fast.blind --data never_prepared.h5",
        "python -m benchmarks.step --preset no_such_preset",
        "python docs/no_such_script.py",
        "python -m pytest tests/no_such_test.py",
        "python -m somebody_elses",
        "make no-such-target",
        "make demo NO_SUCH_VARIABLE=1",
        'pip install -e ".[no_such_extra]"',
        "pip install -c no_such_constraints.txt torch",
        "source no_such_environment/bin/activate",
        "cd no_such_folder",
        "git push --force",
        "curl example.org",
        "torchrun --nproc-per-node 2 -m pps_fast.eval --model runs/tiny",
        "torchrun --nproc-per-nodes 2 -m pps_fast.train",
        "torchrun --nproc-per-node 2 -m pps_fast.train --losses.pulll 0",
        "srun torchrun --nproc-per-node 2 -m pps_fast.train --preset no_such_preset",
    ],
)
def test_a_command_that_cannot_work_is_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(GuideError, match="test:1"):
        Walkthrough(tmp_path).follow(_block("bash", command))


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", "from pps_fast import no_such_name"),
        ("python", "1 / 0"),
        ("rust", ""),
        ("", "x"),
        ("console", "$ ls"),
    ],
)
def test_a_block_that_cannot_work_is_refused(language: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(GuideError, match="test:1"):
        Walkthrough(tmp_path).follow(_block(language, text))


def test_parsing_a_command_does_not_run_it(tmp_path: Path) -> None:
    check_program("pps_fast.train", ["--preset", "tiny", "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_what_a_command_writes_can_be_read_after_it(tmp_path: Path) -> None:
    walkthrough = Walkthrough(tmp_path)
    walkthrough.follow(
        _block("bash", "python -m pps_fast.train --preset tiny\npython -m pps_fast.eval --model runs/tiny")
    )
    assert walkthrough.written == {"runs/tiny"}


def test_commands_are_joined_over_lines_and_lose_comments() -> None:
    assert read_commands("A=1 make \\\n  test  # why\n\n# no command\nmake demo\n") == [
        ["make", "test"],
        ["make", "demo"],
    ]


def test_blocks_know_language_file_and_line(tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text("a\n```json data.json\n{}\n```\n```bash\nmake\n```\n", encoding="utf-8")
    assert read_blocks(guide) == [
        Block("json", "data.json", "{}\n", "guide.md:2"),
        Block("bash", "", "make\n", "guide.md:5"),
    ]
    guide.write_text("```bash\nmake\n", encoding="utf-8")
    with pytest.raises(GuideError, match=r"guide.md:1: .* never closed"):
        read_blocks(guide)


def test_broken_links_and_absent_files_are_seen(tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text("# One two\n[a](#one-two) [b](#three) [c](absent.md) [d](guide.md) [e](https://x.org)\n", "utf-8")
    assert broken_links(guide) == ["#three", "absent.md"]
    assert _absent("pps_fast/   x\n  model.py   y\n  absent.py  z\n") == ["pps_fast/absent.py"]


def test_the_demo_ends_with_commands_that_work(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    for arguments, run in (
        ("--preset tiny --out runs/mine", "runs/mine"),
        ("--out=runs/mine", "runs/mine"),
        ("", "runs/demo-"),
    ):
        command = [
            "make",
            "--no-print-directory",
            "--dry-run",
            "--assume-old",
            ".venv/installed",
            "demo",
            f"ARGS={arguments}",
        ]
        recipe = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        said = re.findall(r"^echo '(.*)'$", recipe, re.MULTILINE)
        commands = [line.strip() for line in said if line.startswith("  ")]
        (trained,) = set(re.findall(r"runs/[\w-]+", recipe))
        assert len(commands) == 4 and trained.startswith(run)
        walkthrough = Walkthrough(tmp_path, written={trained, ".venv/bin/activate"})
        walkthrough.follow(_block("bash", "\n".join(commands)))
