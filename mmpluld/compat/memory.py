"""How much memory this process may still take, and when it is looked through."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["available_memory", "uncollected"]

_CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> float:
    """Bytes that are free for this process: of the machine, of its containers, and of its own limit.

    Returns:
        The least of what is known; infinity where the system tells nothing.
    """
    return max(min((_machine(), _address_space(), *_containers())), 0.0)


@contextmanager
def uncollected() -> Iterator[None]:
    """Make many objects that refer to no other in a circle, without Python looking for circles all the while.

    It looks through all objects that there are again and again while their number grows: a third of the time in which
    a file of 32,000 lesions is read.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _machine() -> float:
    for line in _text(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    try:  # elsewhere: what is built in
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def _address_space() -> float:
    """What ``ulimit -v`` leaves, as schedulers of clusters set it."""
    try:
        import resource
    except ImportError:
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _text(Path("/proc/self/statm")).split()
    used = int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0
    return math.inf if limit == resource.RLIM_INFINITY else float(limit - used)


def _containers() -> Iterator[float]:
    """What the control groups of this process leave, and those above them."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, kinds, group = line.split(":", 2)
        if kinds == "":
            yield from _left(_CGROUPS, group, "memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(_CGROUPS / "memory", group, *names)


def _left(root: Path, group: str, limit_name: str, used_name: str, cache_name: str) -> Iterator[float]:
    folder = root / group.lstrip("/")
    for place in (folder, *folder.parents):
        limit, used = _text(place / limit_name).strip(), _text(place / used_name).strip()
        if limit.isdigit() and used.isdigit():
            pairs = (line.split() for line in _text(place / "memory.stat").splitlines())
            cache = next((int(pair[1]) for pair in pairs if pair[0] == cache_name), 0)
            yield float(int(limit) - int(used) + cache)  # files read lately count as used, but give way
        if place == root:
            return


def _text(path: Path) -> str:
    """A file of the system, empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
