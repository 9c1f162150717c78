"""The package's own exceptions, which the command line turns into one line and an exit status, and words for them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

__all__ = ["InputError", "MMPluldError", "did_you_mean", "name_some", "nearest", "printable"]


class MMPluldError(Exception):
    """Base of every error this package raises on purpose (exit status 1).

    Its message is one printable line, whatever the names and values in it hold. One that comes from a data worker
    keeps its own message: torch makes it anew with the worker's traceback as text.
    """

    def __init__(self, *args: object) -> None:
        if len(args) == 1 and isinstance(args[0], str) and re.match(r"Caught \w+ in .*\nOriginal Traceback", args[0]):
            name = f"{type(self).__module__}.{type(self).__qualname__}: "
            args = (args[0].rpartition(name)[2].strip(),)
        super().__init__(*args)

    def __str__(self) -> str:
        return " ".join(printable(super().__str__()).splitlines())


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


def name_some(names: Sequence[str], limit: int = 3, more: str = "more", separator: str = ", ") -> str:
    """Return the first of some names, and how many more there are."""
    rest = len(names) - limit
    return separator.join(names[:limit]) + (f" and {rest} {more}" if rest > 0 else "")


def printable(text: str) -> str:
    """Return text that any terminal and any UTF-8 file takes.

    Names of files are bytes. Those that are no text in the language set come from Python as surrogates: where they are
    UTF-8 they become what they mean, and where not, as control characters do, their escapes (``\\xbb``).
    """
    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte
        text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(
        sign if sign.isprintable() or sign.isspace() else sign.encode("unicode_escape").decode() for sign in text
    )
