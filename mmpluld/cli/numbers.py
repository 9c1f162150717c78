"""Numbers on the command line, checked while it is read."""

from __future__ import annotations

import argparse
import math
import sys

__all__ = ["natural", "not_negative", "score", "seed"]


def natural(text: str) -> int:
    """A whole number from 0."""
    return _whole(text, math.inf, "from 0")


def seed(text: str) -> int:
    """A seed that NumPy and torch take."""
    return _whole(text, 2**32 - 1, f"from 0 to {2**32 - 1}")


def not_negative(text: str) -> float:
    """A number from 0."""
    return _real(text, sys.float_info.max, "from 0")


def score(text: str) -> float:
    """A number from 0 to 1."""
    return _real(text, 1, "from 0 to 1")


def _whole(text: str, most: float, allowed: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number {allowed}")
    return value


def _real(text: str, most: float, allowed: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no number {allowed}")
    return value
