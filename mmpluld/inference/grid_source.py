"""A volume seen as slices at a fixed distance, resampled one slice at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmpluld.postprocess import GridMap
from mmpluld.structures import CTVolume

__all__ = ["GridSliceSource"]

SliceArray = npt.NDArray[np.int16] | npt.NDArray[np.float32]


class GridSliceSource:
    """The grid slices of a volume, as the loading transform wants them.

    A grid slice between two slices of the scan is their linear interpolation, made when it is read, so that no
    resampled copy of the volume is ever held.

    Args:
        volume: The scan.
        gap_mm: Distance of the grid slices.

    Attributes:
        grid: The map from grid slices to slices of the scan.
        indices: 0 to the number of grid slices - 1.
        spacing_mm: (gap, y, x).
        shape_yx: Slice size in pixels.
    """

    def __init__(self, volume: CTVolume, gap_mm: float) -> None:
        depth, height, width = volume.shape
        interval, spacing_y, spacing_x = volume.spacing_mm
        self.volume = volume
        self.grid = GridMap(depth, interval, gap_mm)
        self.indices: npt.NDArray[np.int64] = np.arange(self.grid.num_grid_slices)
        self.spacing_mm = (gap_mm, spacing_y, spacing_x)
        self.shape_yx = (height, width)

    def read(self, index: int) -> SliceArray:
        """Grid slice ``index``, (H, W) in HU.

        Raises:
            IndexError: If there is no such grid slice.
        """
        lower, upper, weight = self.grid.neighbours(index)
        if lower == upper:
            stored: SliceArray = self.volume.array[lower]
            return stored
        below = self.volume.array[lower].astype(np.float32)
        above: npt.NDArray[np.float32] = self.volume.array[upper].astype(np.float32)
        above -= below
        above *= np.float32(weight)
        above += below
        return above
