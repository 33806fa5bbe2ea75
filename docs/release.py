"""Builds a release and tries it where the checkout is not: make release, or python docs/release.py ENVIRONMENT.

    1. pps_fast's version has a section with a date in CHANGELOG.md, and the section is not empty
    2. wheel and sdist are built into dist/
    3. each is installed into ENVIRONMENT, an environment of its own with pip; outside the checkout every program there
       shows its help, and a tiny model is trained and evaluated

Nothing is uploaded, committed or tagged.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def read_version(root: Path) -> str:
    """Returns `__version__` of pps_fast/__init__.py."""
    source = (root / "pps_fast" / "__init__.py").read_text(encoding="utf-8")
    line = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if line is None:
        raise ValueError('pps_fast/__init__.py has no line __version__ = "..."')
    return line.group(1)


def check_changelog(root: Path) -> None:
    """Refuses a version that CHANGELOG.md does not describe as its newest.

    Raises:
        ValueError: saying what to write there.
    """
    version = read_version(root)
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    released = [section for section in sections if not section.startswith("[Unreleased]")]
    title, _, body = released[0].partition("\n") if released else ("none", "", "")
    if not re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}", title.strip()):
        raise ValueError(
            f"CHANGELOG.md: the newest released section is '{title.strip()}'; expected '[{version}] - YYYY-MM-DD', the "
            "version of pps_fast/__init__.py"
        )
    if "- " not in body:
        raise ValueError(f"CHANGELOG.md: the section of {version} says nothing")


def programs_of(root: Path) -> list[str]:
    """Returns the names of all programs: packages with a __main__.py, and single files that end in a call of main."""
    package = root / "pps_fast"
    files = [path for path in package.glob("*.py") if path.stem != "__main__"]
    single = [path.stem for path in files if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
    return sorted([path.parent.name for path in package.glob("*/__main__.py")] + single)


def build(root: Path, folder: Path) -> list[Path]:
    """Builds wheel and sdist from a copy of the last commit, and returns their paths.

    Raises:
        ValueError: for changes that are not committed.
    """
    if _run(["git", "status", "--porcelain"], root):
        raise ValueError("there are changes that are not committed; a release is made of a commit")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=root, check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "--extract", "--directory", str(source)], input=archive, check=True)
        for kind in ("sdist", "wheel"):
            # what pip calls, each in a process of its own: the first leaves settings behind that the second reads
            code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
            _run([sys.executable, "-c", code, str(folder)], source)
    built = sorted(folder.iterdir())
    if sorted(path.suffix for path in built) != [".gz", ".whl"]:
        raise RuntimeError(f"expected a wheel and an sdist, built {[path.name for path in built]}")
    return built


def try_installed(python: Path, archive: Path, programs: list[str], constraints: Path) -> None:
    """Installs an archive and runs all programs in an empty folder."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
    with tempfile.TemporaryDirectory() as empty:
        folder = Path(empty)
        _run([*pip, str(archive)], folder)
        # the version may be the same as that of the archive before
        _run([*pip, "--force-reinstall", "--no-deps", str(archive)], folder)
        for name in programs:
            _run([str(python), "-m", f"pps_fast.{name}", "--help"], folder)
            _run([str(python.parent / "pps-fast"), name, "--help"], folder)
        steps = ["--train.max-steps", "2", "--device", "cpu"]
        _run([str(python), "-m", "pps_fast.train", "--preset", "tiny", *steps, "--out", "run"], folder)
        _run([str(python), "-m", "pps_fast.eval", "--model", "run", "--device", "cpu"], folder)


def _run(command: list[str], folder: Path) -> str:
    """Runs a command in a folder and returns what it printed.

    Raises:
        RuntimeError: for another exit status than 0; the message has the output.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def main(argv: list[str]) -> int:
    """Builds and tries a release; returns the exit status."""
    if len(argv) != 1 or argv[0].startswith("-"):
        print(__doc__)
        return 0 if argv == ["--help"] else 2
    python = Path(argv[0]).absolute() / "bin" / "python"
    try:
        check_changelog(ROOT)
        archives = build(ROOT, ROOT / "dist")
        for archive in archives:
            try_installed(python, archive, programs_of(ROOT), ROOT / "constraints.txt")
            print(f"installed and tried outside the checkout: {archive.relative_to(ROOT)}")
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("next: git tag, as CONTRIBUTING.md says")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
