"""The one dispatch mechanism: every op is an `Op` with an equation and, where one exists, a fused kernel.

`backend="auto"` takes the kernel if it is compiled and supports the input, `"triton"` insists on it and says why it
cannot, `"torch"` runs the equation. An explicit argument wins over the ambient choice of `use_backend`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BACKENDS = ("auto", "triton", "torch")

# a plain module global: a ContextVar would break torch.compile's graph
_ambient = "auto"
# told of every call with the backend asked for and the arguments, and returns the backend to take (see `ops.record`)
listener: Callable[[Op, str, tuple[Any, ...], dict[str, Any]], str] | None = None


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


def _check_name(name: str) -> None:
    if name not in BACKENDS:
        raise ValueError(f"backend = {name!r}: expected one of {', '.join(BACKENDS)}")


class Op:
    """A public operation with interchangeable implementations of one signature.

    Args:
        name: the op's one name, also of its equation, kernel file, test and benchmark.
        torch: the equation; always available, the oracle of the others.
        triton: the fused implementation, or None while the op has none.
        unsupported: takes the op's arguments and returns the sentences that say why the fused
            implementation cannot serve them; looks at shapes, dtypes and devices only.
        is_interpreted: whether the fused implementation runs in an interpreter, which checks kernels on a CPU and is
            slow; "auto" then takes the equation.
    """

    def __init__(
        self,
        name: str,
        *,
        torch: Callable[..., Any],
        triton: Callable[..., Any] | None = None,
        unsupported: Callable[..., list[str]] | None = None,
        is_interpreted: bool = False,
    ) -> None:
        self.name = name
        self._torch = torch
        self._triton = triton
        self._unsupported = unsupported
        self.is_interpreted = is_interpreted
        self.__doc__ = torch.__doc__

    def reasons(self, *args: Any, **kwargs: Any) -> list[str]:
        """Returns why the fused implementation cannot serve these arguments; empty if it can."""
        if self._triton is None:
            return [f"{self.name} has no fused kernel"]
        return self._unsupported(*args, **kwargs) if self._unsupported is not None else []

    def __call__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> Any:
        _check_name(backend)
        chosen = _ambient if backend == "auto" else backend
        if listener is not None:
            chosen = listener(self, chosen, args, kwargs)
        if chosen == "torch" or (chosen == "auto" and self.is_interpreted):
            return self._torch(*args, **kwargs)
        reasons = self.reasons(*args, **kwargs)
        if not reasons:
            return self._triton(*args, **kwargs)
        if chosen == "triton":
            listed = "; ".join(reasons)
            raise BackendError(f"{self.name}: backend 'triton' cannot serve this call: {listed}. Use 'auto' or 'torch'")
        return self._torch(*args, **kwargs)
