"""Rules of the LUNA16 challenge: marks are points, nodules are spheres, in world mm.

The result is a ``Matches`` as for boxes. What differs from the box protocols is who is hit, the limit on marks
per scan, and that the curve is read by linear interpolation.

Source: the challenge's evaluation script and pages (LENS, Sec. VI-E reports this score as well).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpluld.errors import InputError
from mmpluld.evaluation.functional.froc import Matches
from mmpluld.typing import BoolArray, FloatArray

__all__ = [
    "LUNA16_LEVELS",
    "LUNA16_MAX_MARKS",
    "interpolated_sensitivity",
    "match_marks",
    "order_statistics",
    "resample_interpolated",
]

LUNA16_LEVELS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Mean false positives per scan whose mean sensitivity is the challenge's score."""
LUNA16_MAX_MARKS = 100
"""Marks that count per scan."""
_UNKNOWN_DIAMETER_MM = 10.0


def match_marks(
    marks: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    nodules: Sequence[ArrayLike],
    excluded: Sequence[ArrayLike],
) -> Matches:
    """Decide for all marks what they find.

    A mark hits a nodule or an excluded finding when it lies nearer to the centre than the radius; a negative
    diameter stands for 10 mm. A nodule counts from its most probable mark on, its other marks count neither for nor
    against, and so do marks on excluded findings. A mark may hit several nodules. All else are false positives.

    Of a scan with more than ``LUNA16_MAX_MARKS`` marks, those count that are more probable than the one after the last
    allowed, so that none of a tie across the limit does.

    Args:
        marks: Per scan (N, 3) world coordinates in mm; an empty list will do for none.
        scores: Per scan (N,) finite scores, any scale.
        nodules: Per scan (M, 4) centre and diameter in mm, to be found.
        excluded: Per scan (K, 4) centre and diameter in mm, neither to be found nor to be missed.

    Returns:
        Matches of the marks that count; equal scores share one curve point.

    Raises:
        InputError: If lengths or shapes do not fit or a score is not finite.
    """
    lengths = [len(marks), len(scores), len(nodules), len(excluded)]
    if len(set(lengths)) != 1:
        raise InputError(
            f"marks, scores, nodules, excluded are for {', '.join(map(str, lengths))} scans; give each one per scan"
        )
    image: list[NDArray[np.intp]] = []
    kept_scores: list[FloatArray] = []
    wrong: list[BoolArray] = []
    best: list[NDArray[np.intp]] = []
    first = 0
    for scan in range(len(marks)):
        points, score = _limited(_rows(marks[scan], 3, "marks", scan), scores[scan], scan)
        hits = _inside(points, _rows(nodules[scan], 4, "nodules", scan))
        beside = _inside(points, _rows(excluded[scan], 4, "excluded findings", scan))
        image.append(np.full(len(points), scan, dtype=np.intp))
        kept_scores.append(score)
        wrong.append(np.asarray(~(hits.any(axis=1) | beside.any(axis=1)), dtype=np.bool_))
        best.append(_most_probable(hits, score, first))
        first += len(points)
    return _ranked(image, kept_scores, wrong, best)


def interpolated_sensitivity(matches: Matches, levels: ArrayLike, *, weights: ArrayLike | None = None) -> FloatArray:
    """Sensitivity at mean false positives per scan, linear between curve points; the curve begins at (0, 0).

    Args:
        matches: Result of ``match_marks``.
        levels: (L,) mean false positives per scan.
        weights: (num_images,) how often each scan counts; once each if None.

    Returns:
        (L,) in [0, 1]; NaN if no nodule counts.
    """
    weight = np.ones(matches.num_images) if weights is None else np.asarray(weights, dtype=np.float64)
    counted = weight[matches.lesion_image]
    if not counted.sum():
        return np.full(len(np.asarray(levels)), np.nan)
    count = len(matches.score)
    found = np.bincount(matches.found_by, weights=counted, minlength=count + 1)[:count].cumsum() / counted.sum()
    rate = (matches.false_positive * weight[matches.image]).cumsum() / weight.sum()
    last = np.r_[matches.point[1:] == np.arange(1, count), True][:count]
    return np.asarray(
        np.interp(np.asarray(levels, dtype=np.float64), np.r_[0.0, rate[last]], np.r_[0.0, found[last]]),
        dtype=np.float64,
    )


