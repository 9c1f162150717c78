"""What operating systems offer under different names: cores, locks on files, ways to start processes."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from typing import IO, Any

__all__ = ["lock_file", "start_method", "usable_cores"]


def usable_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lock_file(stream: IO[Any], wait: bool = True) -> bool:
    """Lock an open file for this process and those that inherit it, until all have closed it.

    Args:
        stream: The file, open for writing.
        wait: Wait until whoever holds it lets go.

    Returns:
        Whether it is locked: always with ``wait``; False without it if another holds the file.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def start_method() -> str:
    """How to start worker processes: by a fork, which needs no importable main module (notebooks, piped scripts)."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
