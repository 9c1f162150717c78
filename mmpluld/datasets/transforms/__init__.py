"""Transforms of slice stacks; mmdet's own serve for everything that does not depend on CT."""

import mmpluld.registry  # noqa: F401  makes mmdet importable where mmcv has no compiled operators
from mmpluld.datasets.transforms.body import CropBody
from mmpluld.datasets.transforms.geometry import CropAtLesion, ResizeToSpacing, ShiftScaleRotate
from mmpluld.datasets.transforms.ignore import IgnoreBackground
from mmpluld.datasets.transforms.intensity import CurveHU, JitterHU, WindowHU
from mmpluld.datasets.transforms.loading import LoadSliceStack, RepeatKeySlice
from mmpluld.datasets.transforms.organs import LoadOrgans
from mmpluld.datasets.transforms.patches import CropLesionPatches, PackLesionPatches
from mmpluld.datasets.transforms.tags import LoadLesionTags, PackLesionInputs
from mmpluld.datasets.transforms.volume_patches import FlipPatch, LoadPatch, PackPatch

__all__ = [
    "CropAtLesion",
    "CropBody",
    "CropLesionPatches",
    "CurveHU",
    "FlipPatch",
    "IgnoreBackground",
    "JitterHU",
    "LoadLesionTags",
    "LoadOrgans",
    "LoadPatch",
    "LoadSliceStack",
    "PackLesionInputs",
    "PackLesionPatches",
    "PackPatch",
    "RepeatKeySlice",
    "ResizeToSpacing",
    "ShiftScaleRotate",
    "WindowHU",
]
