"""Boxes of several augmented views of a volume, averaged (data distillation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmpluld.errors import InputError
from mmpluld.io.proposals import VolumeProposals
from mmpluld.structures import pairwise_overlap
from mmpluld.typing import FloatArray, IntArray

__all__ = ["average_views"]

_SAME = 0.5
"""IoU above which boxes are one."""


def average_views(views: Sequence[VolumeProposals]) -> VolumeProposals:
    """Join the boxes that views of one volume have of the same thing: their means, weighted by their scores.

    On each grid slice, of each expert, the box with the best score takes the best-overlapping box of every other view,
    if their IoU is above 0.5; then the next best of the boxes left. The joint score is the sum of theirs divided by the
    number of views, so that what one view alone sees scores little. Joint boxes that overlap a better one by more than
    0.5 are dropped: means can move onto one lesion. The order of views has no influence but for rounding.

    Args:
        views: At least one; a single one is returned as it is.

    Returns:
        Proposals without tracklets.

    Raises:
        InputError: The views have different grids.
    """
    first = views[0]
    if len(views) == 1:
        return first
    for view in views[1:]:
        same = (view.gap_mm, view.interval_mm) == (first.gap_mm, first.interval_mm)
        if not same or not np.array_equal(view.runs, first.runs):
            raise InputError(
                f"volume '{first.volume}': its views have different grids; propose all of them with the same gap"
            )
    boxes, scores = (np.concatenate([getattr(view, name) for view in views]) for name in ("boxes", "scores"))
    if not len(scores):
        return first
    places = np.concatenate([np.stack([view.run, view.grid, view.expert, view.slice], axis=1) for view in views])
    owner = np.repeat(np.arange(len(views)), [len(view.scores) for view in views])
    order = np.lexsort((*boxes.T[::-1], -scores, *places.T[::-1]))
    boxes, scores, places, owner = boxes[order], scores[order], places[order], owner[order]
    starts = np.flatnonzero(np.r_[True, (places[1:] != places[:-1]).any(axis=1)])
    parts = zip(starts, np.r_[starts[1:], len(places)], strict=True)
    joint = [(start, *_average(boxes[start:end], scores[start:end], owner[start:end])) for start, end in parts]
    counts = [len(item[2]) for item in joint]
    rows = places[np.repeat(starts, counts).astype(np.int64)]
    return replace(
        first,
        boxes=np.concatenate([np.empty((0, 4)), *(item[1] for item in joint)]),
        scores=np.concatenate([np.empty(0), *(item[2] for item in joint)]) / len(views),
        run=rows[:, 0], grid=rows[:, 1], expert=rows[:, 2], slice=rows[:, 3],
        tracklet=np.full(len(rows), -1, dtype=np.int64),
    )  # fmt: skip


def _average(boxes: FloatArray, scores: FloatArray, owner: IntArray) -> tuple[FloatArray, FloatArray]:
    """Joint boxes and sums of scores on one slice; boxes come best first, ``owner`` is their view."""
    overlap = np.nan_to_num(pairwise_overlap(boxes, boxes))
    one, other = np.nonzero((overlap > _SAME) & (owner[:, None] != owner))
    near = np.split(other, np.searchsorted(one, np.arange(1, len(boxes))))
    free = [True] * len(boxes)
    means, sums = [], []
    for best in range(len(boxes)):
        if not free[best]:
            continue
        nearest: dict[int, int] = {}
        for index in near[best].tolist():
            view = int(owner[index])
            if free[index] and (view not in nearest or overlap[best, index] > overlap[best, nearest[view]]):
                nearest[view] = index
        members = [best, *(nearest[view] for view in sorted(nearest))]
        for index in members:
            free[index] = False
        total = scores[members].sum()
        weights = scores[members] / total if total > 0 else np.full(len(members), 1 / len(members))
        means.append(weights @ boxes[members])
        sums.append(total)
    return _distinct(np.array(means), np.array(sums))


def _distinct(boxes: FloatArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The boxes that no better one overlaps by more than ``_SAME``, best first."""
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    same = np.nan_to_num(pairwise_overlap(boxes, boxes)) > _SAME
    kept: list[int] = []
    for index in range(len(boxes)):
        if not same[index, kept].any():
            kept.append(index)
    return boxes[kept], scores[kept]
