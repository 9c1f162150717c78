"""Which patients a checkpoint says to have numbers of lesions of."""

from __future__ import annotations

from types import SimpleNamespace

from mmpluld.engine.numbered_patients import NUMBERED, NumberedPatientsHook


class Dataset(list):
    def get_data_info(self, index):
        return self[index]


def test_patients_with_a_number():
    samples = [
        {"patient": "c", "instances": [{"identity": None}, {"identity": 3}]},
        {"patient": "a", "instances": [{"identity": 0}]},
        {"patient": "b", "instances": [{"identity": None}]},
        {"patient": "d", "instances": []},
    ]
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=Dataset(samples)))
    checkpoint = {"meta": {"epoch": 1}}
    NumberedPatientsHook().before_save_checkpoint(runner, checkpoint)
    assert checkpoint["meta"] == {"epoch": 1, NUMBERED: ["a", "c"]}
