"""Imports every program and what they load when they run, for the server that forks the children of the campaigns."""

from __future__ import annotations

import contextlib
import importlib

_NAMES = (
    *(f"pps_fast.{name}.__main__" for name in ("train", "eval", "prepare", "draw", "published", "ground", "features")),
    *(f"pps_fast.{name}" for name in ("blind", "info", "compare", "ablate", "align", "pipeline", "prepare.build")),
    *(f"pps_fast.{name}" for name in ("prepare.report", "eval.report", "lab.command", "lab.human", "draw.pictures")),
    *(f"pps_fast.{name}" for name in ("ground.report", "ground.sources", "eval.judge_report", "train.closed_form")),
    *(f"pps_fast.{name}" for name in ("published.convert", "train.fake_step", "ops.choices", "ops.record")),
    # loaded by torch, tyro, numpy and matplotlib when a program runs
    *("torch._dynamo", "torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes", "numpy.ma"),
    *("typeguard", "tyro._backends._tyro_backend", "tyro.constructors._struct_spec_dataclass"),
    *(f"pps_fast.features.{name}" for name in ("decode", "encoders", "extract", "report", "run", "store")),
    *("matplotlib.backends.backend_agg", "matplotlib.figure", "PIL.PngImagePlugin"),
)

for _name in _NAMES:
    # matplotlib is an extra
    with contextlib.suppress(ImportError):
        importlib.import_module(_name)
