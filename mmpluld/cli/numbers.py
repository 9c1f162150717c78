"""Numbers on the command line, checked while it is read."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable

__all__ = ["natural", "not_negative", "score", "seed", "whole"]


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Reader of whole numbers from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or most is not None and value > most:
            limit = "" if most is None else f" to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least}{limit}")
        return value

    return read


natural = whole(0)
seed = whole(0, 2**32 - 1)  # what NumPy and torch take


def not_negative(text: str) -> float:
    """A number from 0."""
    return _real(text, sys.float_info.max, "from 0")


def score(text: str) -> float:
    """A number from 0 to 1."""
    return _real(text, 1, "from 0 to 1")


def _real(text: str, most: float, allowed: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no number {allowed}")
    return value
