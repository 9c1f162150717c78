"""Datasets of CT slices with lesions: the dataset class, its transforms and samplers, and the converters."""

from mmpluld.datasets import samplers, transforms
from mmpluld.datasets.ct_lesion import CTLesionDataset
from mmpluld.datasets.named_concat import NamedConcatDataset
from mmpluld.datasets.workers import seed_worker

__all__ = ["CTLesionDataset", "NamedConcatDataset", "samplers", "seed_worker", "transforms"]
