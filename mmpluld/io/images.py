"""Images that a caller has in memory, of nibabel or SimpleITK, as volumes: the same that their files give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpluld.errors import InputError
from mmpluld.io.faults import reading
from mmpluld.io.hounsfield import Units, to_hu
from mmpluld.io.itk import placed_voxels
from mmpluld.io.nifti import nifti_geometry
from mmpluld.io.promised import Promise, check_memory, check_volume
from mmpluld.io.readers import with_obliqueness
from mmpluld.structures.volume import CTVolume

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image
    from SimpleITK import Image

__all__ = ["volume_from_nibabel", "volume_from_sitk"]


def volume_from_nibabel(image: Nifti1Image, *, source: str | None = None, units: Units | None = None) -> CTVolume:
    """Turn an image of nibabel into a volume; the image stays as it is.

    Args:
        image: NIfTI-1 or NIfTI-2, from a file or made of an array in HU and an affine (RAS, mm unless its header says
            another unit).
        source: Name for messages and reports; None takes that of the image's file, if it has one.
        units: ``hu`` to take values for HU that do not look like it.

    Raises:
        InputError: If it is another kind of image, not one 3D volume of finite HU, or its geometry cannot place it in
            space.
    """
    import nibabel as nib

    if not isinstance(image, nib.nifti1.Nifti1Pair):
        raise InputError(f"the image is a {type(image).__name__}; needed is one of nibabel for NIfTI, convert it")
    file = Path(source or image.get_filename() or "memory")
    shape = check_volume(file, image.shape)
    check_memory(file, Promise(image.shape, str(image.get_data_dtype()), image.get_data_dtype().itemsize))
    with reading(file, "NIfTI"):
        header = image.header.copy()
        if image.affine is not None and not np.allclose(image.affine, header.get_best_affine()):
            header.set_sform(image.affine, "aligned")  # as nibabel does when it writes the image
            header.set_qform(image.affine, "unknown")
        affine, lengths, notes = nifti_geometry(file, header, header)
        held: Any = image.dataobj
        slope, intercept = (held.slope, held.inter) if nib.is_proxy(held) else (1.0, 0.0)
        # A copy, as HU are made in place.
        raw = np.array(held.get_unscaled() if nib.is_proxy(held) else held, order="F").reshape(shape, order="F")
    hu = to_hu(raw, slope, intercept, source=str(file), units=units, notes=notes)
    return with_obliqueness(CTVolume.from_file_array(hu, affine, str(file), notes, lengths))


def volume_from_sitk(image: Image, *, source: str = "memory", units: Units | None = None) -> CTVolume:
    """Turn an image of SimpleITK into a volume; the image stays as it is.

    Args:
        image: One HU value a voxel; lengths are in mm, as always in ITK.
        source: Name for messages and reports.
        units: ``hu`` to take values for HU that do not look like it.

    Raises:
        InputError: As for :func:`volume_from_nibabel`.
    """
    import SimpleITK as sitk

    if not isinstance(image, sitk.Image):
        raise InputError(f"the image is a {type(image).__name__}; needed is one of SimpleITK")
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"{source}: voxels have {image.GetNumberOfComponentsPerPixel()} components (colour or vectors); needed is "
            "one HU value each"
        )
    shape = check_volume(Path(source), image.GetSize())
    raw, affine = placed_voxels(image)
    notes: list[str] = []
    hu = to_hu(raw.reshape(shape, order="F"), source=source, units=units, notes=notes)
    return with_obliqueness(CTVolume.from_file_array(hu, affine, source, notes, "the image, in mm"))
