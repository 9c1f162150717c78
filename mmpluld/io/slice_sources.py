"""Slice-wise access to a CT series, whatever it is stored as.

A source serves single axial slices in HU and says which slice numbers exist, so that a loader of slice
stacks need not know whether they come from a folder of PNGs or from a volume. Slice numbers are those of the
raw dataset.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError
from mmpluld.inputs import file_size
from mmpluld.io.array_store import NPYSliceSource
from mmpluld.typing import IntArray, StrPath

if TYPE_CHECKING:
    from mmpluld.structures import CTVolume, VolumeRecord

__all__ = ["PNGSliceSource", "SliceSource", "VolumeSliceSource", "open_source", "read_png16", "source_path"]

SliceArray = npt.NDArray[np.int16] | npt.NDArray[np.float32]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGBA"}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, and steps between rows and columns, of the passes of an interlaced PNG."""
_LAST_FILTER = 4
_NO_PIXELS = "damaged PNG, its pixels do not decode; restore the file"
_HIGHEST = 10**9
_MOST_PIXELS = 8192  # along one side
_MOST_BYTES = 4 * _MOST_PIXELS**2
_VOLUME_KINDS = ("nifti", "metaimage", "nrrd", "dicom")


class SliceSource(Protocol):
    """What a loader needs to know of a CT series."""

    @property
    def indices(self) -> IntArray:
        """Numbers of the slices that exist, ascending."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size (z, y, x) in mm; z is NaN where the dataset does not tell it."""

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Height and width of every slice."""

    def read(self, index: int) -> SliceArray:
        """Return slice ``index`` as (H, W) in HU."""


class PNGSliceSource:
    """A folder of 16-bit greyscale PNGs named by slice number (``109.png``); HU = value - 32768 (DeepLesion).

    Args:
        folder: Folder of one series.
        spacing_mm: Voxel size (z, y, x) in mm; z may be NaN.

    Raises:
        InputError: The folder does not exist or holds no PNG named by a number.
    """

    def __init__(self, folder: StrPath, spacing_mm: Sequence[float]) -> None:
        self.folder = Path(folder)
        self.spacing_mm = _as_spacing(spacing_mm)
        self._names = _png_names(self.folder)
        self.indices: IntArray = np.array(sorted(self._names), dtype=np.int64)
        self._shape_yx: tuple[int, int] | None = None

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Height and width, read from the header of the first slice."""
        if self._shape_yx is None:
            path = self.folder / self._names[int(self.indices[0])]
            self._shape_yx = _png16_shape(_bytes_of(path, 33), path)
        return self._shape_yx

    def read(self, index: int) -> npt.NDArray[np.int16]:
        """Return slice ``index`` as (H, W) int16 HU.

        Raises:
            InputError: The slice does not exist, or its file is not an intact 16-bit greyscale PNG.
        """
        if index not in self._names:
            raise InputError(f"{self.folder}: no slice {index}; there are slices {_ranges(self.indices)}")
        return read_png16(self.folder / self._names[index])


class VolumeSliceSource:
    """The slices of a volume in memory, numbered from ``first_slice``.

    Args:
        volume: The scan in canonical orientation.
        first_slice: Number of the volume's slice 0.
    """

    def __init__(self, volume: CTVolume, first_slice: int = 0) -> None:
        self.volume = volume
        self.first_slice = first_slice
        self.spacing_mm = _as_spacing(volume.spacing_mm)
        depth, height, width = volume.array.shape
        self.shape_yx = (int(height), int(width))
        self.indices: IntArray = np.arange(first_slice, first_slice + depth, dtype=np.int64)

    def read(self, index: int) -> SliceArray:
        """Return slice ``index`` as (H, W) in HU, a view of the volume.

        Raises:
            InputError: The slice does not exist.
        """
        position = index - self.first_slice
        if not 0 <= position < len(self.indices):
            raise InputError(f"{self.volume.source}: no slice {index}; there are slices {_ranges(self.indices)}")
        hu: SliceArray = self.volume.array[position]
        return hu


