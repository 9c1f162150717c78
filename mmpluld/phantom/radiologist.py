"""Measuring lesions the way a radiologist does, and marking only some of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmpluld.phantom.canvas import Array
from mmpluld.phantom.spec import PhantomSpec
from mmpluld.structures import LESION_TYPES, recist_ends

__all__ = ["MIN_LONG_MM", "Measurement", "mark_chance", "measure"]

MIN_LONG_MM = 4.0
"""Cross-sections with a shorter long diameter are not measured and count as absent from their slice."""

# Log odds of a mark by organ, beside its size.
_EAGERNESS = {
    "bone": 0.5, "abdomen": -0.9, "mediastinum": -0.9, "liver": -1.2, "lung": -1.0, "kidney": 1.0, "soft tissue": 1.0,
    "pelvis": 0.9,
}  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """RECIST diameters of one lesion in one slice.

    Attributes:
        recist: x, y of the ends of the long, then of the short diameter, in pixel-edge coordinates (the centre of
            pixel i is i + 0.5).
        box: (x1, y1, x2, y2) pixel edges: the extent of the four ends, padded.
        long_px, short_px: Lengths in pixels.
    """

    recist: tuple[float, ...]
    box: tuple[float, float, float, float]
    long_px: float
    short_px: float


def _six_digits(value: float) -> float:
    """Round as DeepLesion's table prints numbers, so that file and truth agree exactly."""
    return float(f"{value:.6g}")


def mark_chance(kind: int, long_mm: float, spec: PhantomSpec) -> float:
    """Chance that a lesion is marked, in [0, 1].

    The odds are those of `spec.mark_prob` for an ordinary lesion of 20 mm. With `spec.mark_bias` they grow with the
    square of the long axis and depend on the organ: what a radiologist follows up is large, and one does not measure
    every small nodule, liver lesion or node.

    Args:
        kind: Type of the lesion, 1 to 8.
        long_mm: Its long axis.
        spec: The settings.
    """
    if spec.mark_prob in (0, 1):
        return spec.mark_prob
    log_odds = np.log(spec.mark_prob / (1 - spec.mark_prob))
    log_odds += spec.mark_bias * (_EAGERNESS[LESION_TYPES[kind]] + 2 * np.log(long_mm / 20))
    return float(1 / (1 + np.exp(-log_odds)))


def measure(share: Array, origin_yx: tuple[int, int], pixel_mm: float, pad_mm: float, size: int) -> Measurement | None:
    """Measure a lesion in one slice.

    Args:
        share: (h, w) share of each pixel inside the lesion, in [0, 1].
        origin_yx: Row and column of `share[0, 0]` in the slice.
        pixel_mm: Pixel side.
        pad_mm: Margin of the extent of the RECIST points, counted between pixel centres as in DeepLesion; on edges
            this makes half a pixel more per side.
        size: Rows and columns of the slice; the box is cut at its borders.

    Returns:
        The measurement with all numbers rounded to six digits (pixel centres counted from 1), or None where the lesion
        is absent or its long diameter is under `MIN_LONG_MM`.
    """
    if float(share.max(initial=0.0)) <= 0.5:
        return None
    ends = recist_ends(share)
    if ends is None:
        return None
    long_px, short_px = (float(np.linalg.norm(ends[k + 1] - ends[k])) for k in (0, 2))
    if long_px * pixel_mm < MIN_LONG_MM:
        return None
    counted = ends + np.array([origin_yx[1], origin_yx[0]]) + 0.5
    recist = np.array([_six_digits(v) for v in counted.ravel()])
    xs, ys = recist[0::2], recist[1::2]
    pad = pad_mm / pixel_mm
    low = np.clip([xs.min() - pad, ys.min() - pad], 1, size)
    high = np.clip([xs.max() + pad, ys.max() + pad], 1, size)
    x1, y1, x2, y2 = (_six_digits(v) for v in (*low, *high))
    return Measurement(tuple(recist - 0.5), (x1 - 1, y1 - 1, x2, y2), _six_digits(long_px), _six_digits(short_px))
