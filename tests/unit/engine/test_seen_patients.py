"""What a checkpoint says of the patients that its training has seen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mmpluld.datasets import CTLesionDataset
from mmpluld.datasets.folds import fold_of_patients
from mmpluld.engine.seen_patients import (
    NUMBERED,
    TRAINED,
    NumberedPatientsHook,
    SeenPatientsHook,
    patients_trained_on,
)
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord


@pytest.fixture
def dataset(tmp_path: Path):
    """``dataset(named="made", **options)``: key slices of four patients, under a name in the annotation file."""
    volumes = [
        VolumeRecord(name, name, "1", "1", {"kind": "png16", "path": name}, 1, 5, (32, 32), (2.0, 1.0, 1.0))
        for name in "abcd"
    ]
    lesions = [
        LesionRecord(number, volume.id, (4.0, 4, 2, 12, 12, 3), key_slice=2) for number, volume in enumerate(volumes)
    ]

    def make(named: str = "made", **options) -> CTLesionDataset:
        AnnotationSet({"name": named, "label_scope": "all"}, volumes, lesions).save(tmp_path / f"{named}.json")
        return CTLesionDataset(f"{named}.json", str(tmp_path), **options)

    return make


def run_on(dataset):
    return SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset))


def test_patients_of_each_of_several_datasets(dataset) -> None:
    without = dataset(fold=(1, 2), fold_part="out", fold_seed=5)
    own = {"fold": [1, 2, 5, "out"], "patients": sorted(set("abcd") - fold_of_patients("abcd", 1, 2, 5))}
    assert len(own["patients"]) == 2
    inside = {"fold": [0, 2, 0, "in"], "patients": sorted(fold_of_patients("abcd", 0, 2))}
    whole = {"fold": None, "patients": list("abcd")}
    assert patients_trained_on(without) == {"made": own}
    assert patients_trained_on(dataset(name="another", fold=(0, 2))) == {"made": inside}  # whatever training calls it
    files = [dataset(named="whole"), without, dataset(named="inside", fold=(0, 2))]
    assert patients_trained_on(SimpleNamespace(datasets=files)) == {"whole": whole, "made": own, "inside": inside}
    assert patients_trained_on([1, 2]) == {}  # of another kind


def test_a_checkpoint_says_whom_its_training_and_the_one_before_it_saw(dataset) -> None:
    left_out = sorted(fold_of_patients("abcd", 0, 2))
    hook, checkpoint = SeenPatientsHook(), {"meta": {"epoch": 1}}
    hook.before_save_checkpoint(run_on(dataset(fold=(0, 2), fold_part="out")), checkpoint)
    first = checkpoint["meta"][TRAINED]["made"]
    assert first == {"fold": [0, 2, 0, "out"], "patients": sorted(set("abcd") - set(left_out))}
    later, second = SeenPatientsHook(), {"meta": {}}
    later.after_load_checkpoint(None, checkpoint)
    later.before_save_checkpoint(run_on(dataset("elsewhere", fold=(0, 2))), second)
    assert second["meta"][TRAINED] == {
        "made": first, "elsewhere": {"fold": [0, 2, 0, "in"], "patients": left_out}
    }  # fmt: skip
    again, third = SeenPatientsHook(), {}
    again.after_load_checkpoint(None, second)
    again.before_save_checkpoint(run_on(dataset(fold=(0, 2))), third)
    assert third["meta"][TRAINED]["made"] == {"fold": [0, 2, 0, "in"], "patients": list("abcd")}


class Samples(list):
    def get_data_info(self, index):
        return self[index]


def test_patients_with_a_number():
    samples = [
        {"patient": "c", "instances": [{"identity": None}, {"identity": 3}]},
        {"patient": "a", "instances": [{"identity": 0}]},
        {"patient": "b", "instances": [{"identity": None}]},
        {"patient": "d", "instances": []},
    ]
    checkpoint = {"meta": {"epoch": 1}}
    NumberedPatientsHook().before_save_checkpoint(run_on(Samples(samples)), checkpoint)
    assert checkpoint["meta"] == {"epoch": 1, NUMBERED: ["a", "c"]}
    later, second = NumberedPatientsHook(), {}
    later.after_load_checkpoint(None, checkpoint)
    later.before_save_checkpoint(run_on(Samples([{"patient": "b", "instances": [{"identity": 1}]}])), second)
    assert second["meta"] == {NUMBERED: ["a", "b", "c"]}
