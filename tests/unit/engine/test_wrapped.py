"""What a checkpoint says of folds that its training left out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mmpluld.datasets import CTLesionDataset
from mmpluld.datasets.folds import FOLDS, fold_of_patients
from mmpluld.engine.hooks import SafeCheckpointHook
from mmpluld.engine.wrapped import folds_left_out
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord


@pytest.fixture
def dataset(tmp_path: Path):
    """``dataset(**options)``: key slices of four patients."""
    volumes = [
        VolumeRecord(name, name, "1", "1", {"kind": "png16", "path": name}, 1, 5, (32, 32), (2.0, 1.0, 1.0))
        for name in "abcd"
    ]
    lesions = [
        LesionRecord(number, volume.id, (4.0, 4, 2, 12, 12, 3), key_slice=2) for number, volume in enumerate(volumes)
    ]
    AnnotationSet({"name": "made", "label_scope": "all"}, volumes, lesions).save(tmp_path / "train.json")
    return lambda **options: CTLesionDataset("train.json", str(tmp_path), **options)


def test_folds_left_out_by_any_of_several_datasets(dataset) -> None:
    without = dataset(fold=(1, 2), fold_part="out", fold_seed=5)
    own = {"fold": [1, 2, 5], "patients": sorted(set("abcd") - fold_of_patients("abcd", 1, 2, 5))}
    assert len(own["patients"]) == 2
    both = SimpleNamespace(datasets=[dataset(name="whole"), without, dataset(name="inside", fold=(0, 2))])
    assert folds_left_out(both) == folds_left_out(without) == {"made": own}


@pytest.mark.parametrize(("options", "told"), [({}, False), ({"fold": (0, 2), "fold_part": "out"}, True)])
def test_a_checkpoint_says_whom_a_training_without_a_fold_saw(dataset, monkeypatch, options, told) -> None:
    monkeypatch.setattr("mmpluld.engine.hooks.describe_run", lambda runner: {})
    data = dataset(**options)
    checkpoint = {"meta": {}, "message_hub": {"runtime_info": {}, "resumed_keys": {}}}
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=data))
    SafeCheckpointHook().before_save_checkpoint(runner, checkpoint)
    assert (FOLDS in checkpoint["meta"]) == told
    if told:
        assert checkpoint["meta"][FOLDS]["made"]["patients"] == data.patients
