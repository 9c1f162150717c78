"""Volumes stored as plain NumPy files, of which single slices are read without reading the rest.

A file holds one canonical volume: int16 HU, (z, y, x), C order. Slice ``z`` is then one contiguous run of bytes,
and the memory map leaves caching, and sharing between loader processes, to the operating system.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmpluld.atomic import atomic_path
from mmpluld.errors import InputError
from mmpluld.inputs import file_size
from mmpluld.typing import IntArray, StrPath

__all__ = ["NPYSliceSource", "open_array", "write_array"]


class NPYSliceSource:
    """The slices of one stored volume, numbered from ``first_slice``.

    Args:
        path: File that :func:`write_array` wrote.
        spacing_mm: Voxel size (z, y, x) in mm; z may be NaN.
        first_slice: Number of the volume's slice 0.

    Raises:
        InputError: The file is missing, cut off, or does not hold a volume of int16.
    """

    def __init__(self, path: StrPath, spacing_mm: Sequence[float], first_slice: int = 0) -> None:
        self.path = Path(path)
        self.array = open_array(self.path)
        self.first_slice = first_slice
        z, y, x = (float(value) for value in spacing_mm)
        self.spacing_mm = (z, y, x)
        depth, height, width = self.array.shape
        self.shape_yx = (int(height), int(width))
        self.indices: IntArray = np.arange(first_slice, first_slice + depth, dtype=np.int64)

    def read(self, index: int) -> npt.NDArray[np.int16]:
        """Return slice ``index`` as (H, W) int16 HU, in memory of its own.

        Raises:
            InputError: The slice does not exist.
        """
        position = index - self.first_slice
        if not 0 <= position < len(self.array):
            last = self.first_slice + len(self.array) - 1
            raise InputError(f"{self.path}: no slice {index}; there are slices {self.first_slice}-{last}")
        return np.array(self.array[position])


def open_array(path: Path) -> npt.NDArray[np.int16]:
    """Map a stored volume into memory, (z, y, x) int16, read only.

    Raises:
        InputError: The file is missing, cut off, or does not hold a volume of int16.
    """
    size = file_size(path, "a volume of the store; convert the dataset again")
    try:
        # Not np.load, which takes archives and pickles too and advises to allow them.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on headers of old versions
            array = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be read ({reason}); convert the dataset again") from error
    except Exception as error:  # a damaged header is parsed as Python and can raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: not a whole .npy file ({reason}); convert the dataset again") from error
    if array.dtype != np.int16 or array.ndim != 3 or array.size == 0:
        raise InputError(
            f"{path}: holds {array.dtype} of shape {array.shape}; needed is int16 (z, y, x), convert the dataset again"
        )
    held, promised = size - int(array.offset), array.nbytes
    if held != promised:
        raise InputError(
            f"{path}: holds {held} bytes of voxels, but its header promises {promised}; convert the dataset again"
        )
    volume: npt.NDArray[np.int16] = array
    return volume


def write_array(path: StrPath, array: npt.NDArray[np.int16]) -> None:
    """Write an int16 (z, y, x) volume, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
