"""From the boxes of a chain on the grid to a box on each slice of the scan."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmpluld.postprocess.grid import GridMap
from mmpluld.typing import FloatArray, IntArray

__all__ = ["chain_on_slices"]


def chain_on_slices(grid: GridMap, positions: npt.ArrayLike, boxes: npt.ArrayLike) -> tuple[IntArray, FloatArray]:
    """The scan slices that a chain of boxes covers, and its box on each.

    Slices are those of the chain's 3D box by the rule ``covered`` of :class:`GridMap`. The box on a slice is
    interpolated linearly between the chain's boxes at the grid slices before and after it, and beyond the chain's first
    or last grid slice it is the box there. LENS leaves both open.

    Args:
        grid: Map from the grid to the scan.
        positions: (n,) grid slices of the chain, strictly increasing, n at least 1.
        boxes: (n, 4) its boxes, pixel edges.

    Returns:
        (m,) scan slices, consecutive, counted from the first of the scan, and (m, 4) boxes; m is at least 1.
    """
    places, corners = np.asarray(positions, np.float64), np.asarray(boxes, np.float64)
    extent = [[0, 0, places[0], 0, 0, places[-1] + 1]]
    (_, _, first, _, _, end) = grid.boxes_to_scan(extent)[0].astype(np.int64).tolist()
    slices = np.arange(first, end, dtype=np.int64)
    wanted = slices * grid.interval_mm / grid.gap_mm
    return slices, np.stack([np.interp(wanted, places, corner) for corner in corners.T], axis=1)
