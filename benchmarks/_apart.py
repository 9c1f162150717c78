"""Measuring in a process of its own, and the memory that it took."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["apart", "peak_memory_mb"]


def apart(work: Callable[..., Any], *args: Any) -> Any:
    """The result of ``work``, a function of a module, in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def peak_memory_mb() -> float:
    """Largest resident memory of this process since its start, in MB (1e6 bytes); Linux only.

    It only rises, so what is to be compared runs :func:`apart`.
    """
    # Not getrusage(): what it says of a new process can be the memory of the one that started it.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) * 1024 / 1e6
