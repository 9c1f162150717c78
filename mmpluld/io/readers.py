"""``read_volume``: any supported CT file or DICOM folder to a :class:`CTVolume`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmpluld.errors import InputError, counted, did_you_mean, name_some
from mmpluld.inputs import is_folder
from mmpluld.io.content import content_kind
from mmpluld.io.dicom import read_dicom_folder
from mmpluld.io.hounsfield import Units
from mmpluld.io.itk import read_metaimage, read_nrrd
from mmpluld.io.metaimage import metaimage_parts
from mmpluld.io.nifti import read_nifti
from mmpluld.io.nrrd import nrrd_parts
from mmpluld.structures.volume import CTVolume
from mmpluld.typing import FloatArray, StrPath

__all__ = [
    "NIFTI_SUFFIXES",
    "VOLUME_SUFFIXES",
    "odd_slices",
    "read_volume",
    "volume_parts",
    "volume_suffix",
    "with_obliqueness",
]

NIFTI_SUFFIXES = (".nii.gz", ".nii")
_PACKED = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_READERS = {
    **dict.fromkeys(NIFTI_SUFFIXES, read_nifti),
    ".mha": read_metaimage,
    ".mhd": read_metaimage,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
}
VOLUME_SUFFIXES = tuple(_READERS)


def read_volume(
    path: StrPath,
    series: str | None = None,
    *,
    labels: bool = False,
    units: Units | None = None,
    files: Sequence[Path] | None = None,
) -> CTVolume:
    """Read a CT scan into canonical orientation.

    Args:
        path: A ``.nii``, ``.nii.gz``, ``.mha``, ``.mhd``, ``.nrrd`` or ``.nhdr`` file, or a folder of DICOM files
            (searched with its subfolders; the files need no suffix).
        series: SeriesInstanceUID to read if the folder holds several CT series; ``UID:Attribute=value`` for a part of
            one, see :mod:`mmpluld.io.dicom_series`.
        labels: True to read a label mask, whose values are not HU.
        units: ``hu`` to take values for HU that do not look like it.
        files: Those files of a DICOM folder that are looked at; None looks at all.

    Returns:
        The volume, int16 where the values are whole numbers that fit, else float32. Obliqueness, skipped files and
        assumptions about the header are noted in its ``history``.

    Raises:
        InputError: If the file is missing, damaged, of another kind, not one 3D volume of finite HU, or its geometry
            cannot place it in space.
    """
    file = Path(path)
    if is_folder(file, f"a CT scan ({', '.join(VOLUME_SUFFIXES)} or DICOM folder)"):
        volume = read_dicom_folder(file, series, units, files)
    elif series is not None:
        raise InputError(f"{file}: is one file, so series '{series}' cannot be chosen; leave the series out")
    else:
        volume = _read_file(file, labels, units)
    return with_obliqueness(volume)


def _read_file(file: Path, labels: bool, units: Units | None) -> CTVolume:
    """Read by the ending; of what then fails, the first bytes tell whether the ending is wrong."""
    suffix = volume_suffix(file)
    try:
        return _READERS[suffix](file, labels, units)
    except InputError:
        kind, endings = content_kind(file) or ("", (suffix,))
        if suffix in endings:
            raise
        step = f"rename it to end in {endings[0]}" if endings else "give the folder of its series"
        raise InputError(f"{file}: is a {kind} file by its first bytes, not {suffix}; {step}") from None


def volume_suffix(path: Path) -> str:
    """Return which of ``VOLUME_SUFFIXES`` the file name ends in, whatever its case.

    Raises:
        InputError: If it ends in none of them.
    """
    name = path.name.lower()
    for suffix in VOLUME_SUFFIXES:
        if name.endswith(suffix):
            return suffix
    allowed = ", ".join(VOLUME_SUFFIXES)
    if name.endswith(_PACKED):
        raise InputError(f"{path}: is an archive; unpack it and give the folder, or the volume file in it")
    hint = did_you_mean(path.suffix.lower(), VOLUME_SUFFIXES, "for DICOM give the folder")
    raise InputError(f"{path}: unknown file type '{path.suffix}'; allowed are {allowed}{hint}")


def volume_parts(file: Path) -> list[Path]:
    """A volume's file and those that its header names; the file alone where it cannot be read."""
    suffix = volume_suffix(file)
    named = {".mhd": metaimage_parts, ".mha": metaimage_parts, ".nhdr": nrrd_parts, ".nrrd": nrrd_parts}.get(suffix)
    try:
        return [file, *(file.parent / name for name in (named(file) if named else []))]
    except (InputError, OSError):
        return [file]


def with_obliqueness(volume: CTVolume) -> CTVolume:
    """Note how far the scan's axes are off the patient's, if they are."""
    angle = _largest_angle(volume.affine_lps)
    if angle < 0.1:
        return volume
    note = f"oblique: the scan's axes are up to {angle:.1f} degrees off the patient's; boxes follow the scan's axes"
    return replace(volume, history=(*volume.history, note))


def odd_slices(volume: CTVolume) -> list[str]:
    """Notes on slices of a scan that have one value, or equal their neighbour: they were lost, made up, or padded."""
    array = volume.array
    blank = [z for z, plane in enumerate(array) if plane.min() == plane.max()]
    alike = [
        z + 1
        for z in range(len(array) - 1)
        if z not in blank
        and np.array_equal(array[z, ::16, ::16], array[z + 1, ::16, ::16])
        and np.array_equal(array[z], array[z + 1])
    ]
    return [
        f"{counted(len(found), 'slice')} of {len(array)} {what} ({_places(volume, found)}): lost, made up, or padding?"
        for found, what in ((blank, "with one value throughout"), (alike, "equal to the slice before"))
        if found
    ]


def _places(volume: CTVolume, slices: Sequence[int]) -> str:
    """Where slices are in the file; names of DICOM files, which may tell of a patient, stay out of histories."""
    places = [volume.slice_to_source(z) for z in slices]
    return name_some([f"{'ijk'[axis]} {index}" for axis, index in places], 4)


def _largest_angle(affine: FloatArray) -> float:
    cosines = np.abs(np.diag(affine[:3, :3])) / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines.min(), 0.0, 1.0))))
