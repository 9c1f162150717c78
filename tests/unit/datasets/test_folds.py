"""Patients dealt to folds."""

import pytest

from mmpluld.datasets.folds import fold_of_patients, volumes_of_fold
from mmpluld.errors import InputError
from mmpluld.structures import VolumeRecord

PATIENTS = [f"{number:02d}" for number in range(10)]


def test_folds_part_the_patients():
    folds = [fold_of_patients(PATIENTS, k, 3) for k in range(3)]
    assert [len(fold) for fold in folds] == [4, 3, 3]
    assert set().union(*folds) == set(PATIENTS)


def test_order_and_repetition_do_not_matter_but_the_seed_does():
    fold = fold_of_patients(PATIENTS, 0, 2)
    assert fold == fold_of_patients(PATIENTS[::-1] + PATIENTS, 0, 2)
    assert len({frozenset(fold_of_patients(PATIENTS, 0, 2, seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(("k", "total"), [(2, 2), (-1, 2), (0, 1), (0, 11)])
def test_folds_that_there_are_not(k, total):
    with pytest.raises(InputError, match=f"fold is {k}/{total}"):
        fold_of_patients(PATIENTS, k, total)


def test_volumes_without_a_named_patient_are_patients_of_their_own():
    source = {"kind": "npy", "path": "none.npy"}
    volumes = [VolumeRecord(name, "", "", "", source, 0, 9, (8, 8), (1.0, 1.0, 1.0)) for name in "abcde"]
    folds = [{volume.id for volume in volumes_of_fold(volumes, (k, 2, 0))} for k in (0, 1)]
    assert sorted(map(len, folds)) == [2, 3] and not folds[0] & folds[1]
