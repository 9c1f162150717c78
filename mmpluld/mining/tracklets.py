"""Tracklets of a volume's proposals as boxes on slices of the scan."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mmpluld.io.proposals import VolumeProposals
from mmpluld.postprocess import GridMap, chains_on_slices
from mmpluld.structures import Box2D
from mmpluld.typing import BoolArray

__all__ = ["ScanTracklet", "scan_tracklets"]


@dataclass(frozen=True)
class ScanTracklet:
    """One tracklet.

    Attributes:
        number: Its number in the proposals, by which it has no meaning beyond them.
        boxes: Its box on each slice that it covers, by slice number, ascending.
        score: The best of its 2D boxes.
    """

    number: int
    boxes: dict[int, Box2D]
    score: float

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
    wanted = _between_good(proposals, box_score)
    if experts is not None:
        chosen = wanted & np.isin(proposals.expert, list(experts))
        wanted &= np.isin(proposals.tracklet, proposals.tracklet[chosen])
    best: dict[int, float] = {}
    boxes: dict[int, dict[int, Box2D]] = {}
    for run, (first, count) in enumerate(proposals.runs.tolist()):
        rows = np.flatnonzero(wanted & (proposals.run == run))
        rows = rows[np.lexsort((proposals.grid[rows], proposals.tracklet[rows]))]
        grid = GridMap(count, proposals.interval_mm, proposals.gap_mm)
        found = chains_on_slices(grid, proposals.tracklet[rows], proposals.grid[rows], proposals.boxes[rows])
        for number, index, (x1, y1, x2, y2) in zip(*(part.tolist() for part in found), strict=True):
            boxes.setdefault(number, {})[first + index] = (x1, y1, x2, y2)
        for number, score in zip(proposals.tracklet[rows].tolist(), proposals.scores[rows].tolist(), strict=True):
            best[number] = max(score, best.get(number, 0.0))
    tracklets = [ScanTracklet(number, on_slices, best[number]) for number, on_slices in boxes.items()]
    return sorted(tracklets, key=lambda item: (list(item.boxes.items()), item.score))


def _between_good(proposals: VolumeProposals, box_score: float) -> BoolArray:
    """Which boxes (N,) lie between the first and the last box of their tracklet that scores enough."""
    good = (proposals.tracklet >= 0) & (proposals.scores >= box_score)
    first = np.full(proposals.num_tracklets + 1, np.iinfo(np.int64).max)
    last = np.full(proposals.num_tracklets + 1, -1)
    np.minimum.at(first, proposals.tracklet[good], proposals.grid[good])
    np.maximum.at(last, proposals.tracklet[good], proposals.grid[good])
    within = (proposals.grid >= first[proposals.tracklet]) & (proposals.grid <= last[proposals.tracklet])
    return np.asarray(within & (proposals.tracklet >= 0), dtype=np.bool_)
