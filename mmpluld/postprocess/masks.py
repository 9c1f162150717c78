"""From the small masks that a mask head predicts to pixels of the slice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mmpluld.typing import FloatArray

__all__ = ["paste_mask"]


def paste_mask(probs: npt.ArrayLike, box: npt.ArrayLike) -> tuple[FloatArray, tuple[int, int]]:
    """Spread a mask over the pixels of its box by bilinear interpolation.

    The value of a pixel is that at its centre; outside the box it fades to 0 within half a mask cell, as in mmdet.

    Args:
        probs: (h, w) probabilities, the cells of a grid laid over the box.
        box: (x1, y1, x2, y2) pixel edges, with positive sides.

    Returns:
        Probabilities (H, W) of the pixels that the box touches and of one more on each side, and the x and y of the
        first of them; pixels outside the slice may be among them.
    """
    values = np.asarray(probs, np.float64)
    x1, y1, x2, y2 = np.asarray(box, np.float64).tolist()
    rows, first_row = _weights(y1, y2, values.shape[0])
    columns, first_column = _weights(x1, x2, values.shape[1])
    return rows @ values @ columns.T, (first_column, first_row)


def _weights(low: float, high: float, cells: int) -> tuple[FloatArray, int]:
    """Interpolation weights (pixels, cells) along one axis, and the number of the first pixel."""
    first, end = int(np.floor(low)) - 1, int(np.ceil(high)) + 1
    centres = (np.arange(first, end) + 0.5 - low) / (high - low) * cells - 0.5
    weights: FloatArray = np.maximum(0.0, 1.0 - np.abs(centres[:, None] - np.arange(cells)))
    return weights, first
