"""Patients dealt to folds, so that a detector can propose on patients that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mmpluld.errors import InputError

__all__ = ["fold_of_patients"]


def fold_of_patients(patients: Iterable[str], k: int, K: int, seed: int = 0) -> set[str]:
    """The patients of fold ``k`` of ``K``, from 0; the folds part the patients, by seed alone.

    Raises:
        InputError: There is no such fold, or it has no patient.
    """
    if K < 2 or not 0 <= k < K:
        raise InputError(f"fold is {k}/{K}; allowed are 0/K to K-1/K with K from 2")
    names = sorted(set(patients))
    if len(names) < K:
        raise InputError(f"fold is {k}/{K}, but there are {len(names)} patients; take at most as many folds")
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[index] for index in order[k::K]}
