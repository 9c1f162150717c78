"""Progress of long work: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import length_hint
from typing import TextIO, TypeVar

__all__ = ["note", "stderr_into", "track"]

T = TypeVar("T")

_EVERY_S = 30.0  # between lines where there is no terminal
_ONE_AT_A_TIME = threading.Lock()
_GUARD = threading.Lock()  # of where file descriptor 2 leads
_kept: int | None = None  # where it led, while ``stderr_into`` has it


@contextmanager
def stderr_into(target: int) -> Iterator[None]:
    """Lead what libraries write straight to file descriptor 2 to another; notes and bars go on where they were."""
    global _kept
    with _ONE_AT_A_TIME:
        try:
            kept = os.dup(2)
        except OSError:  # no standard error at all, e.g. under a service
            yield
            return
        with _GUARD:
            os.dup2(target, 2)
            _kept = kept
        try:
            yield
        finally:
            with _GUARD:
                os.dup2(kept, 2)
                os.close(kept)
                _kept = None


@contextmanager
def _own_stderr() -> Iterator[TextIO]:
    """Standard error as it is now, for longer than another thread may leave it there."""
    with _GUARD:
        copied = os.dup(2 if _kept is None else _kept)
    with os.fdopen(copied, "w", encoding=sys.stderr.encoding, errors="replace") as stream:
        yield stream


def note(text: str) -> None:
    """Say on standard error, in one line, what a user should know of the input."""
    _say(f"note: {' '.join(text.split())}")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` with a progress bar on standard error, or where that is no terminal a line every half minute.

    Threads beside the main one have neither: two bars would write over each other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield from items
        return
    total = total or length_hint(items) or None
    if not sys.stderr.isatty():
        yield from _told(items, description, total)
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    with _own_stderr() as stream:
        yield from rich_track(items, description=description, total=total, console=Console(file=stream))


def _told(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    begin = last = time.monotonic()
    for number, item in enumerate(items):
        if (now := time.monotonic()) - last >= _EVERY_S:
            of = "" if total is None else f" of {total}"
            _say(f"{description}: {number}{of} after {now - begin:.0f} s")
            last = now
        yield item


def _say(line: str) -> None:
    with _GUARD:
        if _kept is not None and _leads_to_2(sys.stderr):
            os.write(_kept, f"{line}\n".encode(errors="replace"))
            return
    print(line, file=sys.stderr, flush=True)


def _leads_to_2(stream: TextIO) -> bool:
    """Whether a stream writes to file descriptor 2, also one that a command put in the place of Python's own."""
    try:
        return stream.fileno() == 2
    except (OSError, ValueError):
        return False
