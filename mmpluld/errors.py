"""The package's own exceptions, which the command line turns into one line and an exit status, and words for them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

__all__ = [
    "BusyError",
    "InputError",
    "MMPluldError",
    "NoMemoryError",
    "NoRoomError",
    "alike",
    "counted",
    "did_you_mean",
    "name_some",
    "nearest",
    "printable",
    "suggest",
]

_CLOSE = 0.6  # how alike two names must be, from 0 to 1, where nothing else is told
_PLAINLY = 1.5  # how much farther the second must be than the nearest


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


class BusyError(InputError):
    """Another process writes what this one would; it is not wrong, and may be asked for later."""


class NoMemoryError(InputError):
    """Something does not fit into the memory that is free just now."""


class NoRoomError(InputError):
    """Nothing more can be written: the disk is full, or the user's share of it."""


def nearest(name: str, candidates: Iterable[str], cutoff: float = _CLOSE) -> str | None:
    """Return the candidate closest in spelling to ``name``, or None if none comes close."""
    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def did_you_mean(name: object, candidates: Iterable[str], otherwise: str = "", cutoff: float = _CLOSE) -> str:
    """Return the end of a message on an unknown name: ``; did you mean 'x'?``, or ``; otherwise`` if none is close."""
    close = nearest(str(name), candidates, cutoff)
    end = otherwise if close is None else f"did you mean {close!r}?"
    return f"; {end}" if end else ""


def alike(name: str, candidates: Iterable[str]) -> list[str]:
    """Return the ids that ``name`` may stand for, sorted: one where it is plainly the nearest, none if none is close.

    Ids of scans often differ in little, so several that are about as near, or that begin or end like ``name``, are all
    returned.
    """
    ids = sorted(set(candidates))
    longer = [item for item in ids if item.startswith(name) or item.endswith(name)] if name else []
    if len(longer) > 1:
        return longer
    far = {item: 1 - difflib.SequenceMatcher(None, item, name).ratio() for item in ids}
    close = sorted((item for item in ids if far[item] <= 1 - _CLOSE), key=far.__getitem__)
    plain = len(close) > 1 and far[close[1]] >= _PLAINLY * far[close[0]]
    return close[:1] if plain else sorted(close)


def suggest(ids: Sequence[str], otherwise: str = "") -> str:
    """Return words for what was found alike: ``did you mean 'x'?``, a list of several, or ``otherwise``."""
    if len(ids) == 1:
        return f"did you mean {ids[0]!r}?"
    return f"candidates are {name_some([repr(item) for item in ids], 4)}" if ids else otherwise


def counted(count: int, noun: str) -> str:
    """Return a number of things: ``1 row``, ``2 rows``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


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
