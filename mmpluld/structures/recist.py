"""RECIST diameters: what they are, and how they are measured on a lesion's mask on one slice.

The outline of a mask runs where the coverage crosses one half between the centres of neighbouring pixels; for a binary
mask that is the middle of each pixel side between inside and outside. A bar of n pixels is then n pixels long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError
from mmpluld.typing import FloatArray

__all__ = ["RECIST", "measure_recist", "recist_ends", "recist_lengths"]

_EQUAL_MM = 1e-4
"""Lengths that differ by less are equal: masks of one network differ so much from one processor to another."""


@dataclass(frozen=True)
class RECIST:
    """The two diameters of a lesion on one slice.

    Attributes:
        long_mm: Largest distance between two points of the outline.
        short_mm: Longest chord of the outline's convex hull perpendicular to it, no longer than it.
        ends: x, y of the ends of the long, then of the short diameter, in pixel edges (8 numbers).
    """

    long_mm: float
    short_mm: float
    ends: tuple[float, ...]


def measure_recist(
    mask: npt.NDArray[Any], spacing_yx: Sequence[float], origin_xy: Sequence[float] = (0.0, 0.0)
) -> RECIST | None:
    """Measure the largest connected part of a mask.

    The ends lie on the hull of the outline, so both lengths are exact for it: against the shape that was rasterised,
    each is off by about half a pixel at most.

    Args:
        mask: (H, W), bool, or the share of each pixel that is inside, in [0, 1].
        spacing_yx: Pixel size in mm.
        origin_xy: Pixel edge where the mask's first pixel begins, for masks cut out of a slice.

    Returns:
        The diameters, or None if no pixel is inside (0.5 or more).

    Raises:
        InputError: If the mask is not 2D or a spacing is not positive.
    """
    from scipy import ndimage

    if mask.ndim != 2:
        raise InputError(f"mask has shape {mask.shape}; needed is one slice (H, W)")
    if len(spacing_yx) != 2 or not (np.isfinite(spacing_yx).all() and min(spacing_yx) > 0):
        raise InputError(f"spacing_yx is {tuple(spacing_yx)}; needed are two positive numbers of mm")
    share = np.asarray(mask, np.float64)
    parts, count = ndimage.label(share >= 0.5)
    if not count:
        return None
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    scale = np.array([spacing_yx[1], spacing_yx[0]], dtype=np.float64)
    ends = recist_ends(np.where((parts == 0) | (parts == largest), share, 0.0), scale)
    if ends is None:
        return None
    lengths = np.linalg.norm((ends[1::2] - ends[0::2]) * scale, axis=1)
    placed = (ends + np.asarray(origin_xy, np.float64)).ravel()
    return RECIST(float(lengths[0]), float(lengths[1]), tuple(placed.tolist()))


def recist_ends(share: npt.NDArray[Any], spacing_xy: npt.ArrayLike = (1.0, 1.0)) -> FloatArray | None:
    """Ends (4, 2) of the long, then of the short diameter of everything inside, x and y in pixel edges.

    Args:
        share: (H, W) share of each pixel that is inside, in [0, 1].
        spacing_xy: Pixel size, since lengths are compared and angles are right in mm.

    Returns:
        The ends, or None if no pixel is inside.
    """
    scale = np.asarray(spacing_xy, np.float64)
    ends = _diameters(_outline(share) * scale)
    return None if ends is None else ends / scale


def recist_lengths(ends: Sequence[float], spacing_yx: Sequence[float]) -> tuple[float, float]:
    """Lengths in mm of the long and the short diameter whose ends are given (8 numbers); NaN if spacing is unknown."""
    points = np.asarray(ends, np.float64).reshape(4, 2) * [spacing_yx[1], spacing_yx[0]]
    long_mm, short_mm = np.linalg.norm(points[1::2] - points[0::2], axis=1).tolist()
    return long_mm, short_mm


def _outline(share: npt.NDArray[Any]) -> FloatArray:
    """Points (N, 2) x, y in pixel-edge coordinates where the coverage crosses one half, by linear interpolation."""
    height, width = share.shape
    padded = np.full((height + 2, width + 2), -0.5)
    np.subtract(share, 0.5, out=padded[1:-1, 1:-1], dtype=np.float64)
    inside = padded >= 0
    crossings = []
    for a, b, crossed in (
        (padded[:-1], padded[1:], inside[:-1] != inside[1:]),
        (padded[:, :-1], padded[:, 1:], inside[:, :-1] != inside[:, 1:]),
    ):
        rows, columns = crossed.nonzero()
        before = a[rows, columns]
        crossings.append((columns, rows, before / (before - b[rows, columns])))
    (x1, y1, down), (x2, y2, right) = crossings
    points = np.empty((len(down) + len(right), 2))
    points[: len(down), 0], points[: len(down), 1] = x1, y1 + down
    points[len(down) :, 0], points[len(down) :, 1] = x2 + right, y2
    points -= 0.5  # the pad shifts by one pixel, the centre lies at a half
    return points


def _diameters(points: FloatArray) -> FloatArray | None:
    """Ends of the longest diameter of the hull and of the longest one perpendicular to it; (4, 2)."""
    from scipy.spatial import ConvexHull

    if len(points) < 3 or np.linalg.matrix_rank(points - points.mean(0), tol=1e-6) < 2:
        return None
    hull = points[ConvexHull(points).vertices]
    hull = hull[np.lexsort(hull.round(3).T)]  # so that the first of equal diameters is one place, too
    x, y = hull.T
    gaps = np.sqrt((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2)
    i, j = divmod(_first_longest(gaps), len(hull))
    start, end = hull[i], hull[j]
    along = (end - start) / gaps[i, j]
    across = np.array([-along[1], along[0]])
    t, s = (hull - start) @ along, (hull - start) @ across
    positions = np.sort(np.concatenate([t, np.linspace(0, gaps[i, j], 33)]))
    edges = []
    for keep in (s >= -1e-9, s <= 1e-9):
        order = np.argsort(t[keep], kind="stable")
        edges.append(np.interp(positions, t[keep][order], s[keep][order]))
    best = _first_longest(edges[0] - edges[1])
    high, low = edges[0][best], edges[1][best]
    too_long = max(high - low - gaps[i, j], 0.0)  # where a taken diameter is a little shorter than its equals
    foot = start + positions[best] * along
    return np.stack([start, end, foot + (high - too_long / 2) * across, foot + (low + too_long / 2) * across])


def _first_longest(lengths: FloatArray) -> int:
    """Flat index of the first of those that are longest; which of equals it is, is not left to rounding."""
    return int(np.argmax(lengths >= lengths.max() - _EQUAL_MM))
