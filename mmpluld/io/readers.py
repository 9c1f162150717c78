"""``read_volume``: any supported CT file or DICOM folder to a :class:`CTVolume`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.errors import InputError, did_you_mean
from mmpluld.io.dicom import read_dicom_folder
from mmpluld.io.faults import captured_stderr, damaged, quiet, reading
from mmpluld.io.hounsfield import to_hu
from mmpluld.structures.volume import CTVolume
from mmpluld.typing import FloatArray, StrPath

__all__ = ["NIFTI_SUFFIXES", "VOLUME_SUFFIXES", "read_volume", "volume_suffix"]

NIFTI_SUFFIXES = (".nii.gz", ".nii")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, ".mha", ".mhd", ".nrrd")

_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}


def read_volume(path: StrPath, series: str | None = None, *, labels: bool = False) -> CTVolume:
    """Read a CT scan into canonical orientation.

    Args:
        path: A ``.nii``, ``.nii.gz``, ``.mha``, ``.mhd`` or ``.nrrd`` file, or a folder of DICOM files (searched with
            its subfolders; the files need no suffix).
        series: SeriesInstanceUID to read if the folder holds several CT series; ``UID:Attribute=value`` for a part of
            one, see :mod:`mmpluld.io.dicom_series`.
        labels: True to read a label mask, whose values are not HU.

    Returns:
        The volume, int16 where the values are whole numbers that fit, else float32. Obliqueness, skipped files and
        assumptions about the header are noted in its ``history``.

    Raises:
        InputError: If the file is missing, damaged, of another kind, not one 3D volume of finite HU, or its geometry
            cannot place it in space.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(
            f"{file}: no such file or folder; give a CT scan ({', '.join(VOLUME_SUFFIXES)} or DICOM folder)"
        )
    if file.is_dir():
        volume = read_dicom_folder(file, series)
    elif series is not None:
        raise InputError(f"{file}: is one file, so series '{series}' cannot be chosen; leave the series out")
    elif volume_suffix(file) in NIFTI_SUFFIXES:
        volume = _read_nifti(file, labels)
    else:
        volume = _read_itk(file, labels)
    return _with_obliqueness(volume)


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
    hint = did_you_mean(path.suffix.lower(), VOLUME_SUFFIXES, "for DICOM give the folder")
    raise InputError(f"{path}: unknown file type '{path.suffix}'; allowed are {allowed}{hint}")


def _read_nifti(file: Path, labels: bool) -> CTVolume:
    import nibabel as nib

    history = []
    with reading(file, "NIfTI"), quiet("nibabel.global"):
        # Not memory-mapped: the volume must outlive its file, and every voxel is read anyway.
        image: Any = nib.load(file, mmap=False)
        shape = image.shape
        if _squeezed(shape) is None:
            raise InputError(_not_3d(file, shape))
        raw = np.asarray(image.dataobj.get_unscaled()).reshape(_squeezed(shape), order="F")
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        affine = np.array(image.affine, dtype=np.float64)
        unit = image.header.get_xyzt_units()[0]
        codes = (int(image.header["sform_code"]), int(image.header["qform_code"]))
    if codes == (0, 0):
        history.append("no orientation in the header (sform and qform codes are 0): x assumed to run to the left")
    scale = _MILLIMETRES.get(unit, 1.0)
    if scale != 1.0:
        history.append(f"lengths in {unit} turned into mm")
    affine[:2] *= -1.0  # RAS to LPS
    affine[:3] *= scale
    hu = to_hu(raw, slope, intercept, source=str(file), labels=labels)
    return CTVolume.from_file_array(hu, affine, str(file), history)


def _read_itk(file: Path, labels: bool) -> CTVolume:
    """Read MetaImage and NRRD, whose world is LPS already."""
    import SimpleITK as sitk

    with captured_stderr() as remarks:
        try:
            reader = sitk.ImageFileReader()
            # Named, because ITK chooses by suffix and does not know capital letters.
            reader.SetImageIO("NrrdImageIO" if volume_suffix(file) == ".nrrd" else "MetaImageIO")
            reader.SetFileName(str(file))
            reader.ReadImageInformation()
            shape = tuple(int(n) for n in reader.GetSize())
            components = reader.GetNumberOfComponents()
            if _squeezed(shape) is None:
                raise InputError(_not_3d(file, shape))
            if components != 1:
                raise InputError(
                    f"{file}: voxels have {components} components (colour or vectors); needed is one HU value each, "
                    "export the CT itself"
                )
            image = reader.Execute()
        except RuntimeError as error:
            raise InputError(damaged(file, "image", remarks() or error)) from None
    dim = len(shape)
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(dim, dim)[:3, :3]
    affine[:3, :3] = direction * np.array(image.GetSpacing())[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    raw = sitk.GetArrayFromImage(image).transpose().reshape(_squeezed(shape), order="F")
    del image
    return CTVolume.from_file_array(to_hu(raw, source=str(file), labels=labels), affine, str(file))


def _squeezed(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Return the 3D shape if all further axes are of length one, else None."""
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or min(shape) < 1:
        return None
    return (int(shape[0]), int(shape[1]), int(shape[2]))


def _not_3d(file: Path, shape: tuple[int, ...]) -> str:
    size = " x ".join(map(str, shape))
    return f"{file}: image size is {size}; needed is one 3D volume (a fourth axis of 1 is fine), split the file"


def _with_obliqueness(volume: CTVolume) -> CTVolume:
    """Note how far the scan's axes are off the patient's, if they are."""
    angle = _largest_angle(volume.affine_lps)
    if angle < 0.1:
        return volume
    note = f"oblique: the scan's axes are up to {angle:.1f} degrees off the patient's; boxes follow the scan's axes"
    return replace(volume, history=(*volume.history, note))


def _largest_angle(affine: FloatArray) -> float:
    cosines = np.abs(np.diag(affine[:3, :3])) / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines.min(), 0.0, 1.0))))
