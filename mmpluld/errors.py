"""The package's own exceptions; the command line turns them into one line and an exit status."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "MMPluldError", "did_you_mean", "nearest"]


class MMPluldError(Exception):
    """Base of every error this package raises on purpose (exit status 1).

    Its message is one line, whatever line breaks the names and values in it hold.
    """

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())


class InputError(MMPluldError, ValueError):
    """Bad input or wrong usage (exit status 2).

    The message is one line: the file, the value found, what is allowed, and the next step.
    """


def nearest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the candidate closest in spelling to ``name``, or None if none comes close."""
    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(name: object, candidates: Iterable[str], otherwise: str = "", cutoff: float = 0.6) -> str:
    """Return the end of a message on an unknown name: ``; did you mean 'x'?``, or ``; otherwise`` if none is close."""
    close = nearest(str(name), candidates, cutoff)
    end = otherwise if close is None else f"did you mean {close!r}?"
    return f"; {end}" if end else ""
