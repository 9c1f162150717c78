"""From the boxes of chains on the grid to a box on each slice of the scan."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmpluld.postprocess.grid import GridMap
from mmpluld.typing import FloatArray, IntArray

__all__ = ["chains_on_slices"]


def chains_on_slices(
    grid: GridMap, chains: npt.ArrayLike, positions: npt.ArrayLike, boxes: npt.ArrayLike
) -> tuple[IntArray, IntArray, FloatArray]:
    """The scan slices that chains of boxes cover, and the box of each chain on each of its slices.

    Slices are those of the chain's 3D box by the rule ``covered`` of :class:`GridMap`. The box on a slice is
    interpolated linearly between the chain's boxes at the grid slices before and after it, and beyond the chain's first
    or last grid slice it is the box there. LENS leaves both open.

    Args:
        grid: Map from the grid to the scan.
        chains: (n,) number of the chain that each box is of; ascending.
        positions: (n,) grid slices, strictly increasing within a chain.
        boxes: (n, 4) boxes, pixel edges.

    Returns:
        (m,) numbers of chains, ascending, (m,) scan slices, counted from the first of the scan and consecutive within a
        chain, and (m, 4) boxes; each chain has at least one.
    """
    owner, places = np.asarray(chains, np.int64), np.asarray(positions, np.int64)
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    if not len(owner):
        return owner, places, corners
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    ends = np.r_[starts[1:], len(owner)] - 1
    extents = np.zeros((len(starts), 6))
    extents[:, 2], extents[:, 5] = places[starts], places[ends] + 1
    mapped = grid.boxes_to_scan(extents)[:, [2, 5]].astype(np.int64)
    lengths = mapped[:, 1] - mapped[:, 0]
    chain = np.repeat(np.arange(len(starts)), lengths)
    slices = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths) + mapped[chain, 0]
    wanted = np.clip(slices * grid.interval_mm / grid.gap_mm, places[starts][chain], places[ends][chain])
    # Boxes of all chains on one line, each chain beyond the end of the one before.
    step = int(places.max()) + 2
    line = np.repeat(np.arange(len(starts)), ends - starts + 1) * step + places
    lower = np.searchsorted(line, chain * step + np.floor(wanted).astype(np.int64), side="right") - 1
    upper = np.minimum(lower + 1, ends[chain])
    apart = places[upper] - places[lower]
    weight = np.where(apart > 0, (wanted - places[lower]) / np.maximum(apart, 1), 0.0)[:, None]
    return owner[starts][chain], slices, corners[lower] + weight * (corners[upper] - corners[lower])
