"""Keeping large freed blocks for reuse: on CPU, half of a plain forward pass goes into fresh pages."""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = ["tune_allocator"]

# Parameter numbers of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE = 2**31 - 1  # mallopt takes an int: 2 GiB


def tune_allocator() -> bool:
    """Make glibc serve large tensors from its heap and keep freed memory; call it before the first large tensor.

    By default every large tensor is mapped anew and its pages are zeroed on first touch. The price is that the process
    keeps its peak memory until it ends. ``MMPLULD_MALLOC_TUNING=0`` switches it off.

    Returns:
        Whether the settings were made; False without glibc or when switched off.
    """
    if os.environ.get("MMPLULD_MALLOC_TUNING") == "0" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, _LARGE) == 1 for name in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
