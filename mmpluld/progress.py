"""Progress bars for long work; silent when the output is not a terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

__all__ = ["note", "stderr_into", "track"]

T = TypeVar("T")

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
    line = f"note: {' '.join(text.split())}"
    with _GUARD:
        if _kept is not None and sys.stderr is sys.__stderr__:
            os.write(_kept, f"{line}\n".encode(errors="replace"))
            return
    print(line, file=sys.stderr)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` with a progress bar on standard error, or plainly when that is not a terminal.

    Threads beside the main one have none: two bars would write over each other.
    """
    if not sys.stderr.isatty() or threading.current_thread() is not threading.main_thread():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    with _own_stderr() as stream:
        yield from rich_track(items, description=description, total=total, console=Console(file=stream))
