"""MetaImage and NRRD volumes: the header is checked first, then ITK reads the voxels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError
from mmpluld.inputs import plain_path
from mmpluld.io.faults import captured_stderr, damaged
from mmpluld.io.hounsfield import Units, to_hu
from mmpluld.io.metaimage import read_metaimage_header
from mmpluld.io.nrrd import read_nrrd_header
from mmpluld.io.promised import check_volume
from mmpluld.io.text_header import TextHeader
from mmpluld.structures.volume import CTVolume
from mmpluld.typing import FloatArray

if TYPE_CHECKING:
    from SimpleITK import Image

__all__ = ["placed_voxels", "read_metaimage", "read_nrrd"]


def read_metaimage(file: Path, labels: bool, units: Units | None = None) -> CTVolume:
    """Read ``.mha`` or ``.mhd``; see :func:`mmpluld.io.read_volume`."""
    return _read(file, labels, units, read_metaimage_header(file), "MetaImageIO")


def read_nrrd(file: Path, labels: bool, units: Units | None = None) -> CTVolume:
    """Read ``.nrrd`` or ``.nhdr``; see :func:`mmpluld.io.read_volume`."""
    return _read(file, labels, units, read_nrrd_header(file), "NrrdImageIO")


def _read(file: Path, labels: bool, units: Units | None, header: TextHeader, reader: str) -> CTVolume:
    if header.components != 1:
        raise InputError(
            f"{file}: voxels have {header.components} components (colour or vectors); needed is one HU value each, "
            "export the CT itself"
        )
    shape = check_volume(file, header.promise.shape)
    raw, affine = _decoded(file, header, reader)
    notes = [*header.notes]
    hu = to_hu(raw.reshape(shape, order="F"), source=str(file), labels=labels, units=units, notes=notes)
    return CTVolume.from_file_array(hu, affine, str(file), notes, lengths=header.lengths)


def _decoded(file: Path, header: TextHeader, name: str) -> tuple[npt.NDArray[Any], FloatArray]:
    """Voxels in file order as ITK decodes them, and their affine; its world is LPS already."""
    import SimpleITK as sitk

    with captured_stderr() as remarks, plain_path(file, header.parts) as path:
        try:
            reader = sitk.ImageFileReader()
            # Named, because ITK chooses by suffix and does not know capital letters.
            reader.SetImageIO(name)
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            shape = tuple(int(size) for size in reader.GetSize())
            one_value = reader.GetNumberOfComponents() == 1
            if not one_value or check_volume(file, shape) != check_volume(file, header.promise.shape):
                raise InputError(damaged(file, "image", "its header says two things about the size"))
            image = reader.Execute()
        except RuntimeError as error:
            raise InputError(damaged(file, "image", (remarks() or str(error)).replace(str(path), file.name))) from None
        if "Uncompress failed" in remarks():  # and yet ITK gives an image
            raise InputError(damaged(file, "image", "its compressed voxels do not decode"))
    raw, affine = placed_voxels(image)
    if raw.dtype.itemsize != header.promise.voxel_bytes:
        raise InputError(damaged(file, "image", "its header says two things about the voxels"))
    return raw, affine


def placed_voxels(image: Image) -> tuple[npt.NDArray[Any], FloatArray]:
    """Voxels of an image of SimpleITK in file order, a copy, and their affine to LPS mm."""
    import SimpleITK as sitk

    dim = image.GetDimension()
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(dim, dim)[:3, :3]
    affine[:3, :3] = direction * np.array(image.GetSpacing())[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return sitk.GetArrayFromImage(image).transpose(), affine