def open_source(record: VolumeRecord, root: StrPath) -> SliceSource:
    """Open the slices that ``record.source`` points to.

    Args:
        record: A volume of an annotation file. ``source`` is ``{"kind": "png16", "path": FOLDER}``,
            ``{"kind": "npy", "path": FILE}`` or
            ``{"kind": "nifti" | "metaimage" | "nrrd" | "dicom", "path": FILE_OR_FOLDER}``; with ``"units": "hu"``
            values are taken for HU that do not look like it.
        root: Folder that relative paths start from.

    Raises:
        InputError: Unknown kind, a path that leaves the root, or nothing readable there.
    """
    place = record.source | {"path": str(source_path(record, root))}
    return open_source_at(place, Path(), record.spacing_mm, record.first_slice)


def source_path(record: VolumeRecord, root: StrPath) -> Path:
    """Where a volume of an annotation file lies: below the root, for such files are data and may come from others.

    Links below the root are followed: whoever owns the machine has made them. They are the way to data elsewhere.

    Raises:
        InputError: The path is absolute or climbs up.
    """
    text = str(record.source.get("path", ""))
    inside = PurePosixPath(text)
    if inside.is_absolute() or PureWindowsPath(text).drive or ".." in inside.parts or not text.isprintable():
        raise InputError(
            f"volume {record.id!r}: its path {text!r} leaves the data root; needed is a path below it, link data from "
            "elsewhere into it (ln -s)"
        )
    return Path(root) / inside


def open_source_at(source: dict[str, Any], root: Path, spacing_mm: Sequence[float], first_slice: int) -> SliceSource:
    """Open ``source`` as :func:`open_source` does, for callers that hold no record."""
    kind, path = source.get("kind"), root / str(source.get("path", ""))
    if kind == "png16":
        return PNGSliceSource(path, spacing_mm)
    if kind == "npy":
        return NPYSliceSource(path, spacing_mm, first_slice)
    if kind in _VOLUME_KINDS:
        from mmpluld.io import read_volume

        return VolumeSliceSource(read_volume(path, units=source.get("units")), first_slice)
    allowed = ", ".join(("png16", "npy", *_VOLUME_KINDS))
    raise InputError(f"{path}: unknown kind of slice source {kind!r}; allowed are {allowed}")


def read_png16(path: StrPath) -> npt.NDArray[np.int16]:
    """Read one 16-bit greyscale PNG as (H, W) int16 HU (value - 32768).

    The check sums of the file and the number of its pixels are verified, because image libraries fill what is missing
    of a damaged PNG with zeros without a word.

    Raises:
        InputError: The file is missing, damaged, cut off, or not 16-bit greyscale.
    """
    import cv2

    path = path if isinstance(path, Path) else Path(path)  # a Path is taken apart anew each time
    data = _bytes_of(path)
    height, width = _png16_shape(data, path)
    rows = _inflated_rows(_pixel_data(data, path), _passes(height, width, data[28]), path)
    # Packed again without compression, for which the library has next to nothing to do, and nothing to complain of.
    plain = data[:33] + _chunk(b"IDAT", zlib.compress(rows, 0)) + _chunk(b"IEND", b"")
    values = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape != (height, width):
        raise InputError(f"{path}: {_NO_PIXELS}")
    # Flipping the top bit of an unsigned value and reading it as signed subtracts 32768 without widening.
    hu: npt.NDArray[np.int16] = np.bitwise_xor(values, np.uint16(0x8000), out=values).view(np.int16)
    return hu


