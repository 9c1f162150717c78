"""How far predicted RECIST diameters are off, over the lesions that were found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError
from mmpluld.structures.overlaps import pairwise_overlap
from mmpluld.typing import FloatArray, IntArray

__all__ = ["RECISTErrors", "recist_errors", "select_found"]


@dataclass(frozen=True)
class RECISTErrors:
    """Absolute errors of diameters over lesions that were found.

    Attributes:
        count: Lesions that both sides measured; the other values are NaN if it is 0.
        long_mm, short_mm: Mean absolute error.
        long_std_mm, short_std_mm: Standard deviation of the absolute error (population).
    """

    count: int
    long_mm: float
    short_mm: float
    long_std_mm: float
    short_std_mm: float


def select_found(boxes: FloatArray, scores: FloatArray, truth: FloatArray, iou_thr: float = 0.5) -> IntArray:
    """For each true box the index of the best-scored detection that overlaps it enough.

    Args:
        boxes: (N, 4) detections.
        scores: (N,).
        truth: (M, 4).
        iou_thr: Least IoU.

    Returns:
        (M,), -1 where no detection does. One detection may stand for several lesions.
    """
    if not len(boxes) or not len(truth):
        return np.full(len(truth), -1, dtype=np.int64)
    fits = pairwise_overlap(boxes, truth) >= iou_thr
    best = np.where(fits, np.asarray(scores)[:, None], -np.inf).argmax(axis=0)
    return np.where(fits.any(axis=0), best, -1).astype(np.int64)


def recist_errors(predicted: npt.ArrayLike, truth: npt.ArrayLike) -> RECISTErrors:
    """Absolute errors of long and short diameters.

    Args:
        predicted: (N, 2) long and short diameter of each lesion in mm, NaN where there is none.
        truth: (N, 2) likewise.

    Raises:
        InputError: If the shapes are not as above.

    Source: the published A3D evaluation sums such errors over lesions; the mean is comparable between test sets.
    """
    first, second = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] != 2:
        raise InputError(
            f"diameters have shapes {first.shape} and {second.shape}; needed is (N, 2) on both sides, long and short"
        )
    errors = np.abs(first - second)
    errors = errors[np.isfinite(errors).all(axis=1)]
    if not len(errors):
        return RECISTErrors(0, np.nan, np.nan, np.nan, np.nan)
    (long_mm, short_mm), (long_std, short_std) = errors.mean(axis=0).tolist(), errors.std(axis=0).tolist()
    return RECISTErrors(len(errors), long_mm, short_mm, long_std, short_std)
