"""Transforms of slice stacks; mmdet's own serve for everything that does not depend on CT."""

from mmpluld.datasets.transforms.geometry import ResizeToSpacing, ShiftScaleRotate
from mmpluld.datasets.transforms.intensity import WindowHU
from mmpluld.datasets.transforms.loading import LoadSliceStack

__all__ = ["LoadSliceStack", "ResizeToSpacing", "ShiftScaleRotate", "WindowHU"]
