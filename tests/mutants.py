"""One-line faults that the nearest tests must catch: python -m tests.mutants [NAME ...]

Each fault is put into a copy of the package, its tests run there, and they have to fail. A fault that passes them is
reported and makes the exit status 1. The list is part of the suite only in that every fault must still apply
(`tests/test_mutants.py`); running it takes a few seconds each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("pps_fast", "kernels", "tests", "benchmarks", "pyproject.toml", "setup.py")


@dataclass(frozen=True)
class Mutant:
    """A fault and what must find it.

    Attributes:
        path: of the file, from the project's root.
        old, new: a piece of the file, which stands in it once, and what replaces it.
        tests: the test file nearest to it, and pytest's options.
    """

    path: str
    old: str
    new: str
    tests: str


MUTANTS: dict[str, Mutant] = {
    "rate shifted by one update": Mutant(
        "pps_fast/train/loop.py",
        "set_learning_rate(learning_rate(self.step,",
        "set_learning_rate(learning_rate(self.step + 1,",
        "tests/train/test_loop.py",
    ),
    "warm-up reaches its rate one update late": Mutant(
        "pps_fast/train/schedule.py",
        "if update < config.warmup_updates:",
        "if update <= config.warmup_updates + 1:",
        "tests/train/test_schedule.py",
    ),
    "filtered protocol accepts ends up to a second late": Mutant(
        "pps_fast/prepare/readers/protocols.py",
        "if end_s > item.duration_s:\n        return",
        "if end_s > item.duration_s + 1:\n        return",
        "tests/prepare/readers/test_protocols.py",
    ),
    "full protocol does not clip": Mutant(
        "pps_fast/prepare/readers/protocols.py",
        "min(window[1], item.duration_s)",
        "window[1]",
        "tests/prepare/readers/test_protocols.py",
    ),
    "clip_norm 1": Mutant(
        "pps_fast/config.py", "clip_norm: float = 10.0", "clip_norm: float = 1.0", "tests/test_presets.py"
    ),
    "dropout 0.2": Mutant(
        "pps_fast/config.py", "dropout: float = 0.1", "dropout: float = 0.2", "tests/test_presets.py"
    ),
    "stride 2": Mutant("pps_fast/config.py", "stride: int = 4", "stride: int = 2", "tests/test_presets.py"),
    "push_normalize off": Mutant(
        "pps_fast/config.py", "push_normalize: bool = True", "push_normalize: bool = False", "tests/test_presets.py"
    ),
    "label smoothing off": Mutant(
        "pps_fast/config.py", "label_smoothing: float = 0.1", "label_smoothing: float = 0.0", "tests/test_presets.py"
    ),
    "warm-up of 40 updates": Mutant(
        "pps_fast/config.py", "warmup_updates: int = 400", "warmup_updates: int = 40", "tests/test_presets.py"
    ),
    "sigma 9 of ActivityNet's negatives": Mutant(
        "pps_fast/presets.py",
        '"proposals.negatives.sigma": 4.0,\n    "losses.contrastive": 1.0,',
        '"proposals.negatives.sigma": 9.0,\n    "losses.contrastive": 1.0,',
        "tests/test_presets.py",
    ),
    "row floor 1e-6": Mutant(
        "pps_fast/equations.py", "ROW_SUM_FLOOR = 1e-37", "ROW_SUM_FLOOR = 1e-6", "tests/ops/test_pull_push.py"
    ),
    "floor under masks 1e-8": Mutant(
        "pps_fast/equations.py", "MASK_FLOOR = 1e-10", "MASK_FLOOR = 1e-8", "tests/test_equations.py"
    ),
    "half the gradient of a width at its floor": Mutant(
        "pps_fast/equations.py",
        "width.clamp(min=width_floor)",
        "torch.maximum(width, torch.full_like(width, width_floor))",
        "tests/ops/test_gaussian_mask.py",
    ),
    "no gradient of a width at its floor, in the kernel": Mutant(
        "kernels/gaussian_mask.py",
        "tl.where(b_width >= WIDTH_FLOOR,",
        "tl.where(b_width > WIDTH_FLOOR,",
        "tests/ops/test_gaussian_mask.py",
    ),
    "a log of a mixture without its weights, in the kernel": Mutant(
        "kernels/mixture_exponent.py",
        "return b_importance, b_exponents + tl.log(tl.where(b_importance < TINY, TINY, b_importance))[:, None]",
        "return b_importance, b_exponents",
        "tests/ops/test_mixture_exponent.py",
    ),
    "half the gradient of an exponent's center": Mutant(
        "kernels/gaussian_mask.py", "b_a = _slope(b_d, 0)", "b_a = _slope(b_d, 1)", "tests/ops/test_gaussian_mask.py"
    ),
    "all the gradient at the kink of a hinge, in the kernel": Mutant(
        "kernels/contrastive_loss.py",
        "tl.where(m_best & (b_x >= 0), tl.where(b_x == 0, 0.5 * b_share, b_share), 0.0)",
        "tl.where(m_best & (b_x >= 0), b_share, 0.0)",
        "tests/ops/test_contrastive_loss.py",
    ),
    "terms weighted in another order": Mutant(
        "pps_fast/losses.py", "list(self.weights.values())", "sorted(self.weights.values())", "tests/test_losses.py"
    ),
    "a loss that is not finite is trained on, in the kernel": Mutant(
        "kernels/clip_adam.py", "tl.abs(tl.load(p_loss)) <", "tl.load(p_part) <", "tests/ops/test_clip_adam.py"
    ),
    "rounded copies from before the update": Mutant(
        "pps_fast/ops/clip_adam.py", "rounded.copy_(parameters)", "pass", "tests/ops/test_clip_adam.py"
    ),
    "push loss without its target": Mutant(
        "pps_fast/equations.py",
        ".sum(-1) - target * identity",
        ".sum(-1) - target * 0.99 * identity",
        "tests/test_equations.py",
    ),
    "upper instead of lower median": Mutant(
        "pps_fast/equations.py", "_at(ordered, (size - 1) // 2)", "_at(ordered, size // 2)", "tests/test_equations.py"
    ),
    "curves standardized by n - 1 frames": Mutant(
        "pps_fast/alignment/equations.py",
        "variance = away.square().sum(-1, keepdim=True) / count",
        "variance = away.square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)",
        "tests/alignment/test_equations.py",
    ),
    "half the pull of a mask's length, in the kernel": Mutant(
        "kernels/mask_reward.py", "2.0 * POWER * b_grad", "POWER * b_grad", "tests/ops/test_mask_reward.py"
    ),
    "second moment decays faster": Mutant(
        "pps_fast/train/optimizer.py",
        "betas: tuple[float, float] = (0.9, 0.999)",
        "betas: tuple[float, float] = (0.9, 0.99)",
        "tests/train/test_optimizer.py",
    ),
    "IoU must exceed its threshold": Mutant(
        "pps_fast/eval/metrics.py", "(overlap >= m)", "(overlap > m)", "tests/eval/test_metrics.py"
    ),
    "votes weighted by the square of the loss": Mutant(
        "pps_fast/predict.py", "(1 - nll / worst)", "(1 - (nll / worst) ** 2)", "tests/test_predict.py"
    ),
    "validation videos are also trained on": Mutant(
        "pps_fast/data/splits.py", "train = train & ~validation", "train = train", "tests/data/test_splits.py"
    ),
    "folds ignore the size of a video": Mutant(
        "pps_fast/prepare/readers/folds.py",
        "np.argsort(-samples[shuffled], kind",
        "np.argsort(samples[shuffled], kind",
        "tests/prepare/readers/test_folds.py",
    ),
}


def run_mutant(name: str, folder: Path) -> bool:
    """Puts the fault into a copy of the project in `folder` and returns whether its tests fail there."""
    mutant = MUTANTS[name]
    path = folder / mutant.path
    original = path.read_text(encoding="utf-8")
    if original.count(mutant.old) != 1:
        raise ValueError(f"{name}: {mutant.path} has {original.count(mutant.old)} times {mutant.old!r}, expected once")
    path.write_text(original.replace(mutant.old, mutant.new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests.split()]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    finally:
        path.write_text(original, encoding="utf-8")
    # 1: tests failed; anything else says nothing about the fault
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{name}: pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    killer = next((line for line in done.stdout.splitlines() if line.startswith("FAILED")), "")
    print(
        f"{'killed' if done.returncode else 'SURVIVED':9}{name}: {killer.removeprefix('FAILED ').split(' - ')[0]}",
        flush=True,
    )
    return done.returncode == 1


def main(names: list[str]) -> int:
    """Runs the named faults, or all of them; 0 if every one was found by its tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for item in COPIED:
            source = ROOT / item
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / item)
        survivors = [item for item in names or MUTANTS if not run_mutant(item, folder)]
    print(f"{len(names or MUTANTS)} faults, {len(survivors)} not found")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
