"""What a restricted unpickler may build, under the names that versions of NumPy and torch give it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

__all__ = ["ARRAY_MODULES", "allow_globals"]

# Where pickles of arrays look for NumPy's helpers: as written by NumPy 2, and by NumPy 1.
ARRAY_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray")


def allow_globals(allowed: Sequence[Any]) -> AbstractContextManager[None]:
    """Let ``torch.load(weights_only=True)`` build more than tensors, as long as the context lasts.

    Args:
        allowed: Classes and functions, each alone or with the full name that files know it by.
    """
    import torch

    context: AbstractContextManager[None] = torch.serialization.safe_globals(list(allowed))
    return context
