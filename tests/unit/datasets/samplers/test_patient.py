"""Sampling by patient: who follows whom."""

from __future__ import annotations

from itertools import groupby

import pytest

from mmpluld.datasets.samplers import PatientSampler
from mmpluld.errors import InputError

PATIENTS = ["a", "b", "a", "c", "c", "c"]


class Dataset(list):
    def get_data_info(self, index):
        return {"patient": self[index]}


def test_patients_stay_together_and_views_follow_each_other():
    sampler = PatientSampler(Dataset(PATIENTS), views=2, seed=3)
    drawn = list(sampler)
    assert len(sampler) == len(drawn) == 12
    assert drawn[::2] == drawn[1::2]
    assert sorted(drawn[::2]) == list(range(6))
    assert len(list(groupby(drawn, key=PATIENTS.__getitem__))) == 3


def test_epochs_differ_and_come_again():
    sampler = PatientSampler(Dataset(PATIENTS), seed=0)
    epochs = []
    for epoch in range(8):
        sampler.set_epoch(epoch)
        epochs.append(tuple(sampler))
    assert len(set(epochs)) > 4
    sampler.set_epoch(2)
    assert tuple(sampler) == epochs[2]


def test_processes_share_the_patients_out(monkeypatch):
    shares = []
    for rank in range(2):
        monkeypatch.setattr("mmpluld.datasets.samplers.patient.get_dist_info", lambda rank=rank: (rank, 2))
        shares.append(list(PatientSampler(Dataset(PATIENTS), seed=1)))
    assert [len(share) for share in shares] == [3, 3]
    patients = [{PATIENTS[index] for index in share} for share in shares]
    assert not patients[0] & patients[1]


def test_faulty_settings(monkeypatch):
    with pytest.raises(InputError, match="views is 0"):
        PatientSampler(Dataset(PATIENTS), views=0)
    monkeypatch.setattr("mmpluld.datasets.samplers.patient.get_dist_info", lambda: (0, 4))
    with pytest.raises(InputError, match="3 patients for 4 processes"):
        PatientSampler(Dataset(PATIENTS), seed=0)
