"""A release is refused without its changelog, knows every program, and builds what a commit holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import release

SECTIONS = "# Changelog\n\n## [Unreleased]\n\n{}\n## [0.1.0] - 2026-01-01\n\n### Added\n\n- everything\n"


def _project(folder: Path, version: str, changelog: str) -> Path:
    (folder / "pps_fast").mkdir()
    (folder / "pps_fast" / "__init__.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
    (folder / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    return folder


def test_a_version_with_its_section_is_accepted(tmp_path: Path) -> None:
    release.check_changelog(_project(tmp_path, "0.1.0", SECTIONS.format("")))


@pytest.mark.parametrize(
    ("version", "changelog", "reason"),
    [
        ("0.2.0", SECTIONS.format(""), r"'\[0.1.0\] - 2026-01-01'; expected '\[0.2.0\] - YYYY-MM-DD'"),
        ("0.2.0", SECTIONS.format("## [0.2.0]\n\n- more\n"), r"'\[0.2.0\]'; expected"),
        ("0.2.0", SECTIONS.format("## [0.2.0] - 2026-02-01\n\n"), "the section of 0.2.0 says nothing"),
        ("0.1.0", "# Changelog\n\n## [Unreleased]\n\n- more\n", "'none'; expected"),
    ],
)
def test_a_version_without_its_section_is_refused(version: str, changelog: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        release.check_changelog(_project(tmp_path, version, changelog))


def test_every_program_is_known() -> None:
    programs = release.programs_of(release.ROOT)
    assert {"train", "eval", "prepare", "draw", "ablate", "compare", "blind", "info"} <= set(programs)
    assert not {"cli", "model", "equations"} & set(programs)


def test_uncommitted_changes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "_run", lambda command, folder: " M pps_fast/model.py\n")
    with pytest.raises(ValueError, match="a release is made of a commit"):
        release.build(tmp_path, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_a_command_that_fails_is_told_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="false failed"):
        release._run(["false"], tmp_path)
