"""The volume store: canonical int16 copies of raw scans under ``ROOT/volumes``, for reading single slices.

Each volume is ``<id>.npy`` (see :mod:`mmpluld.io.array_store`; 2 bytes a voxel) with ``<id>.json`` beside it: the
geometry and a fingerprint of the raw files and of the correction applied. The ``.json`` is written last, so a volume
that has one is complete, and a conversion that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_write_text, mark_unfinished
from mmpluld.datasets.converters.overrides import Override, apply_override
from mmpluld.errors import InputError
from mmpluld.io.array_store import open_array, write_array
from mmpluld.io.dicom_files import files_below
from mmpluld.io.hounsfield import Units
from mmpluld.io.readers import volume_parts
from mmpluld.structures import CTVolume, VolumeRecord
from mmpluld.structures.splits import annotation_paths
from mmpluld.structures.text_files import read_json

__all__ = ["FOLDER", "StoredVolume", "raw_files", "store_volume"]

FOLDER = "volumes"
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class StoredVolume:
    """One volume of the store.

    Attributes:
        volume: Its array is a read-only memory map.
        remarks: What was noticed when the raw files were read.
    """

    volume: CTVolume
    remarks: tuple[str, ...]

    def record(self, name: str, patient: str, study: str, series: str) -> VolumeRecord:
        """The volume as an annotation file lists it."""
        depth, height, width = self.volume.shape
        z, y, x = (round(value, 9) for value in self.volume.spacing_mm)
        affine = tuple(map(tuple, self.volume.affine_lps.tolist()))
        return VolumeRecord(
            name, patient, study, series, {"kind": "npy", "path": f"{FOLDER}/{name}.npy"}, 0, depth, (height, width),
            (z, y, x), affine_lps=affine,
        )  # fmt: skip


def raw_files(scan: Path) -> list[Path]:
    """The files that a scan is read from, as far as they are there: all of a folder, a header and those it names."""
    files = files_below(scan) if scan.is_dir() else volume_parts(scan)
    return [file for file in files if file.is_file()]


def store_volume(
    root: Path,
    name: str,
    files: Iterable[Path],
    read: Callable[[], CTVolume],
    override: Override | None,
    overwrite: bool,
    units: Units | None = None,
) -> StoredVolume:
    """Return a volume of the store, written if it is not there yet.

    Args:
        root: Folder of the dataset.
        name: Id of the volume.
        files: What it comes from (:func:`raw_files`); a change of name, size or time of one makes the copy stale.
        read: Reads the raw scan.
        override: Correction to apply.
        overwrite: Replace a stale copy.
        units: ``hu`` where ``read`` takes values for HU that do not look like it.

    Raises:
        InputError: The raw scan cannot be read, or the copy is stale and may not be replaced.
    """
    array_path, meta_path = root / FOLDER / f"{name}.npy", root / FOLDER / f"{name}.json"
    override = override or Override()
    fingerprint = _fingerprint(files, override, units)
    if meta_path.exists():
        meta = _read_meta(meta_path)
        current = meta.get("fingerprint") == fingerprint
        # Copies without units are of a time when values were not tested: they are made again.
        if current and "units" in meta and array_path.exists():
            return _open(array_path, meta)
        if not (current or overwrite):
            raise InputError(
                f"{array_path}: made from other raw files, in other units or with another correction than asked for "
                "now; remove it, or allow overwriting (--overwrite)"
            )
        # Until the annotations are written anew, those that are there speak of other voxels.
        mark_unfinished(path for path in annotation_paths(root).values() if path.exists())
        meta_path.unlink()
    final, remarks = _corrected(read(), override)
    write_array(array_path, final.array)
    meta = {
        "fingerprint": fingerprint,
        "units": units or "tested",
        "affine_lps": final.affine_lps.tolist(),
        "source": final.source,
        "source_shape": list(final.source_shape),
        "source_axes": list(final.source_axes),
        "remarks": remarks,
    }
    atomic_write_text(meta_path, json.dumps(meta) + "\n")
    return _open(array_path, meta)


def _corrected(volume: CTVolume, override: Override) -> tuple[CTVolume, list[str]]:
    """The volume in int16 and as the override has it, and what is to be said of it."""
    array, remarks = _as_int16(volume)
    remarks += [note for note in volume.history if not note.startswith("DICOM series ")]
    if override.spacing_mm is not None:
        header = "x".join(f"{value:g}" for value in volume.spacing_mm)
        remarks.append(f"spacing overridden (header: {header} mm)")
    if override.flip:
        remarks.append(f"mirrored along {override.flip}")
    plain = CTVolume(array, volume.affine_lps, volume.source_shape, volume.source_axes, volume.source)
    return apply_override(plain, override), remarks


def _open(path: Path, meta: dict[str, Any]) -> StoredVolume:
    shape, axes = tuple(meta["source_shape"]), tuple(meta["source_axes"])
    volume = CTVolume(open_array(path), np.array(meta["affine_lps"]), shape, axes, meta["source"])
    return StoredVolume(volume, tuple(meta["remarks"]))


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = read_json(path, "the volume's geometry")
    except InputError:
        meta = None
    return meta if isinstance(meta, dict) else {}


def _fingerprint(files: Iterable[Path], override: Override, units: Units | None) -> str:
    # What changes the stored voxels or their geometry; written out, so that copies made before are known.
    kept = (override.spacing_mm, override.flip, override.flip_mask, override.exclude)
    text = "Override(spacing_mm={!r}, flip={!r}, flip_mask={!r}, exclude={!r})".format(*kept)
    if override.spacing_mm is not None:  # copies made before lie elsewhere in the world
        text += " about the file's first voxel"
    digest = hashlib.sha256((text + (units or "")).encode())
    for file in sorted(files):
        status = file.stat()
        digest.update(f"{file.name}/{status.st_size}/{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _as_int16(volume: CTVolume) -> tuple[Any, list[str]]:
    """HU as int16; rounding and clipping are noted."""
    if volume.array.dtype == np.int16:
        return volume.array, []
    low, high = float(volume.array.min()), float(volume.array.max())
    remarks = ["HU with fractions rounded to whole numbers"]
    if low < _INT16.min or high > _INT16.max:
        remarks.append("HU beyond int16 clipped")
    array = np.empty(volume.array.shape, np.int16)
    for index, plane in enumerate(volume.array):  # by slice: a second float copy of a whole scan would be large
        array[index] = np.clip(np.rint(plane), _INT16.min, _INT16.max)
    return array, remarks
