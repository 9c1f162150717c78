"""Where a phantom's lesions and voxels lie, as the writers of the datasets' layouts need it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.phantom.case import PhantomLesion, PhantomSeries
from mmpluld.typing import BoolArray, FloatArray

__all__ = ["centre_and_sides", "flipped", "full_mask"]


def full_mask(series: PhantomSeries, lesion: PhantomLesion) -> BoolArray:
    """The lesion's mask on the whole volume (z, y, x)."""
    mask = np.zeros(series.volume.shape, np.bool_)
    x1, y1, z1, x2, y2, z2 = lesion.mask_box
    mask[z1:z2, y1:y2, x1:x2] = lesion.mask
    return mask


def centre_and_sides(series: PhantomSeries, lesion: PhantomLesion) -> tuple[list[float], list[float]]:
    """Centre of the mask's box in LPS mm, and its sides (x, y, z) in mm."""
    x1, y1, z1, x2, y2, z2 = lesion.mask_box
    centre = np.array([x1 + x2, y1 + y2, z1 + z2]) / 2 - 0.5
    sides = np.array([x2 - x1, y2 - y1, z2 - z1]) * np.array(series.volume.spacing_mm[::-1])
    return series.volume.points_to_world_lps(centre).tolist(), sides.tolist()


def flipped(
    array: npt.NDArray[Any], affine_lps: FloatArray, axes: tuple[int, ...]
) -> tuple[npt.NDArray[Any], FloatArray]:
    """Reverse array axes (of z, y, x) and keep every voxel at its place in the world."""
    affine = affine_lps.copy()
    for axis in axes:
        column = 2 - axis
        affine[:3, 3] += affine[:3, column] * (array.shape[axis] - 1)
        affine[:3, column] *= -1
    return np.ascontiguousarray(np.flip(array, axes)), affine
