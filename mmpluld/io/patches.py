"""A small volume around a box, cut out of a series and resampled in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmpluld.io.hounsfield import LOWEST_HU, without_padding
from mmpluld.io.slice_sources import SliceSource
from mmpluld.typing import FloatArray, IntArray

__all__ = ["BEYOND", "Beyond", "read_patch", "run_around"]

Beyond = Literal["edge", "air"]
BEYOND = ("edge", "air")


def run_around(indices: IntArray, z: float, first_slice: int, num_slices: int) -> IntArray:
    """The uninterrupted slice numbers around a position, in a part of a series.

    Args:
        indices: Numbers of the slices that exist, ascending.
        z: Position in slice edges.
        first_slice, num_slices: The part.

    Returns:
        Ascending; empty if the part has no slice. Where the position is in a gap, the nearest slice's run.
    """
    inside = indices[(indices >= first_slice) & (indices < first_slice + num_slices)]
    if not len(inside):
        return inside
    runs = np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)
    return min(runs, key=lambda run: max(run[0] - z, z - (run[-1] + 1), 0.0))


def read_patch(
    source: SliceSource,
    slices: IntArray,
    box: Sequence[float],
    size: Sequence[int],
    voxel_mm: Sequence[float],
    beyond: Beyond = "edge",
) -> tuple[npt.NDArray[np.float32], FloatArray]:
    """The patch whose centre is the centre of a box, interpolated linearly along each axis.

    Args:
        source: The series, of known voxel size.
        slices: Numbers of consecutive slices of it; no other is looked at.
        box: (x1, y1, z1, x2, y2, z2) voxel edges, z in slice numbers of the series.
        size: Voxels of the patch along z, y and x.
        voxel_mm: Their size.
        beyond: What lies beyond the slices and the image: their outermost voxels again (``edge``), or -1024 HU
            (``air``).

    Returns:
        The patch (z, y, x) in HU from -1024, and the box in its voxel edges.
    """
    lows, highs = np.array(box[2::-1], np.float64), np.array(box[:2:-1], np.float64)  # z, y, x
    scale = np.array(source.spacing_mm) / np.array(voxel_mm, np.float64)
    middle = np.array(size) / 2
    # The centre of patch voxel i, in edges of the series.
    edges = [
        (low + high) / 2 + (np.arange(count) + 0.5 - half) / factor
        for low, high, count, half, factor in zip(lows, highs, size, middle, scale, strict=True)
    ]
    below, above, weight, outside = _between(edges[0] - slices[0], len(slices))
    rows, columns = (_between(axis, count) for axis, count in zip(edges[1:], source.shape_yx, strict=True))
    planes = {
        int(index): _plane(without_padding(source.read(int(slices[index]))), rows, columns)
        for index in np.union1d(below, above[weight > 0])
    }
    patch = np.stack(
        [
            planes[low] if share == 0 else planes[low] * (1 - share) + planes[high] * share
            for low, high, share in zip(below.tolist(), above.tolist(), weight.astype(np.float32), strict=True)
        ]
    ).astype(np.float32, copy=False)
    if beyond == "air":
        patch[outside] = LOWEST_HU
        patch[:, rows[3]] = LOWEST_HU
        patch[:, :, columns[3]] = LOWEST_HU
    half_side = (highs - lows) / 2 * scale
    return patch, np.concatenate([(middle - half_side)[::-1], (middle + half_side)[::-1]])


def _between(edges: FloatArray, size: int) -> tuple[IntArray, IntArray, FloatArray, npt.NDArray[np.bool_]]:
    """Of positions in edges along one axis: voxels to either side, the weight of the upper, and which lie outside."""
    centres = np.clip(edges - 0.5, 0, size - 1)
    below = np.floor(centres).astype(np.int64)
    return below, np.minimum(below + 1, size - 1), centres - below, (edges < 0) | (edges > size)


def _plane(
    image: npt.NDArray[np.generic],
    rows: tuple[IntArray, IntArray, FloatArray, npt.NDArray[np.bool_]],
    columns: tuple[IntArray, IntArray, FloatArray, npt.NDArray[np.bool_]],
) -> npt.NDArray[np.float32]:
    """A slice at the positions of a patch."""
    down, right = rows[2].astype(np.float32)[:, None], columns[2].astype(np.float32)
    values = image[rows[0]].astype(np.float32) * (1 - down) + image[rows[1]].astype(np.float32) * down
    return np.asarray(values[:, columns[0]] * (1 - right) + values[:, columns[1]] * right, dtype=np.float32)
