"""From boxes on slices to 3D boxes: link slice to slice, then merge each chain (LENS, sections IV-C, V-A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from mmpluld.structures.overlaps import pairwise_overlap
from mmpluld.typing import BoolArray, FloatArray, IntArray

__all__ = ["Box3D", "LinkOrder", "ScoreRule", "Tracklet", "link_slices", "number_tracklets", "tracklet_to_box3d"]

ScoreRule = Literal["max", "mean"]
LinkOrder = Literal["iou", "score"]


@dataclass(frozen=True)
class Tracklet:
    """One chain of 2D boxes, at most one per slice.

    Attributes:
        slices: (n,) slice indices, strictly increasing.
        boxes: (n, 4) boxes (x1, y1, x2, y2), pixel edges.
        scores: (n,) scores.
    """

    slices: IntArray
    boxes: FloatArray
    scores: FloatArray


@dataclass(frozen=True)
class Box3D:
    """A merged chain: ``box`` (6,) as (x1, y1, z1, x2, y2, z2) edges, its ``score``, and its best slice.

    ``key_slice`` is the slice with the highest 2D score and ``key_box`` (4,) the 2D box found there.
    """

    box: FloatArray
    score: float
    key_slice: int
    key_box: FloatArray


def link_slices(
    boxes_per_slice: Sequence[npt.ArrayLike],
    scores_per_slice: Sequence[npt.ArrayLike],
    iou_thr: float = 0.5,
    max_gap: int = 0,
    link_order: LinkOrder = "iou",
) -> list[Tracklet]:
    """Link boxes of neighbouring slices that overlap by more than ``iou_thr`` into chains.

    The paper fixes the rule: IoU above 0.5 between consecutive slices, and a box without partner is a chain
    of its own. It leaves two points open, which are settled so: links are one-to-one, given out greedily in
    ``link_order``; and no slice may be skipped unless ``max_gap`` allows it, in which case shorter gaps are
    served before longer ones.
    The order of the boxes within a slice has no influence.

    Args:
        boxes_per_slice: for each slice, in order, its (n, 4) boxes (x1, y1, x2, y2), pixel edges, after NMS.
        scores_per_slice: for each slice its (n,) scores.
        iou_thr: boxes are linked when their IoU is strictly greater; in [0, 1).
        max_gap: how many slices without a partner a chain may bridge; 0 follows the paper.
        link_order: where boxes compete for a partner, the pair with the highest ``iou``, or with the highest sum of
            the two ``score``, comes first.

    Returns:
        The chains, ordered by their first slice, then by descending score of their first box.

    Raises:
        ValueError: if the arguments do not fit together.
    """
    flat = _flatten(boxes_per_slice, scores_per_slice)
    chain = _chains(flat, len(boxes_per_slice), iou_thr, max_gap, link_order)
    if not len(chain):
        return []
    members = np.argsort(chain, kind="stable")
    cuts = np.searchsorted(chain[members], np.arange(1, chain.max() + 1))
    return [Tracklet(flat.slices[rows], flat.boxes[rows], flat.scores[rows]) for rows in np.split(members, cuts)]


def number_tracklets(
    boxes_per_slice: Sequence[npt.ArrayLike],
    scores_per_slice: Sequence[npt.ArrayLike],
    iou_thr: float = 0.5,
    max_gap: int = 0,
    link_order: LinkOrder = "iou",
) -> list[IntArray]:
    """For each slice the (n,) places of its boxes' chains in what :func:`link_slices` returns for the same arguments.

    Raises:
        ValueError: if the arguments do not fit together.
    """
    flat = _flatten(boxes_per_slice, scores_per_slice)
    numbers = np.empty(len(flat.order), dtype=np.int64)
    numbers[flat.order] = _chains(flat, len(boxes_per_slice), iou_thr, max_gap, link_order)
    ends = np.searchsorted(flat.slices, np.arange(1, len(boxes_per_slice)))
    return np.split(numbers, ends)[: len(boxes_per_slice)]


def tracklet_to_box3d(tracklet: Tracklet, score: ScoreRule = "max") -> Box3D:
    """Merge a chain into one 3D box.

    In plane the box is the score-weighted mean of the chain's boxes (LENS, section IV-C); along z it runs
    from the first to the last slice. The paper leaves the 3D score open: ``max`` (default) or ``mean``.

    Raises:
        ValueError: if ``score`` is neither ``max`` nor ``mean``.
    """
    if score not in ("max", "mean"):
        raise ValueError(f"score is {score!r}; it must be 'max' or 'mean'")
    total = tracklet.scores.sum()
    weights = tracklet.scores / total if total > 0 else np.full(len(tracklet.scores), 1 / len(tracklet.scores))
    x1, y1, x2, y2 = weights @ tracklet.boxes
    best = int(tracklet.scores.argmax())
    return Box3D(
        box=np.array([x1, y1, tracklet.slices[0], x2, y2, tracklet.slices[-1] + 1], dtype=np.float64),
        score=float(tracklet.scores.max() if score == "max" else tracklet.scores.mean()),
        key_slice=int(tracklet.slices[best]),
        key_box=tracklet.boxes[best],
    )


class _Flat(NamedTuple):
    """All boxes, scores and slice indices, in an order that does not depend on the given order in a slice.

    ``order`` are their places in the arrays of all slices joined as given.
    """

    boxes: FloatArray
    scores: FloatArray
    slices: IntArray
    order: IntArray


def _flatten(boxes_per_slice: Sequence[npt.ArrayLike], scores_per_slice: Sequence[npt.ArrayLike]) -> _Flat:
    if len(boxes_per_slice) != len(scores_per_slice):
        raise ValueError(f"{len(boxes_per_slice)} slices of boxes but {len(scores_per_slice)} of scores")
    box_list = [np.asarray(boxes, dtype=np.float64).reshape(-1, 4) for boxes in boxes_per_slice]
    score_list = [np.asarray(scores, dtype=np.float64).reshape(-1) for scores in scores_per_slice]
    for index, (boxes, scores) in enumerate(zip(box_list, score_list, strict=True)):
        if len(boxes) != len(scores):
            raise ValueError(f"slice {index} has {len(boxes)} boxes but {len(scores)} scores")
    all_boxes = np.concatenate([np.empty((0, 4)), *box_list])
    all_scores = np.concatenate([np.empty(0), *score_list])
    slices = np.repeat(np.arange(len(box_list)), [len(boxes) for boxes in box_list])
    order = np.lexsort((*all_boxes.T[::-1], -all_scores, slices))
    return _Flat(all_boxes[order], all_scores[order], slices[order], order)


def _chains(flat: _Flat, num_slices: int, iou_thr: float, max_gap: int, link_order: LinkOrder) -> IntArray:
    """The chain of each box, numbered by the first box."""
    if not 0 <= iou_thr < 1:
        raise ValueError(f"iou_thr is {iou_thr}; it must lie in [0, 1)")
    if link_order not in get_args(LinkOrder):
        raise ValueError(f"link_order is {link_order!r}; it must be 'iou' or 'score'")
    if max_gap < 0:
        raise ValueError(f"max_gap is {max_gap}; it must be 0 or more")
    boxes, scores, slices, _ = flat
    previous = np.full(len(boxes), -1, dtype=np.int64)
    starts = np.searchsorted(slices, np.arange(num_slices + 1))
    open_ends = np.empty(0, dtype=np.int64)
    for index in range(num_slices):
        current = np.arange(starts[index], starts[index + 1])
        open_ends = open_ends[slices[open_ends] >= index - 1 - max_gap]
        iou = pairwise_overlap(boxes[open_ends], boxes[current])
        worth = iou if link_order == "iou" else scores[open_ends][:, None] + scores[current]
        before, after = _match(open_ends, current, slices, iou > iou_thr, worth)
        previous[after] = before
        open_ends = np.concatenate([np.setdiff1d(open_ends, before, assume_unique=True), current])
    return _numbered(previous)


def _match(
    open_ends: IntArray, current: IntArray, slices: IntArray, allowed: BoolArray, worth: FloatArray
) -> tuple[IntArray, IntArray]:
    """Greedy one-to-one pairs (earlier box, later box), by increasing gap, then by descending worth.

    A pair that comes first in the ranking for both of its boxes is the one the greedy choice would take,
    whatever happens elsewhere; so all such pairs are taken at once and the rest is looked at again.
    """
    rows, columns = np.nonzero(allowed)
    order = np.lexsort((columns, rows, -worth[rows, columns], -slices[open_ends[rows]]))
    rows, columns = rows[order], columns[order]
    taken: list[tuple[IntArray, IntArray]] = [(rows[:0], columns[:0])]
    while len(rows):
        first_of_row = np.zeros(len(rows), dtype=bool)
        first_of_row[np.unique(rows, return_index=True)[1]] = True
        first_of_column = np.zeros(len(rows), dtype=bool)
        first_of_column[np.unique(columns, return_index=True)[1]] = True
        won = first_of_row & first_of_column
        taken.append((rows[won], columns[won]))
        rest = ~(np.isin(rows, rows[won]) | np.isin(columns, columns[won]))
        rows, columns = rows[rest], columns[rest]
    return open_ends[np.concatenate([t[0] for t in taken])], current[np.concatenate([t[1] for t in taken])]


def _numbered(previous: IntArray) -> IntArray:
    """Number the chains by following ``previous``, which always points backwards."""
    chain = np.empty(len(previous), dtype=np.int64)
    count = 0
    for index, before in enumerate(previous):
        if before < 0:
            chain[index] = count
            count += 1
        else:
            chain[index] = chain[before]
    return chain
