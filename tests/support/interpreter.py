"""Triton's interpreter without work that it repeats: what kernels compute in it stays the same to the bit.

Before every launch, and again at every call of a function of a kernel, the interpreter looks through all of
`triton.language` for functions to replace, which takes more than a third of its time; the names that it finds are
always the same. Here they are looked up once. The table of numpy's types, which it writes at every cast and every
load, is kept, too. `tests/test_interpreter.py` compares with the interpreter
as it is.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

_CHANGED = ("_patch_lang", "_get_np_dtype", "_LangPatchScope", "_MISSING")


class _Patches:
    """Replaces `_patch_lang`: the same attributes, found once for each set of modules that a kernel sees."""

    def __init__(self, interpreter: Any) -> None:
        self.original: Callable[[Any], Any] = interpreter._patch_lang
        self._scope_type: type[Any] = interpreter._LangPatchScope
        self._missing: object = interpreter._MISSING
        self._languages = (interpreter.tl, interpreter.tl.core)
        self._seen: dict[Any, frozenset[str]] = {}
        self._replaced: dict[frozenset[str], list[tuple[Any, str, Any, Any]]] = {}
        # what the launch that is running has already replaced
        self._active: frozenset[str] = frozenset()

    def __call__(self, fn: Any) -> Any:
        seen = self._seen.get(fn)
        if seen is None:
            modules = [value for value in fn.__globals__.values() if inspect.ismodule(value)]
            seen = self._seen[fn] = frozenset(each.__name__ for each in modules if each in self._languages)
        if seen and seen <= self._active:
            return self._scope_type()
        before = self._active
        scope = self._replay(seen) or self._look_up(fn, seen)
        self._active = before | seen
        restore = scope.restore

        def restore_all() -> None:
            restore()
            self._active = before

        scope.restore = restore_all
        return scope

    def _look_up(self, fn: Any, seen: frozenset[str]) -> Any:
        scope = self.original(fn)
        # an attribute may have been set several times: the first time has its original
        first: dict[tuple[int, str], tuple[Any, str, Any]] = {}
        for change in scope._changes:
            first.setdefault((id(change[0]), change[1]), change)
        self._replaced[seen] = [(obj, name, original, getattr(obj, name)) for obj, name, original in first.values()]
        return scope

    def _replay(self, seen: frozenset[str]) -> Any:
        scope = self._scope_type()
        for obj, name, original, value in self._replaced.get(seen, ()):
            now = getattr(obj, name, self._missing)
            # a test may have replaced a function of the language itself
            if now is not original and now is not value:
                return None
            scope._changes.append((obj, name, now))
        for obj, name, _, value in self._replaced.get(seen, ()):
            setattr(obj, name, value)
        return scope if scope._changes else None


def _keep_results(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Of a block of elements it is what it is of one; their types are compared by name."""
    kept: dict[str, Any] = {}

    @wraps(function)
    def kept_or_new(dtype: Any) -> Any:
        name = dtype.scalar.name
        if name not in kept:
            kept[name] = function(dtype)
        return kept[name]

    return kept_or_new


def spare_the_interpreter() -> None:
    """Makes the changes, once; leaves alone a version of Triton that is made otherwise."""
    if importlib.util.find_spec("triton") is None:
        return
    from triton.runtime import interpreter

    if isinstance(interpreter._patch_lang, _Patches) or not all(hasattr(interpreter, name) for name in _CHANGED):
        return
    interpreter._patch_lang = _Patches(interpreter)
    interpreter._get_np_dtype = _keep_results(interpreter._get_np_dtype)
