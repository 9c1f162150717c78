"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = ["tune_allocator"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # parameter numbers of mallopt(3)
_KEEP_BELOW_BYTES = 1 << 30
_NEVER = -1


def tune_allocator() -> bool:
    """Let the process keep freed memory of large tensors instead of returning it to the system at once.

    By default glibc maps each allocation above 32 MiB afresh, and the page faults of its first use can take as long as
    the arithmetic of a CPU network. Call this once, when a command starts. The price is that memory freed after a peak
    stays with the process.

    Returns:
        Whether the settings were made: False without glibc, or if the environment variable ``MMPLULD_MALLOC_TUNING``
        is ``0``.
    """
    if os.environ.get("MMPLULD_MALLOC_TUNING") == "0" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP_BELOW_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
