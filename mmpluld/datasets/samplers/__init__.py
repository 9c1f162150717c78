"""Samplers: which slices an epoch shows, and how often."""

from mmpluld.datasets.samplers.lesion import LesionSampler

__all__ = ["LesionSampler"]
