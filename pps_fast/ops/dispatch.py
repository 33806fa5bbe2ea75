"""The one dispatch mechanism: every op is an `Op` with an equation and, where one exists, a fused kernel.

`backend="auto"` takes the kernel if it is compiled and supports the input, `"triton"` insists on it and says why it
cannot, `"torch"` runs the equation. An explicit argument wins over the ambient choice of `use_backend`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, ParamSpec, TypeVar, overload

from pps_fast.ops.contract import Contract, Rule, check

BACKENDS = ("auto", "triton", "torch")

P = ParamSpec("P")
R = TypeVar("R")

# a plain module global: a ContextVar would break torch.compile's graph
_ambient = "auto"
# told of every call with the backend asked for and the arguments, and returns the backend to take (see `ops.record`)
listener: Callable[[Op, str, tuple[Any, ...], dict[str, Any]], str] | None = None
_BACKEND = inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY, default="auto", annotation=str)


class BackendError(RuntimeError):
    """The asked-for backend cannot serve this call; the message lists every reason."""


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Makes `name` the choice of every op that is called with backend="auto" inside the block.

    Raises:
        ValueError: for a name that is not one of BACKENDS.
    """
    global _ambient
    _check_name(name)
    previous, _ambient = _ambient, name
    try:
        yield
    finally:
        _ambient = previous


def wants_kernels(backend: str, is_interpreted: bool) -> bool:
    """Whether ops called with this backend run kernels where these serve, and nobody listens to the calls one by one.

    Args:
        backend: the explicit argument.
        is_interpreted: as for `Op`.
    """
    chosen = _ambient if backend == "auto" else backend
    return chosen == "triton" or (chosen == "auto" and not is_interpreted) if listener is None else False


def _check_name(name: str) -> None:
    if name not in BACKENDS:
        raise ValueError(f"backend = {name!r}: expected one of {', '.join(BACKENDS)}")


def _with_backend(equation: Callable[..., Any]) -> inspect.Signature:
    """The signature of an equation with `backend` after its own parameters."""
    signature = inspect.signature(equation, eval_str=True)
    parameters = list(signature.parameters.values())
    others = [parameter for parameter in parameters if parameter.kind == inspect.Parameter.VAR_KEYWORD]
    named = [parameter for parameter in parameters if parameter.kind != inspect.Parameter.VAR_KEYWORD]
    return signature.replace(parameters=[*named, _BACKEND, *others])


class Op(Generic[P, R]):
    """A public operation with interchangeable implementations of one signature.

    It looks like its equation: `inspect.signature`, `help` and completion show the equation's parameters and `backend`.

    Args:
        name: the op's one name, also of its equation, kernel file, test and benchmark.
        torch: the equation; always available, the oracle of the others.
        triton: the fused implementation, or None while the op has none.
        unsupported: takes the op's arguments by name and returns the sentences that say why the fused implementation
            cannot serve them; looks at shapes, dtypes and devices only.
        is_interpreted: whether the fused implementation runs in an interpreter, which checks kernels on a CPU and is
            slow; "auto" then takes the equation.
        contract: what every backend expects of the arguments.
        rule: a check beyond the contract; returns a sentence about what is wrong with the arguments, or None.
        shortcut: a function of torch that computes the same faster in some cases, and returns None in others; "auto"
            asks it first.
    """

    def __init__(
        self,
        name: str,
        *,
        torch: Callable[P, R],
        triton: Callable[..., R] | None = None,
        unsupported: Callable[..., list[str]] | None = None,
        is_interpreted: bool = False,
        contract: Contract | None = None,
        rule: Rule | None = None,
        shortcut: Callable[..., R | None] | None = None,
    ) -> None:
        self.name = name
        self._torch = torch
        self._triton = triton
        self._unsupported = unsupported
        self.is_interpreted = is_interpreted
        self._contract = {} if contract is None else contract
        self._rule = rule
        self._shortcut = shortcut
        self._describe()

    def _describe(self) -> None:
        """Copies name, docstring and signature of the equation, as `functools.wraps` does for a function."""
        self.__signature__ = _with_backend(self._torch)
        self.__wrapped__ = self._torch
        self.__name__ = self.__qualname__ = self.name
        self.__module__ = "pps_fast.ops"
        self.__annotations__ = {
            name: parameter.annotation for name, parameter in self.__signature__.parameters.items()
        } | {"return": self.__signature__.return_annotation}
        self.__doc__ = f"{self.name}{self.__signature__}\n\n{inspect.cleandoc(self._torch.__doc__ or '')}"
        parameters = [
            parameter
            for parameter in self.__signature__.parameters.values()
            if parameter.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD
        ]
        self._names = tuple(parameter.name for parameter in parameters)
        self._required = tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)
        self._optional = frozenset(parameter.name for parameter in parameters if parameter.default is None)

    def __repr__(self) -> str:
        return f"<op {self.name}{self.__signature__}>"

    def reasons(self, *args: Any, **kwargs: Any) -> list[str]:
        """Returns why the fused implementation cannot serve these arguments; empty if it can.

        Raises:
            TypeError, ValueError: for arguments that no backend takes.
        """
        return self._reasons(self._checked(args, kwargs))

    def _reasons(self, arguments: dict[str, Any]) -> list[str]:
        if self._triton is None:
            return [f"{self.name} has no fused kernel"]
        return self._unsupported(**arguments) if self._unsupported is not None else []

    def _checked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments by name.

        Raises:
            TypeError: for a missing one.
            ValueError: for one that no backend takes.
        """
        arguments = dict(zip(self._names, args, strict=False))
        arguments.update(kwargs)
        for name in self._required:
            if name not in arguments:
                raise TypeError(f"{self.name}: the argument {name!r} is missing")
        check(self.name, self._contract, self._optional, arguments)
        if self._rule is not None:
            problem = self._rule(arguments)
            if problem is not None:
                raise ValueError(f"{self.name}: {problem}")
        return arguments

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    def __call__(self, *args: Any, backend: str, **kwargs: Any) -> R: ...

    # mypy does not see that a name of P.kwargs is never "backend"
    def __call__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> R:  # type: ignore[misc]
        """Runs the implementation that the backend means, on the equation's arguments.

        Raises:
            BackendError: if backend "triton" cannot serve the call.
            TypeError, ValueError: for arguments that no backend takes, and an unknown backend.
        """
        _check_name(backend)
        chosen = _ambient if backend == "auto" else backend
        if listener is not None:
            chosen = listener(self, chosen, args, kwargs)
        arguments = self._checked(args, kwargs)
        if chosen == "auto" and self._shortcut is not None:
            result = self._shortcut(**arguments)
            if result is not None:
                return result
        if chosen == "torch" or (chosen == "auto" and self.is_interpreted):
            return self._torch(*args, **kwargs)
        reasons = self._reasons(arguments)
        if not reasons and self._triton is not None:
            return self._triton(*args, **kwargs)
        if chosen == "triton":
            listed = "; ".join(reasons)
            raise BackendError(f"{self.name}: backend 'triton' cannot serve this call: {listed}. Use 'auto' or 'torch'")
        return self._torch(*args, **kwargs)