def resample_interpolated(matches: Matches, levels: ArrayLike, resamples: int, seed: int) -> FloatArray:
    """Sensitivities (resamples, L) when scans are drawn with replacement; NaN for a draw without nodules.

    Args:
        matches: Result of ``match_marks``.
        levels: (L,) mean false positives per scan.
        resamples: Draws, at least 1; the challenge makes 1000.
        seed: Seed of the draws.

    Raises:
        InputError: If there is no resample.
    """
    if resamples < 1:
        raise InputError(f"{resamples} bootstrap resamples; at least 1 is needed, 1000 is usual")
    rng = np.random.default_rng(seed)
    scans = matches.num_images
    draws = (np.bincount(rng.integers(scans, size=scans), minlength=scans) for _ in range(resamples if scans else 0))
    rows = [interpolated_sensitivity(matches, levels, weights=draw) for draw in draws]
    return np.array(rows).reshape(-1, len(np.asarray(levels)))


def order_statistics(drawn: FloatArray, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Lower and upper end of the interval of (R, ...) draws, R >= 1: two of the sorted draws, as the challenge does."""
    ordered = np.sort(drawn, axis=0)
    tail = (1 - confidence) / 2
    return ordered[math.floor(tail * len(ordered))], ordered[math.floor((1 - tail) * len(ordered))]


def _rows(values: ArrayLike, width: int, name: str, scan: int) -> FloatArray:
    rows = np.asarray(values, dtype=np.float64)
    if rows.size == 0:
        rows = rows.reshape(0, width)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise InputError(f"{name} of scan {scan} have shape {rows.shape}; needed is (N, {width})")
    return rows


def _limited(points: FloatArray, scores: ArrayLike, scan: int) -> tuple[FloatArray, FloatArray]:
    """The marks that count, and their scores."""
    score = np.asarray(scores, dtype=np.float64).reshape(-1)
    if len(score) != len(points):
        raise InputError(f"scan {scan} has {len(points)} marks but {len(score)} scores: give one each")
    if not np.isfinite(score).all():
        raise InputError(f"scan {scan} has a score that is not finite; scores must be finite to be ranked")
    if len(score) <= LUNA16_MAX_MARKS:
        return points, score
    keep = score > np.sort(score)[-LUNA16_MAX_MARKS - 1]
    return points[keep], score[keep]


def _inside(points: FloatArray, findings: FloatArray) -> BoolArray:
    """(N, M) whether each point lies within each finding."""
    diameter = np.where(findings[:, 3] < 0, _UNKNOWN_DIAMETER_MM, findings[:, 3])
    squared = ((points[:, None] - findings[None, :, :3]) ** 2).sum(axis=2)
    return np.asarray(squared < (diameter / 2) ** 2, dtype=np.bool_)


def _most_probable(hits: BoolArray, score: FloatArray, first: int) -> NDArray[np.intp]:
    """(M,) ``first`` + index of the most probable mark on each nodule; -1 where there is none."""
    if not hits.size:
        return np.full(hits.shape[1], -1, dtype=np.intp)
    winner = np.where(hits, score[:, None], -np.inf).argmax(axis=0)
    return np.where(hits.any(axis=0), winner + first, -1)


def _ranked(
    image: list[NDArray[np.intp]],
    scores: list[FloatArray],
    wrong: list[BoolArray],
    best: list[NDArray[np.intp]],
) -> Matches:
    """Join the scans and sort by falling score."""
    score = np.concatenate([np.zeros(0), *scores])
    order = np.argsort(-score, kind="stable")
    # One place more than there are marks: index -1, "none", reads the rank after the last.
    rank = np.full(len(score) + 1, len(score), dtype=np.intp)
    rank[order] = np.arange(len(score))
    score = score[order]
    starts = np.r_[True, score[1:] != score[:-1]][: len(score)]
    point = np.maximum.accumulate(np.where(starts, np.arange(len(score)), 0))
    owner = np.repeat(np.arange(len(best)), [len(part) for part in best])
    none = np.zeros(0, dtype=np.intp)
    return Matches(
        image=np.concatenate([none, *image])[order],
        score=score,
        false_positive=np.concatenate([np.zeros(0, dtype=np.bool_), *wrong])[order],
        point=point.astype(np.intp),
        lesion_image=owner.astype(np.intp),
        found_by=rank[np.concatenate([none, *best])],
        num_images=len(image),
    )
