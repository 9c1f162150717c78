"""Tracklets of a volume's proposals as boxes on slices of the scan."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mmpluld.io.proposals import VolumeProposals
from mmpluld.postprocess import GridMap, Tracklet, chain_on_slices, tracklet_to_box3d
from mmpluld.structures import Box2D

__all__ = ["ScanTracklet", "scan_tracklets"]

Box3D = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class ScanTracklet:
    """One tracklet.

    Attributes:
        number: Its number in the proposals, by which it has no meaning beyond them.
        boxes: Its box on each slice that it covers, by slice number, ascending.
        score: The best of its 2D boxes.
        box: Its 3D box (:func:`~mmpluld.postprocess.tracklet_to_box3d`), z in slice numbers.
        key_slice: The slice nearest to its best 2D box, of those that it covers.
    """

    number: int
    boxes: dict[int, Box2D]
    score: float
    box: Box3D
    key_slice: int

    @property
    def centre(self) -> tuple[int, Box2D]:
        """Its middle slice, the lower of two, and its box there."""
        rows = list(self.boxes.items())
        return rows[(len(rows) - 1) // 2]


def scan_tracklets(proposals: VolumeProposals, experts: Collection[int] | None = None) -> list[ScanTracklet]:
    """All tracklets of a volume, in an order that depends on their boxes alone.

    Args:
        proposals: Of the volume.
        experts: Take tracklets with a box of one of these experts only; None takes all.
    """
    members = np.flatnonzero(proposals.tracklet >= 0)
    members = members[np.lexsort((proposals.grid[members], proposals.tracklet[members]))]
    cuts = np.flatnonzero(np.diff(proposals.tracklet[members])) + 1
    grids = [GridMap(int(count), proposals.interval_mm, proposals.gap_mm) for _, count in proposals.runs.tolist()]
    found = []
    for rows in np.split(members, cuts) if len(members) else []:
        if experts is not None and not set(proposals.expert[rows].tolist()) & set(experts):
            continue
        run = int(proposals.run[rows[0]])
        chain = Tracklet(proposals.grid[rows], proposals.boxes[rows], proposals.scores[rows])
        slices, boxes = chain_on_slices(grids[run], chain.slices, chain.boxes)
        numbers = (slices + proposals.runs[run, 0]).tolist()
        on_slices = {number: (x1, y1, x2, y2) for number, (x1, y1, x2, y2) in zip(numbers, boxes.tolist(), strict=True)}
        merged = tracklet_to_box3d(chain)
        x1, y1, _, x2, y2, _ = merged.box.tolist()
        key_slice = int(grids[run].slices_to_scan(merged.key_slice) + proposals.runs[run, 0])
        found.append(
            ScanTracklet(
                int(proposals.tracklet[rows[0]]),
                on_slices,
                merged.score,
                (x1, y1, numbers[0], x2, y2, numbers[-1] + 1),
                min(max(key_slice, numbers[0]), numbers[-1]),
            )
        )
    return sorted(found, key=lambda item: (list(item.boxes.items()), item.score))
