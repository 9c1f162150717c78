"""Operators that exchange information between the slices of a stack, just before a per-slice convolution."""

from mmpluld.models.slice_mixers.a3d import A3DMixer
from mmpluld.models.slice_mixers.shift import AlignShiftMixer, TSMMixer

__all__ = ["A3DMixer", "AlignShiftMixer", "TSMMixer"]
