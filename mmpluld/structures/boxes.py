"""Box conventions of the package, and the few conversions between them.

A box holds the *edges* of the pixels or voxels it covers: voxel ``i`` covers ``[i, i + 1)`` and the far edge
does not belong to the box. 2D boxes are ``(x1, y1, x2, y2)``, 3D boxes ``(x1, y1, z1, x2, y2, z2)``, always
float64 here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError
from mmpluld.typing import FloatArray

__all__ = [
    "as_boxes",
    "boxes_hull_transform",
    "centres_between",
    "inclusive_to_edges",
]


def as_boxes(boxes: Any, dim: int) -> FloatArray:
    """Return ``boxes`` as a checked float64 array.

    Args:
        boxes: Anything NumPy turns into an (N, 2 * dim) array of numbers; an empty list counts as N = 0.
        dim: 2 or 3.

    Returns:
        Array of shape (N, 2 * dim); (0, 2 * dim) when empty.

    Raises:
        InputError: If the shape is wrong, a value is not a finite number, or a box ends before it begins.
    """
    width = 2 * dim
    try:
        array = np.asarray(boxes)
    except ValueError:
        raise InputError(f"boxes are ragged; each box needs exactly {width} numbers") from None
    if array.size == 0:
        return np.zeros((0, width))
    if array.ndim != 2 or array.shape[1] != width:
        raise InputError(f"boxes have shape {array.shape}; allowed is (N, {width}), give one row per box")
    if array.dtype.kind not in "iuf":
        raise InputError(f"boxes are of type {array.dtype}; allowed are numbers, check the rows for text or null")
    array = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise InputError(f"box {bad[0]} is {array[bad[0]].tolist()}; allowed are finite numbers, remove or mend it")
    bad = np.flatnonzero((array[:, dim:] < array[:, :dim]).any(axis=1))
    if bad.size:
        raise InputError(
            f"box {bad[0]} is {array[bad[0]].tolist()}; its far edge lies before its near edge, "
            f"give the near edges first ({'x1, y1, x2, y2' if dim == 2 else 'x1, y1, z1, x2, y2, z2'})"
        )
    return array


def centres_between(low: float, high: float, size: int | None = None) -> range:
    """Return the voxels of an axis whose centres lie between two edges; at least that in the middle.

    Args:
        low, high: The edges; a centre on the lower one counts.
        size: Of the axis, to whose voxels the result is cut, at least one of them; None: not cut.
    """
    first, end = math.ceil(low - 0.5), math.ceil(high - 0.5)
    if first >= end:
        first = math.floor((low + high) / 2)
        end = first + 1
    if size is not None:
        first = min(max(first, 0), size - 1)
        end = min(max(end, first + 1), size)
    return range(first, end)


def inclusive_to_edges(boxes: npt.ArrayLike) -> FloatArray:
    """Turn boxes of first and last pixel *indices* (both inside) into boxes of edges: +1 on the far side.

    Args:
        boxes: Shape (..., 2 * dim), any dim.

    Returns:
        New float64 array of the same shape.
    """
    edges = np.array(boxes, dtype=np.float64)
    edges[..., edges.shape[-1] // 2 :] += 1.0
    return edges


def boxes_hull_transform(boxes: npt.ArrayLike, matrix: npt.ArrayLike) -> FloatArray:
    """Map 3D boxes with an affine matrix and return the axis-aligned hulls of the images.

    The hull of a mapped box has the mapped centre and half sizes ``|M| h``, so no corner needs to be visited.

    Args:
        boxes: Shape (N, 6), coordinates that ``matrix`` takes (edges, for the matrices of this package).
        matrix: Affine matrix (4, 4) acting on column vectors (x, y, z, 1).

    Returns:
        Array (N, 6) with near <= far on each axis.
    """
    source = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
    affine = np.asarray(matrix, dtype=np.float64)
    centre = 0.5 * (source[:, :3] + source[:, 3:]) @ affine[:3, :3].T + affine[:3, 3]
    half = 0.5 * np.abs(source[:, 3:] - source[:, :3]) @ np.abs(affine[:3, :3]).T
    return np.concatenate([centre - half, centre + half], axis=1)
