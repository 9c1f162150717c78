"""Volumes to NIfTI, MetaImage and NRRD; findings to CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.atomic import atomic_path, atomic_write_text, temporary_folder, writing
from mmpluld.errors import InputError
from mmpluld.io.readers import NIFTI_SUFFIXES, volume_suffix
from mmpluld.structures.findings import Finding
from mmpluld.structures.volume import CTVolume
from mmpluld.typing import FloatArray, StrPath

__all__ = ["plain_cell", "write_findings_csv", "write_nifti", "write_volume"]

_COLUMNS = (
    "id",
    "score",
    "x_lps_mm",
    "y_lps_mm",
    "z_lps_mm",
    "size_x_mm",
    "size_y_mm",
    "size_z_mm",
    "i1",
    "j1",
    "k1",
    "i2",
    "j2",
    "k2",
    "key_slice",
    "long_mm",
    "short_mm",
    "tags",
)


def write_volume(volume: CTVolume, path: StrPath) -> None:
    """Write a volume in canonical array order, with the geometry that puts every voxel where it was.

    Args:
        volume: Its type is kept (int16 or float32).
        path: Ends in ``.nii``, ``.nii.gz``, ``.mha``, ``.nrrd``, ``.mhd`` or ``.nhdr`` (these with a ``.raw`` beside
            them).

    Raises:
        InputError: If the suffix is none of these, or the file cannot be written.
    """
    file = Path(path)
    suffix = volume_suffix(file)
    if suffix in NIFTI_SUFFIXES:
        write_nifti(file, volume.array.transpose(), volume.affine_lps)
    else:
        _write_itk(volume, file, suffix)


def write_findings_csv(path: StrPath, findings: Sequence[Finding]) -> None:
    """Write one row a finding: rank, score, centre and size in LPS mm, voxel box and key slice of the file, diameters.

    Sizes are those of the axis-aligned hull, so in an oblique scan they exceed the lesion's own. ``i1`` to ``k2`` are
    voxel edges (far edge exclusive); ``key_slice`` counts from 0 along the file axis the slices are stacked on.
    ``long_mm`` and ``short_mm`` are the RECIST diameters there, empty where the model predicts no mask. ``tags`` are
    names and scores, best first, as "NAME 0.93; NAME 0.71".
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for rank, finding in enumerate(findings, start=1):
        world = np.array(finding.box_world_lps).reshape(2, 3)
        numbers = (*world.mean(axis=0), *(world[1] - world[0]), *finding.box_source)
        recist = finding.recist
        diameters = ("", "") if recist is None else (f"{recist.long_mm:.1f}", f"{recist.short_mm:.1f}")
        lengths = (f"{value:.3f}" for value in numbers)
        tags = plain_cell("; ".join(f"{name} {score:.2f}" for name, score in finding.tags))
        writer.writerow(
            [rank, f"{finding.score:.6f}", *lengths, finding.key_slice_source, *diameters, plain_cell(tags)]
        )
    atomic_write_text(path, text.getvalue())


def write_nifti(path: StrPath, array_ijk: npt.NDArray[Any], affine_lps: FloatArray) -> None:
    """Write an array (i, j, k) as ``.nii`` or ``.nii.gz``, with its voxel-centre index to LPS mm (4, 4).

    The quaternion of the header cannot hold a shear (gantry tilt); then it says that it is unknown, and the affine of
    the header alone counts.

    Raises:
        InputError: If the file cannot be written.
    """
    import nibabel as nib

    affine_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps
    directions = affine_ras[:3, :3] / np.linalg.norm(affine_ras[:3, :3], axis=0)
    sheared = np.abs(directions.T @ directions - np.eye(3)).max() > 1e-4
    image: Any = nib.Nifti1Image(array_ijk, affine_ras)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine_ras, code=1)
    image.set_qform(affine_ras, code=0 if sheared else 1)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def _write_itk(volume: CTVolume, file: Path, suffix: str) -> None:
    """Write into a folder of its own, then move the voxel file, if any, and last the header.

    ITK names the voxel file after the header and inside it, and knows suffixes in small letters only, so a temporary
    name beside the target would not do.
    """
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(volume.array)
    spacing = np.array(volume.spacing_mm[::-1])
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(volume.affine_lps[:3, 3].tolist())
    image.SetDirection((volume.affine_lps[:3, :3] / spacing).ravel().tolist())
    with temporary_folder(file) as folder:
        header = folder / f"{file.name[: -len(suffix)]}{suffix}"
        try:
            sitk.WriteImage(image, str(header))
        except RuntimeError:
            raise InputError(f"{file}: could not be written whole; make room") from None
        parts = sorted(folder.iterdir(), key=lambda part: part == header)
        with writing(file, anything=True):
            if len(parts) > 1:
                file.unlink(missing_ok=True)  # an old header must not be found with new voxels
            for part in parts:
                os.replace(part, file if part == header else file.parent / part.name)


def plain_cell(text: str) -> str:
    """Text for a cell of a table: what a spreadsheet would take for a formula gets an apostrophe in front.

    Numbers stay as they are.
    """
    if not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
