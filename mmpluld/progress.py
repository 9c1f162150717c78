"""Progress bars for long work; silent when the output is not a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["note", "track"]

T = TypeVar("T")


def note(text: str) -> None:
    """Say on standard error, in one line, what a user should know of the input."""
    print(f"note: {' '.join(text.split())}", file=sys.stderr)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` with a progress bar on standard error, or plainly when that is not a terminal.

    Threads beside the main one have none: two bars would write over each other.
    """
    if not sys.stderr.isatty() or threading.current_thread() is not threading.main_thread():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(items, description=description, total=total, console=Console(stderr=True))
