"""Patients dealt to folds, so that a detector can propose on patients that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mmpluld.errors import InputError, counted, name_some
from mmpluld.io.proposals import ProposalStore
from mmpluld.structures import VolumeRecord
from mmpluld.typing import StrPath

__all__ = ["fold_of_patients", "proposed_volumes", "volumes_of_fold"]


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


def volumes_of_fold(volumes: Sequence[VolumeRecord], fold: tuple[int, int, int] | None) -> list[VolumeRecord]:
    """The volumes of the patients of fold ``(k, K, seed)``; None: all.

    Raises:
        InputError: As :func:`fold_of_patients`.
    """
    if fold is None:
        return list(volumes)
    patients = fold_of_patients((volume.person for volume in volumes), *fold)
    return [volume for volume in volumes if volume.person in patients]


def proposed_volumes(store: ProposalStore, volumes: Sequence[VolumeRecord], annotations: StrPath) -> list[VolumeRecord]:
    """The volumes that a proposal store is of, those of its fold, all of which must be there.

    Raises:
        InputError: Some are not: the command that proposed was cut off.
    """
    wanted = volumes_of_fold(volumes, store.header.fold)
    if missing := sorted(store.missing(volume.id for volume in wanted)):
        raise InputError(
            f"{store.folder}: no proposals of {counted(len(missing), 'volume')} of {annotations} "
            f"({name_some(missing)}); run `mmpluld propose` again, which makes what is missing"
        )
    return wanted
