"""A series seen as slices at a fixed distance, resampled one slice at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmpluld.io.hounsfield import without_padding
from mmpluld.io.slice_sources import SliceSource
from mmpluld.postprocess import GridMap

__all__ = ["GridSliceSource"]

SliceArray = npt.NDArray[np.int16] | npt.NDArray[np.float32]


class GridSliceSource:
    """The grid slices of a series, as the loading transform wants them.

    A grid slice between two slices of the scan is their linear interpolation, made when it is read, so that no
    resampled copy of the volume is ever held.

    Args:
        source: The scan's slices.
        gap_mm: Distance of the grid slices.
        slices: The numbers of consecutive slices of ``source`` to cover; None: all of them.

    Attributes:
        grid: The map from grid slices to positions in ``slices``.
        slices: Numbers of the slices covered.
        indices: 0 to the number of grid slices - 1.
        spacing_mm: (gap, y, x).
        shape_yx: Slice size in pixels.
    """

    def __init__(self, source: SliceSource, gap_mm: float, slices: npt.NDArray[np.int64] | None = None) -> None:
        interval, spacing_y, spacing_x = source.spacing_mm
        self.source = source
        self.slices = source.indices if slices is None else slices
        self.grid = GridMap(len(self.slices), interval, gap_mm)
        self.indices: npt.NDArray[np.int64] = np.arange(self.grid.num_grid_slices)
        self.spacing_mm = (gap_mm, spacing_y, spacing_x)
        self.shape_yx = source.shape_yx
        self._recent: dict[int, SliceArray] = {}

    def read(self, index: int) -> SliceArray:
        """Grid slice ``index``, (H, W) in HU.

        Raises:
            IndexError: If there is no such grid slice.
        """
        lower, upper, weight = self.grid.neighbours(index)
        if lower == upper:
            return self._scan_slice(lower)
        below = self._scan_slice(lower).astype(np.float32)
        above: npt.NDArray[np.float32] = self._scan_slice(upper).astype(np.float32)
        above -= below
        above *= np.float32(weight)
        above += below
        return above

    def _scan_slice(self, position: int) -> SliceArray:
        """A slice of the scan; the last two are kept, because several grid slices can lie between them."""
        found = self._recent.get(position)
        if found is None:
            found = without_padding(self.source.read(int(self.slices[position])))
            # A new dict, since several slices may be read at the same time.
            self._recent = {**dict(list(self._recent.items())[-1:]), position: found}
        return found
