"""NIfTI volumes, compressed or not whatever their name says."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError
from mmpluld.inputs import file_size
from mmpluld.io.faults import damaged, quiet, reading
from mmpluld.io.hounsfield import Units, to_hu
from mmpluld.io.promised import Promise, check_memory, check_ratio, check_volume, size_message
from mmpluld.structures.volume import CTVolume
from mmpluld.typing import FloatArray

__all__ = ["nifti_geometry", "read_nifti"]

_Stream = io.BufferedReader | gzip.GzipFile

_UNITS = {1: "meter", 2: "mm", 3: "micron"}
_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}
_GZIP = b"\x1f\x8b"
_MOST_BEFORE = 1 << 26  # bytes of header and extensions
_BLOCK = 1 << 22
# Above what single precision makes of a quaternion.
_AGREE_MM = 0.1


def read_nifti(file: Path, labels: bool, units: Units | None = None) -> CTVolume:
    """Read ``.nii`` or ``.nii.gz``; see :func:`mmpluld.io.read_volume`."""
    size = file_size(file)
    with reading(file, "NIfTI"), quiet("nibabel.global"), _opened(file) as (stream, compressed):
        header, stored = _header(file, stream)
        dtype = header.get_data_dtype()
        promise = Promise(tuple(int(n) for n in header.get_data_shape()), str(dtype), dtype.itemsize)
        shape = check_volume(file, promise.shape)
        check_memory(file, promise)
        if compressed:
            check_ratio(file, promise, size)
        raw = _voxels(file, stream, header.get_data_offset(), promise).view(dtype).reshape(shape, order="F")
        slope, intercept = header.get_slope_inter()
        affine, lengths, history = nifti_geometry(file, header, stored)
    slope, notes = 1.0 if slope is None else slope, [*history]
    hu = to_hu(raw, slope, intercept or 0.0, source=str(file), labels=labels, units=units, notes=notes)
    return CTVolume.from_file_array(hu, affine, str(file), notes, lengths)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[_Stream, bool]]:
    """The file's content, decompressed where it is compressed, and whether it is."""
    with file.open("rb") as stream:
        compressed = stream.read(2) == _GZIP
        stream.seek(0)
        if not compressed:
            yield stream, False
            return
        with gzip.GzipFile(fileobj=stream) as content:
            yield content, True


def _header(file: Path, stream: _Stream) -> tuple[Any, Any]:
    """The header, and the same as it is stored, without nibabel's repairs."""
    import nibabel as nib

    block = stream.read(348)
    kinds = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
    first = {int.from_bytes(block[:4], order) for order in ("little", "big")}
    kind = next((kinds[size] for size in kinds if size in first), None)
    if kind is None:
        raise InputError(damaged(file, "NIfTI", "its first number is no header's size"))
    if kind is nib.Nifti2Header:
        block += stream.read(540 - 348)
    header: Any = kind(block)
    if header["magic"].item() != header.single_magic:
        raise InputError(damaged(file, "NIfTI", f"magic {header['magic'].item()!r} where voxels follow the header"))
    if not header.single_vox_offset <= header["vox_offset"].item() < _MOST_BEFORE:
        raise InputError(damaged(file, "NIfTI", f"vox_offset is {header['vox_offset'].item():g}"))
    return header, kind(block, check=False)


def _voxels(file: Path, stream: _Stream, start: int, promise: Promise) -> npt.NDArray[np.uint8]:
    """The bytes from ``start`` on, exactly as many as promised.

    Memory is touched only as the file fills it, and what is too much is not read.
    """
    stream.seek(start)
    buffer = np.empty(promise.voxels * promise.voxel_bytes, np.uint8)
    view, held = buffer.data, 0
    while held < len(view):
        count = stream.readinto(view[held : held + _BLOCK])
        if not count:
            raise InputError(size_message(file, promise, f"{held} bytes", len(view)))
        held += count
    if stream.read(1):
        raise InputError(size_message(file, promise, f"more than {held} bytes", held))
    return buffer


def nifti_geometry(file: Path, header: Any, stored: Any) -> tuple[FloatArray, str, list[str]]:
    """Affine to LPS in mm, the field and unit that lengths come from, and what was assumed or decided.

    Args:
        file: For messages.
        header: As nibabel has it.
        stored: The same without nibabel's repairs.

    Raises:
        InputError: If the voxel size is needed, and is none.
    """
    used = "sform" if header["sform_code"] else "qform" if header["qform_code"] else "pixdim"
    pixdim = stored["pixdim"][1:4].astype(np.float64)
    if used != "sform" and not (np.isfinite(pixdim).all() and (pixdim > 0).all()):
        listed = "x".join(f"{value:g}" for value in pixdim)
        raise InputError(f"{file}: voxel size {listed} mm in pixdim; each must be above 0, mend the file's header")
    affine = np.array(header.get_best_affine(), dtype=np.float64)
    unit = _UNITS.get(int(header["xyzt_units"]) & 7, "unknown")
    scale = _MILLIMETRES.get(unit, 1.0)
    notes = []
    if used == "pixdim":
        notes.append("no orientation in the header (sform and qform codes are 0): x assumed to run to the left")
    if scale != 1.0:
        notes.append(f"lengths in {unit} turned into mm")
    elif unit not in _MILLIMETRES:
        notes.append("no unit of lengths in the header (xyzt_units): mm assumed")
    if used == "sform":
        notes += _disagreement(header, affine, pixdim, scale)
    affine[:2] *= -1.0  # RAS to LPS
    affine[:3] *= scale
    return affine, f"{used}, lengths in {unit if unit in _MILLIMETRES else 'an unknown unit'} (xyzt_units)", notes


def _disagreement(header: Any, sform: FloatArray, pixdim: FloatArray, scale: float) -> list[str]:
    """Note where the sform, which is used, contradicts the qform or, without one, the voxel size."""
    spacing = np.linalg.norm(sform[:3, :3], axis=0)
    if not header["qform_code"]:
        if np.allclose(pixdim, spacing, rtol=1e-3, atol=1e-3):
            return []
        sizes = (" x ".join(f"{value * scale:.4g}" for value in triple) for triple in (spacing, pixdim))
        return ["voxel size is {} mm in the sform but {} mm in pixdim: the sform is used".format(*sizes)]
    qform = np.full((4, 4), np.inf)
    with suppress(Exception):  # a quaternion of any numbers
        qform = np.array(header.get_qform(), dtype=np.float64)
    shape = header.get_data_shape()[:3]
    corners = np.array([(i, j, k, 1) for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])], dtype=float)
    with np.errstate(all="ignore"):
        apart = float(np.linalg.norm((corners @ (qform - sform).T)[:, :3], axis=1).max() * scale)
    if apart <= _AGREE_MM:
        return []
    if not np.isfinite(apart):
        return ["the qform holds no directions: the sform is used"]
    return [f"sform and qform disagree by up to {apart:.4g} mm at the volume's corners: the sform is used"]
