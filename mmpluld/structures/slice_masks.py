"""The pixels of a lesion on one slice, small enough to be kept for every finding."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmpluld.typing import BoolArray

__all__ = ["SliceMask"]


@dataclass(frozen=True)
class SliceMask:
    """A mask cut out of a slice, eight pixels a byte.

    Attributes:
        origin_xy: Column and row of its first pixel on the slice.
        shape_yx: Its rows and columns.
        packed: Its pixels row by row, as ``numpy.packbits`` makes them.
    """

    origin_xy: tuple[int, int]
    shape_yx: tuple[int, int]
    packed: bytes = field(repr=False)

    @classmethod
    def from_array(cls, inside: BoolArray, origin_xy: tuple[int, int], slice_yx: tuple[int, int]) -> SliceMask | None:
        """Keep what is inside; None if nothing is.

        Args:
            inside: (H, W).
            origin_xy: Column and row of its first pixel; it may lie outside the slice.
            slice_yx: Rows and columns of the slice; what lies beyond is left out.
        """
        rows, columns = np.nonzero(inside)
        rows, columns = rows + origin_xy[1], columns + origin_xy[0]
        kept = (rows >= 0) & (rows < slice_yx[0]) & (columns >= 0) & (columns < slice_yx[1])
        rows, columns = rows[kept], columns[kept]
        if not len(rows):
            return None
        x, y = int(columns.min()), int(rows.min())
        cut = np.zeros((int(rows.max()) - y + 1, int(columns.max()) - x + 1), dtype=bool)
        cut[rows - y, columns - x] = True
        return cls((x, y), (cut.shape[0], cut.shape[1]), np.packbits(cut).tobytes())

    def array(self) -> BoolArray:
        """The pixels, ``shape_yx``."""
        height, width = self.shape_yx
        bits = np.unpackbits(np.frombuffer(self.packed, dtype=np.uint8), count=height * width)
        inside: BoolArray = bits.reshape(height, width).astype(bool)
        return inside

    def on_slice(self, slice_yx: tuple[int, int]) -> BoolArray:
        """The pixels in a slice of this size."""
        (x, y), (height, width) = self.origin_xy, self.shape_yx
        whole = np.zeros(slice_yx, dtype=bool)
        whole[y : y + height, x : x + width] = self.array()
        return whole
