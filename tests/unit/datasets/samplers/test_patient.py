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


@pytest.mark.parametrize(("patients", "processes"), [(PATIENTS, 2), (["a"] * 10 + ["b"] * 2, 2), (["a", "b"], 4)])
@pytest.mark.parametrize("epoch", range(3))
def test_processes_draw_every_sample_between_them(monkeypatch, patients, processes, epoch):
    shares = []
    for rank in range(processes):
        monkeypatch.setattr("mmpluld.datasets.samplers.patient.get_dist_info", lambda rank=rank: (rank, processes))
        sampler = PatientSampler(Dataset(patients), views=2, seed=1)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler) == 2 * -(-len(patients) // processes)
        assert shares[-1][::2] == shares[-1][1::2]
    drawn = [index for share in shares for index in share]
    assert set(drawn) == set(range(len(patients)))
    once = list(dict.fromkeys(drawn))
    assert len(list(groupby(once, key=patients.__getitem__))) == len(set(patients))


def test_faulty_settings():
    with pytest.raises(InputError, match="views is 0"):
        PatientSampler(Dataset(PATIENTS), views=0)
