"""Tracklets of a volume's proposals as boxes on slices of the scan."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmpluld.errors import InputError
from mmpluld.io.proposals import VolumeProposals
from mmpluld.postprocess.grid import GridMap
from mmpluld.postprocess.scan_slices import chains_on_slices
from mmpluld.structures import Box2D, paired_overlap
from mmpluld.typing import IntArray

__all__ = ["ScanTracklet", "scan_tracklets", "within_lesion"]

_Box3D = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class ScanTracklet:
    """One tracklet.

    Attributes:
        number: Its number in the proposals, by which it has no meaning beyond them.
        boxes: Its box on each slice that it covers, by slice number, ascending.
        score: The best of its 2D boxes.
        box: Its 3D box (as :func:`~mmpluld.postprocess.tracklet_to_box3d` merges it), z in slice numbers.
        key_slice: The slice nearest to its best 2D box, of those that it covers.
    """

    number: int
    boxes: dict[int, Box2D]
    score: float
    box: _Box3D
    key_slice: int

    @property
    def centre(self) -> tuple[int, Box2D]:
        """Its middle slice, the lower of two, and its box there."""
        rows = list(self.boxes.items())
        return rows[(len(rows) - 1) // 2]


def scan_tracklets(
    proposals: VolumeProposals, experts: Collection[int] | None = None, box_score: float = 0.0
) -> list[ScanTracklet]:
    """All tracklets of a volume, in an order that depends on their boxes alone.

    Args:
        proposals: Of the volume.
        experts: Take tracklets with a box of one of these experts only; None takes all.
        box_score: Tracklets begin and end with a box that scores at least this; those without one are left out.
    """
    wanted = proposals.tracklet_boxes(box_score)
    if experts is not None:
        chosen = wanted & np.isin(proposals.expert, list(experts))
        wanted &= np.isin(proposals.tracklet, proposals.tracklet[chosen])
    tracklets: list[ScanTracklet] = []
    for run in range(len(proposals.runs)):
        tracklets += _of_run(proposals, run, np.flatnonzero(wanted & (proposals.run == run)))
    return sorted(tracklets, key=lambda item: (list(item.boxes.items()), item.score))


def within_lesion(
    boxes: Mapping[int, Box2D],
    centres: Mapping[int, Box2D],
    spacing_mm: Sequence[float],
    depth: float | None,
    centre_iou: float | None,
) -> dict[int, Box2D]:
    """The boxes that lie near enough to belong to one lesion.

    A chain of boxes can run on beyond a lesion, along a vessel or the bowel, without an end in its scores. A lesion is
    hardly longer than it is wide, and its cross-sections lie over one another.

    Args:
        boxes: Of a tracklet, by slice.
        centres: Of the lesion, by slice: its annotated boxes, or the one that stands for it.
        spacing_mm: (z, y, x).
        depth: Farthest from the nearest of ``centres``, as a multiple of that one's longer side; None: any distance.
        centre_iou: They overlap the nearest of ``centres``, laid on their slice, by more than this; None: or not.

    Raises:
        InputError: There is a ``depth``, and a size of the voxels is unknown.
    """
    if depth is None and centre_iou is None:
        return dict(boxes)
    z, y, x = spacing_mm
    if depth is not None and not all(math.isfinite(size) for size in spacing_mm):
        raise InputError(
            f"voxels of {z:g} x {y:g} x {x:g} mm: how deep a lesion may be (depth) is told in mm; give the annotation "
            "file spacing_mm with three numbers, or mine without a depth"
        )

    nearest = {number: min(centres, key=lambda centre: (abs(number - centre), centre)) for number in boxes}
    kept = dict(boxes)
    if depth is not None:
        reach = {number: depth * max((x2 - x1) * x, (y2 - y1) * y) for number, (x1, y1, x2, y2) in centres.items()}
        kept = {n: box for n, box in kept.items() if abs(n - nearest[n]) * z <= reach[nearest[n]]}
    if centre_iou is not None and kept:
        over = paired_overlap(np.array(list(kept.values())), np.array([centres[nearest[n]] for n in kept]))
        kept = {n: box for (n, box), near in zip(kept.items(), over > centre_iou, strict=True) if near}
    return kept


def _of_run(proposals: VolumeProposals, run: int, rows: IntArray) -> list[ScanTracklet]:
    """The tracklets that consist of some boxes, all of one run of slices."""
    if not len(rows):
        return []
    first, count = proposals.runs[run].tolist()
    grid = GridMap(count, proposals.interval_mm, proposals.gap_mm)
    rows = rows[np.lexsort((proposals.grid[rows], proposals.tracklet[rows]))]
    numbers, starts = np.unique(proposals.tracklet[rows], return_index=True)
    found = chains_on_slices(grid, proposals.tracklet[rows], proposals.grid[rows], proposals.boxes[rows])
    boxes: dict[int, dict[int, Box2D]] = {}
    for number, index, (x1, y1, x2, y2) in zip(*(part.tolist() for part in found), strict=True):
        boxes.setdefault(number, {})[first + index] = (x1, y1, x2, y2)
    # As tracklet_to_box3d does for one: the mean of the boxes weighted by their scores, and the first of the best.
    scores = proposals.scores[rows]
    total = np.add.reduceat(scores, starts)
    lengths = np.diff(np.r_[starts, len(rows)])
    weights = np.where(np.repeat(total, lengths) > 0, scores, 1.0)
    means = (
        np.add.reduceat(weights[:, None] * proposals.boxes[rows], starts) / np.add.reduceat(weights, starts)[:, None]
    )
    best = rows[np.lexsort((proposals.grid[rows], -scores, proposals.tracklet[rows]))[starts]]
    keys = first + grid.slices_to_scan(proposals.grid[best])
    tracklets = []
    for row, (number, (x1, y1, x2, y2)) in enumerate(zip(numbers.tolist(), means.tolist(), strict=True)):
        low, high = min(boxes[number]), max(boxes[number])
        box = (x1, y1, float(low), x2, y2, high + 1.0)
        key = min(max(int(keys[row]), low), high)
        tracklets.append(ScanTracklet(number, boxes[number], float(proposals.scores[best[row]]), box, key))
    return tracklets
