"""Samplers: which slices an epoch shows, and how often."""

from mmpluld.datasets.samplers.lesion import LesionSampler
from mmpluld.datasets.samplers.patient import PatientSampler

__all__ = ["LesionSampler", "PatientSampler"]
