"""The volumes of an annotation file that a detector examines whole."""

from __future__ import annotations

from mmpluld.errors import InputError, name_some
from mmpluld.structures import AnnotationSet
from mmpluld.typing import StrPath

__all__ = ["load_volumes"]


def load_volumes(path: StrPath) -> AnnotationSet:
    """Read an annotation file whose volumes are to be examined.

    Raises:
        InputError: It cannot be read, holds no volume, or one whose slice interval is unknown.
    """
    annotations = AnnotationSet.load(path)
    if not annotations.volumes:
        raise InputError(f"{path}: no volumes to examine; give a file with volumes")
    unknown = [volume.id for volume in annotations.volumes if not volume.spacing_mm[0] > 0]
    if unknown:
        raise InputError(
            f"{path}: the slice interval of {len(unknown)} volumes is unknown ({name_some(unknown)}); 3D detection "
            "needs it, mend spacing_mm or remove the volumes"
        )
    return annotations
