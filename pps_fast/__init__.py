"""pps_fast: weakly supervised temporal video grounding with Gaussian mixture proposals (PPS, AAAI 2024).

The programs are `python -m pps_fast.prepare`, `pps_fast.train` and `pps_fast.eval`; the model is `pps_fast.model.PPS`.
"""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"


def _find_kernels() -> None:
    """Makes the checkout's top-level `kernels/` importable as `pps_fast.kernels`, its name in an installed package.

    Only the package's own search path grows, never sys.path, so that a third-party package named `kernels` is
    neither hidden nor taken for ours.
    """
    package = Path(__file__).resolve().parent
    installed = (package / "kernels").is_dir()
    # a file only this project has, so that no stranger's directory of that name is taken in
    if not installed and (package.parent / "kernels" / "gaussian_mask.py").is_file():
        __path__.append(str(package.parent))


_find_kernels()