def _bytes_of(path: Path, count: int = -1) -> bytes:
    """Content of a regular file that is no larger than an uncompressed slice may be."""
    try:
        status = path.stat()  # before it is opened: a pipe would block
        if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= _MOST_BYTES:
            with path.open("rb") as stream:
                return stream.read(count)
        reason = "changed while it was read"
    except (OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", error))
    size = file_size(path, "a slice, or another data root")  # says what is wrong with most
    if size > _MOST_BYTES:
        raise InputError(f"{path}: is {size} bytes large; allowed is {_MOST_BYTES}, give one slice a file")
    raise InputError(f"{path}: cannot be read ({reason}); restore the file")


def _png16_shape(data: bytes, path: Path) -> tuple[int, int]:
    """Height and width from the header; InputError unless it announces 16-bit greyscale."""
    if data[:8] != _PNG_SIGNATURE or data[12:16] != b"IHDR" or len(data) < 33:
        raise InputError(f"{path}: not a PNG file, or cut off in its header; restore the file")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if (depth, colour) != (16, 0):
        kind = _PNG_COLOURS.get(colour, "of unknown colour type")
        raise InputError(f"{path}: PNG is {depth}-bit {kind}; allowed is 16-bit greyscale (HU = value - 32768)")
    if not (0 < height <= _MOST_PIXELS and 0 < width <= _MOST_PIXELS):
        raise InputError(
            f"{path}: PNG of {width} x {height} pixels; allowed are {_MOST_PIXELS} x {_MOST_PIXELS} at most, it is "
            "damaged or no CT slice"
        )
    return height, width


def _pixel_data(data: bytes, path: Path) -> bytes:
    """The compressed pixels; InputError unless every chunk is whole, its check sum right and the end marker there."""
    view, position = memoryview(data), len(_PNG_SIGNATURE)
    found: list[memoryview] = []
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise InputError(f"{path}: damaged PNG, wrong check sum at byte {position}; restore the file")
        if kind == b"IDAT":
            found.append(view[position + 8 : end - 4])
        if kind == b"IEND":
            return b"".join(found)
        position = end
    raise InputError(f"{path}: PNG is cut off after {len(data)} bytes; restore the file")


def _passes(height: int, width: int, interlaced: int) -> list[tuple[int, int]]:
    """Rows, and bytes of each, of the images that follow each other in a PNG: one, or the seven of Adam7."""
    steps = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(len(range(y, height, dy)), len(range(x, width, dx))) for y, x, dy, dx in steps]
    return [(rows, 1 + 2 * columns) for rows, columns in sizes if rows and columns]


def _inflated_rows(compressed: bytes, passes: list[tuple[int, int]], path: Path) -> bytes:
    """The rows of a PNG, each with its filter before it; InputError unless they are as many as the header says."""
    size = sum(rows * stride for rows, stride in passes)
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(compressed, size + 1)
    except zlib.error:
        raise InputError(f"{path}: {_NO_PIXELS}") from None
    if len(found) > size:
        raise InputError(f"{path}: damaged PNG, it holds more pixels than its header says; restore the file")
    start, filters = 0, b""
    for rows, stride in passes:
        filters += found[start : start + rows * stride : stride]
        start += rows * stride
    if len(found) < size or not stream.eof or max(filters) > _LAST_FILTER:
        raise InputError(f"{path}: {_NO_PIXELS}")
    return found


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))


def _png_names(folder: Path) -> dict[int, str]:
    """Slice number -> file name of the PNGs in ``folder``."""
    try:
        with os.scandir(folder) as entries:
            stems = sorted(entry.name[:-4] for entry in entries if entry.name.endswith(".png"))
    except OSError as error:
        raise InputError(f"{folder}: no folder of slices here ({error.strerror}); check the data root") from error
    names: dict[int, str] = {}
    for stem in stems:
        if stem.isascii() and stem.isdigit():
            number = int(stem)
            if number in names:
                raise InputError(f"{folder}: {names[number]} and {stem}.png are both slice {number}; remove one")
            if number > _HIGHEST:
                raise InputError(
                    f"{folder}: {stem}.png has no number of a slice; allowed is up to {_HIGHEST}, rename it"
                )
            names[number] = f"{stem}.png"
    if not names:
        raise InputError(f"{folder}: no slices named by number such as 109.png; check the data root")
    return names


def _as_spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    z, y, x = (float(value) for value in spacing_mm)
    return z, y, x


def _ranges(indices: IntArray) -> str:
    """Describe ascending numbers by their runs: ``3-7, 9``."""

    def runs() -> Iterator[str]:
        for run in np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1):
            yield f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}"

    texts = list(runs())
    return ", ".join(texts[:6]) + (", ..." if len(texts) > 6 else "")
