"""Records which ops a block of code calls, with which inputs and from where."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import nn

from pps_fast.ops import dispatch
from pps_fast.ops.dispatch import Op

# frames of these files stand between an op's caller and the listener
_BETWEEN = (dispatch.__name__, __name__)


@dataclass(frozen=True)
class Record:
    """One call of an op.

    Attributes:
        op: what was called.
        site: where it was called from, such as "generator.video_stack.self_attention" (see `record_calls`).
        backend: the one asked for, "auto", "triton" or "torch", after the ambient choice of `use_backend`.
        inputs: the arguments by name, in the order of the op's parameters, defaults included.
    """

    op: Op
    site: str
    backend: str
    inputs: dict[str, Any]


@contextmanager
def record_calls(
    roots: Sequence[tuple[str, object]] = (), choose: Callable[[Record], str] | None = None
) -> Iterator[list[Record]]:
    """Records the calls of ops inside the block, in their order; also those that an op refuses.

    A site is the path of the module that made the call, from the root it belongs to on and without entries of lists.
    If a module of another root called that one, its path stands before it: "importance: reconstructor.word_stack".
    A function other than `forward` is named behind the path, and stands alone where the call came from no root.

    Blocks may be nested; each records all calls inside it. Code that torch.compile compiled is not recorded.

    Args:
        roots: names that sites begin with, and the modules or other objects whose methods call ops. A module inside
            two roots belongs to the inner one, whatever their order.
        choose: returns the backend that a recorded call shall run with; the one it asked for by default.
    """
    names = _names_of(roots)
    records: list[Record] = []
    outer = dispatch.listener

    def listen(op: Op, backend: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if outer is not None:
            backend = outer(op, backend, args, kwargs)
        if torch.compiler.is_compiling():
            return backend
        record = Record(op, _site(sys._getframe(), names), backend, _bound(op, args, kwargs))
        records.append(record)
        return backend if choose is None else choose(record)

    dispatch.listener = listen
    try:
        yield records
    finally:
        dispatch.listener = outer


def _names_of(roots: Sequence[tuple[str, object]]) -> dict[int, str]:
    """Returns id of an object -> its name, for the roots and the modules inside them."""
    names: dict[int, str] = {}
    # a module belongs to the root with the fewest modules
    for name, root in sorted(roots, key=lambda item: -len(_modules_of(item[1]))):
        names[id(root)] = name
        for path, module in root.named_modules() if isinstance(root, nn.Module) else ():
            # "blocks.0.self_attention": neither the list nor the number
            steps = re.sub(r"\b(\w+\.)?\d+(\.|$)", "", path).strip(".")
            names[id(module)] = f"{name}.{steps}" if steps else name
    return names


def _modules_of(root: object) -> list[nn.Module]:
    return list(root.modules()) if isinstance(root, nn.Module) else []


def _bound(op: Op, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by name; arguments that do not fit are left to the op's own error."""
    signature = inspect.signature(op._torch)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        return dict(kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _site(frame: FrameType | None, names: Mapping[int, str]) -> str:
    """Returns the site of the op call that `frame` belongs to."""
    while frame is not None and frame.f_globals.get("__name__") in _BETWEEN:
        frame = frame.f_back
    function = "" if frame is None else frame.f_code.co_name.strip("_")
    paths: list[str] = []
    inner = None
    while frame is not None:
        caller = frame.f_locals.get("self")
        path = names.get(id(caller))
        # a module that holds the one it calls says nothing new
        if path is not None and not any(module is inner for module in _modules_of(caller)):
            if not paths or paths[-1] != path:
                paths.append(path)
            inner = caller
        frame = frame.f_back
    if not paths:
        return function
    innermost = paths[0] if function == "forward" else f"{paths[0]}.{function}"
    return ": ".join((*reversed(paths[1:]), innermost))
