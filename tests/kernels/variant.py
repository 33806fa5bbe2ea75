"""A kernel as it is shipped, and a key that changes when what is compiled changes.

The key is computed from source text, so that it is the same whether kernels are compiled or interpreted, and does not
change with comments, docstrings, formatting and the position of a kernel in its file.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Mapping
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import triton
import triton.language as tl

from pps_fast.ops.launches import unspecialized

# attributes of other modules are not followed, so that kernels may not read them
_COVERED_MODULES = ("triton", "math")


class Variant(NamedTuple):
    """One specialization of a kernel.

    Attributes:
        label: unique among the variants of the kernel.
        kernel: the jit function.
        signature: type of each argument that is not a constant, "*fp32", "*bf16", ...; the value of a run-time integer.
        constants: value of each constexpr argument.
        num_warps: as it is launched with.
        num_stages: as it is launched with.
        options: further ones of the compiler that it is launched with.
    """

    label: str
    kernel: Any
    signature: dict[str, str | int]
    constants: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    options: Mapping[str, Any] = MappingProxyType({})

    @property
    def types(self) -> dict[str, str]:
        """Type of every argument, in the kernel's order."""
        types = {name: kind if isinstance(kind, str) else "i32" for name, kind in self.signature.items()}
        types |= dict.fromkeys(self.constants, "constexpr")
        return {argument: types[argument] for argument in self.kernel.arg_names}

    @property
    def attributes(self) -> dict[tuple[int], list[list[Any]]]:
        """What a launch tells the compiler: pointers are aligned to 16 bytes, and these integers are multiples of 16.

        Raises:
            ValueError: for a specialized integer of 1, which a launch would make a constant.
        """
        divisible = []
        for index, name in enumerate(self.kernel.arg_names):
            value = self.signature.get(name)
            if isinstance(value, str):
                divisible += [index] if value.startswith("*") else []
            elif value is not None and name not in unspecialized(self.kernel):
                if value == 1:
                    raise ValueError(f"{self.kernel.__name__}: {name} = 1 is a constant of the launch")
                divisible += [index] if value % 16 == 0 else []
        return {(index,): [["tt.divisibility", 16]] for index in divisible}

    def digest(self, sm: int) -> str:
        """Returns a hash of the source and of everything else that decides what is compiled for an architecture."""
        arguments = (self.types, sorted(self.constants.items()), self.attributes)
        options = (sm, self.num_warps, self.num_stages, triton.__version__, *sorted(self.options.items()))
        return hashlib.sha256(repr((sources(self.kernel.fn), arguments, options)).encode()).hexdigest()[:16]


@functools.cache
def sources(kernel: Callable[..., Any]) -> dict[str, str]:
    """Returns sources of a kernel's Python function and of the device functions and constants that it reads, by name.

    Raises:
        ValueError: for a kernel that reads what cannot be followed.
    """
    texts: dict[str, str] = {}
    pending = [kernel]
    while pending:
        function = pending.pop()
        name = f"{function.__module__}.{function.__qualname__}"
        if name in texts:
            continue
        if function.__code__.co_freevars:
            raise ValueError(f"{name}: reads variables of an enclosing function, which the key does not cover")
        tree = _without_docstring(function)
        texts[name] = ast.unparse(tree)
        # Triton's interpreter leaves names of its own among a function's globals, "T" of a type variable for one
        local = set(function.__code__.co_varnames)
        for read in sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - local):
            if read not in function.__globals__:
                continue
            value = function.__globals__[read]
            if hasattr(value, "arg_names"):
                pending.append(value.fn)
            elif not isinstance(value, ModuleType):
                texts[f"{function.__module__}.{read}"] = _constant(name, read, value)
            elif value.__name__.split(".")[0] not in _COVERED_MODULES:
                raise ValueError(f"{name}: reads the module {value.__name__}, which the key does not cover")
    return dict(sorted(texts.items()))


def _without_docstring(function: Any) -> ast.Module:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    (definition,) = tree.body
    if isinstance(definition, ast.FunctionDef) and ast.get_docstring(definition) is not None:
        definition.body = definition.body[1:] or [ast.Pass()]
    return tree


def _constant(function: str, name: str, value: Any) -> str:
    value = value.value if isinstance(value, tl.constexpr) else value
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError(f"{function}: reads {name}, a {type(value).__name__}, which the key does not cover")
    return repr(value)
