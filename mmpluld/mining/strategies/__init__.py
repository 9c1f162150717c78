"""Functions from annotations, proposals and options to annotations; what is mined says where it comes from."""

from __future__ import annotations

from mmpluld.mining.strategies.cross_slice import adjacent_slices, propagate_across_slices
from mmpluld.mining.strategies.distillation import distil
from mmpluld.mining.strategies.intra_patient import match_within_patients
from mmpluld.mining.strategies.uncertain import cross_dataset, unlabeled_slices, without_found

__all__ = [
    "adjacent_slices",
    "cross_dataset",
    "distil",
    "match_within_patients",
    "propagate_across_slices",
    "unlabeled_slices",
    "without_found",
]
