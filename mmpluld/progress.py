"""Progress of long work: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import TypeVar

__all__ = ["note", "track"]

T = TypeVar("T")

_EVERY_S = 30.0  # between lines where there is no terminal


def note(text: str) -> None:
    """Say on standard error, in one line, what a user should know of the input."""
    print(f"note: {' '.join(text.split())}", file=sys.stderr)


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

    yield from rich_track(items, description=description, total=total, console=Console(stderr=True))


def _told(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    begin = last = time.monotonic()
    for number, item in enumerate(items):
        if (now := time.monotonic()) - last >= _EVERY_S:
            of = "" if total is None else f" of {total}"
            print(f"{description}: {number}{of} after {now - begin:.0f} s", file=sys.stderr, flush=True)
            last = now
        yield item
