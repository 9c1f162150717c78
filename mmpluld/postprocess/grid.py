"""The regular grid along z on which volumes are examined, and the way back to the slices of the scan.

Positions along z are millimetres from the centre of the first slice. Slice ``i`` of a scan with slice
interval ``d`` is centred at ``i * d``; grid slice ``g`` is centred at ``g * gap`` and stands for ``gap / 2``
to either side. In edge coordinates (slice ``i`` covers ``[i, i + 1)``) position ``p`` is the edge
``p / d + 1 / 2``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from mmpluld.typing import FloatArray, IntArray

__all__ = ["GridMap", "GridRule"]

GridRule = Literal["covered", "nearest"]

# In slices: headers round the slice interval, and a tie must not depend on its last digit.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class GridMap:
    """Maps grid slices to the slices of a scan (LENS leaves this step open).

    The grid has as many slices as are needed for every slice centre of the scan to lie within half a gap of
    a grid slice. A run of grid slices maps, by the rule ``covered``, to all scan slices whose centres it covers, ends
    included; a run between two centres maps to the one scan slice nearest to its middle. By the rule ``nearest`` it
    maps to the scan slices from that nearest to its first grid slice to that nearest to its last; in thick scans these
    may be up to half an interval outside the run, and in thin ones those close to its ends are left out. The result is
    whole slices within the scan, at least one; where the slice interval equals the gap the map is the identity.

    Attributes:
        num_slices: number of slices of the scan, at least 1.
        interval_mm: distance of its slice centres, greater than 0.
        gap_mm: distance of the grid slices, greater than 0.
    """

    num_slices: int
    interval_mm: float
    gap_mm: float = 2.0

    def __post_init__(self) -> None:
        if self.num_slices < 1:
            raise ValueError(f"num_slices is {self.num_slices}; a scan has at least 1 slice")
        for name in ("interval_mm", "gap_mm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be a finite number greater than 0")

    @property
    def num_grid_slices(self) -> int:
        """Number of grid slices, at least 1."""
        extent = (self.num_slices - 1) * self.interval_mm
        return max(math.ceil(extent / self.gap_mm - 0.5 - _TOLERANCE), 0) + 1

    def neighbours(self, grid_slice: int) -> tuple[int, int, float]:
        """The scan slices below and above a grid slice and the weight of the upper (linear interpolation).

        Beyond the last slice, where the grid may reach by less than half a gap, the last slice is repeated.

        Raises:
            IndexError: if there is no such grid slice.
        """
        if not 0 <= grid_slice < self.num_grid_slices:
            raise IndexError(f"grid slice {grid_slice} is outside 0 to {self.num_grid_slices - 1}")
        position = min(grid_slice * self.gap_mm / self.interval_mm, float(self.num_slices - 1))
        lower = math.floor(position + _TOLERANCE)
        weight = position - lower
        if weight <= _TOLERANCE:
            return lower, lower, 0.0
        return lower, lower + 1, weight

    def slices_to_scan(self, grid_slices: npt.ArrayLike) -> IntArray:
        """The scan slice nearest to each grid slice; of two equally near ones the lower."""
        position = np.asarray(grid_slices, dtype=np.float64) * self.gap_mm / self.interval_mm
        nearest = np.ceil(position - 0.5 - _TOLERANCE).astype(np.int64)
        return np.clip(nearest, 0, self.num_slices - 1)

    def scan_to_grid(self, slices: npt.ArrayLike) -> IntArray:
        """The grid slice nearest to each scan slice; of two equally near ones the lower.

        Where the slice interval is at least the gap, ``slices_to_scan`` leads back to the same scan slice; where it is
        at most the gap, a grid slice comes back from its nearest scan slice.
        """
        position = np.asarray(slices, dtype=np.float64) * self.interval_mm / self.gap_mm
        nearest = np.ceil(position - 0.5 - _TOLERANCE).astype(np.int64)
        return np.clip(nearest, 0, self.num_grid_slices - 1)

    def boxes_to_scan(self, boxes: npt.ArrayLike, rule: GridRule = "covered") -> FloatArray:
        """Boxes (N, 6) with z as grid edges -> the same boxes with z as edges of whole scan slices.

        Raises:
            ValueError: if there is no such rule.
        """
        if rule not in get_args(GridRule):
            raise ValueError(f"rule is {rule!r}; it must be 'covered' or 'nearest'")
        mapped = np.array(boxes, dtype=np.float64).reshape(-1, 6)
        if rule == "nearest":
            mapped[:, 2] = self.slices_to_scan(mapped[:, 2])
            mapped[:, 5] = self.slices_to_scan(mapped[:, 5] - 1) + 1
            return mapped
        scale = self.gap_mm / self.interval_mm
        low, high = (mapped[:, 2] - 0.5) * scale, (mapped[:, 5] - 0.5) * scale
        first = np.ceil(low - _TOLERANCE)
        last = np.floor(high + _TOLERANCE)
        middle = np.ceil((low + high) / 2 - 0.5 - _TOLERANCE)
        between = last < first
        first, last = np.where(between, middle, first), np.where(between, middle, last)
        mapped[:, 2] = np.clip(first, 0, self.num_slices - 1)
        mapped[:, 5] = np.clip(last, 0, self.num_slices - 1) + 1
        return mapped
