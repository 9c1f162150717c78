"""What operating systems offer under different names: cores, locks on files, ways to start processes."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from typing import IO, Any

__all__ = ["end_with_parent", "lock_file", "start_method", "usable_cores"]

_PR_SET_PDEATHSIG = 1


def usable_cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lock_file(stream: IO[Any] | int, wait: bool = True) -> bool:
    """Lock an open file for this process and those that inherit it, until all have closed it.

    Args:
        stream: The file, open for writing, or the descriptor of an open file or folder.
        wait: Wait until whoever holds it lets go.

    Returns:
        Whether it is locked: always with ``wait``; False without it if another holds the file.

    Raises:
        OSError: The file system has no locks.
    """
    try:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def start_method() -> str:
    """How to start worker processes: by a fork, which needs no importable main module (notebooks, piped scripts)."""
    import multiprocessing

    return "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


def end_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Let the system send this process a signal when its parent ends, however that ends. Linux only; else nothing.

    Args:
        parent: Process id of the parent; if it has ended already, the signal comes at once.
        number: The signal.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
