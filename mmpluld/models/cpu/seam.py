"""Where a network may hand over to a faster computation of the same on a CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, cast

from torch import Tensor

__all__ = ["Shortcut", "on_cpu", "plain_networks"]

Method = TypeVar("Method", bound=Callable[..., Any])

_shortcuts_on = ContextVar("mmpluld_cpu_shortcuts", default=os.environ.get("MMPLULD_CPU_SHORTCUTS") != "0")


@dataclass(frozen=True)
class Shortcut:
    """A faster computation of what a method of a network gives.

    Attributes:
        run: Gets what the method gets, the network first.
        fits: Whether ``run`` can replace the method, from the network and the method's first argument on a CPU.
    """

    run: Callable[..., Any]
    fits: Callable[[Any, Any], bool]

    def serves(self, network: Any, x: Any) -> bool:
        """Whether ``run`` is to replace the method for ``x``, a tensor or a sequence that holds tensors."""
        return _shortcuts_on.get() and _first_tensor(x).device.type == "cpu" and self.fits(network, x)


def on_cpu(shortcut: Shortcut) -> Callable[[Method], Method]:
    """Decorate a method, the plain computation, so that it takes ``shortcut`` where that serves."""

    def decorate(plain: Method) -> Method:
        @wraps(plain)
        def method(network: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
            compute = shortcut.run if shortcut.serves(network, x) else plain
            return compute(network, x, *args, **kwargs)

        return cast("Method", method)

    return decorate


@contextmanager
def plain_networks() -> Iterator[None]:
    """Within the block no shortcut is taken: every network runs as its class is written."""
    token = _shortcuts_on.set(False)
    try:
        yield
    finally:
        _shortcuts_on.reset(token)


def _first_tensor(x: Any) -> Tensor:
    while not isinstance(x, Tensor):
        x = x[0]
    return x
