"""Compares this package with golden files of the published code: python tests/golden_check.py FILE.npz ...

A golden file records what the published code of PPS, CPL or CNM computed, or float64 values of each formula (see
tests/golden/README.md). Prints the largest error of every group of arrays and exits with status 1 if one exceeds its
tolerance.
"""

from __future__ import annotations

import sys
from pathlib import Path

# run as a script, the tests' folder is on the path and the checkout is not
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.golden_ancestors import check_ancestor  # noqa: E402
from tests.support.golden_kernels import check_kernels  # noqa: E402
from tests.support.golden_model import Golden  # noqa: E402
from tests.support.golden_outputs import check_model  # noqa: E402
from tests.support.golden_report import TOLERANCE, Check  # noqa: E402

# model of a file -> all comparisons with it
CHECKS = {"PPS": check_model, "CPL": check_ancestor, "CNM": check_ancestor}


def check_file(path: str | Path) -> list[Check]:
    """Returns every comparison with one file.

    Raises:
        ValueError: for a file of another model.
    """
    golden = Golden(path)
    if not golden.meta:
        return list(check_kernels(golden))
    name = golden.meta["model"]["name"]
    if name not in CHECKS:
        raise ValueError(f"{path}: golden file of {name}; expected {', '.join(CHECKS)} or kernels_f64")
    return list(CHECKS[name](golden))


def summarize(checks: list[Check]) -> list[str]:
    """Returns one line per group: the largest error, where it is, the tolerance, and how many arrays were compared."""
    lines = []
    for group, tolerance in TOLERANCE.items():
        members = [check for check in checks if check.group == group]
        if members:
            worst = max(members, key=lambda check: check.error)
            verdict = "ok" if all(check.is_ok for check in members) else "FAILED"
            lines.append(
                f"  {group:17s} {len(members):4d} arrays  largest error {worst.error:8.1e}"
                f" (tolerance {tolerance:.0e})  {verdict:6s}  {worst.name}"
            )
    return lines


def main(paths: list[str]) -> int:
    """Checks the files and prints a table for each."""
    if not paths or paths[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if paths else 2
    failed = []
    for path in paths:
        checks = check_file(path)
        print(Path(path).name, *summarize(checks), sep="\n")
        failed += [f"{Path(path).name}: {check.name}" for check in checks if not check.is_ok]
    if failed:
        print(f"{len(failed)} comparisons failed:", *failed[:20], sep="\n  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
