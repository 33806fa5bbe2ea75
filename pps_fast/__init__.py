"""pps_fast: weakly supervised temporal video grounding with Gaussian mixture proposals (PPS, AAAI 2024).

The names of `__all__` are what a user needs; each is loaded when it is first used, so that importing the package loads
no torch. The programs are `pps-fast VERB` or `python -m pps_fast.VERB`; `pps-fast --help` lists them.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pps_fast.config import PPSConfig as PPSConfig
    from pps_fast.config_tree import override as override
    from pps_fast.ground.grounder import Grounder as Grounder
    from pps_fast.ground.grounder import load as load
    from pps_fast.model import PPS as PPS
    from pps_fast.pipeline import evaluate as evaluate
    from pps_fast.pipeline import train_and_evaluate as train_and_evaluate
    from pps_fast.presets import PRESETS as PRESETS
    from pps_fast.runs.checkpoint import load_model as load_model

__version__ = "0.1.0"
__all__ = [
    "PPS",
    "PRESETS",
    "Grounder",
    "PPSConfig",
    "evaluate",
    "load",
    "load_model",
    "override",
    "train_and_evaluate",
]

# name -> the module it is loaded from. None may be the name of a module or package of pps_fast: importing that would
# replace it
_HOMES = {
    "Grounder": "pps_fast.ground.grounder",
    "PPS": "pps_fast.model",
    "PPSConfig": "pps_fast.config",
    "PRESETS": "pps_fast.presets",
    "evaluate": "pps_fast.pipeline",
    "load": "pps_fast.ground.grounder",
    "load_model": "pps_fast.runs.checkpoint",
    "override": "pps_fast.config_tree",
    "train_and_evaluate": "pps_fast.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


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


def _is_program() -> bool:
    """Whether this process runs `python -m pps_fast.VERB` or `pps-fast VERB`, and is no user of the package."""
    words = sys.orig_argv
    module = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return Path(sys.argv[0]).name == "pps-fast" or (sys.argv[0] == "-m" and module[0].split(".")[0] == __name__)


if _is_program():
    # before all else is imported, which takes long enough to be interrupted
    from pps_fast.interrupts import interrupt_in_one_line

    interrupt_in_one_line()
