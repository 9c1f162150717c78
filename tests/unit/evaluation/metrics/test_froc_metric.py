from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

from mmpluld.errors import InputError
from mmpluld.evaluation import evaluate_files
from mmpluld.evaluation.metrics import FROCMetric, VolumeFROCMetric
from mmpluld.registry import METRICS
from mmpluld.structures.records import AnnotationSet, DetectionSet, LesionRecord, VolumeRecord

LESION = [10.0, 10, 30, 30]
IGNORED = [200.0, 10, 220, 30]
FAR = [100.0, 100, 120, 120]


def sample(name: str, key_slice: int, boxes: list[Any], scores: list[float], truth: list[Any]) -> DetDataSample:
    result = DetDataSample(metainfo={"volume_id": name, "key_slice": key_slice, "patient": name[0]})
    result.pred_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.zeros(len(scores), dtype=torch.long),
    )
    result.gt_instances = InstanceData(bboxes=torch.tensor(truth, dtype=torch.float32).reshape(-1, 4))
    result.ignored_instances = InstanceData(bboxes=torch.tensor([IGNORED] if key_slice == 7 else []).reshape(-1, 4))
    return result


@pytest.fixture
def samples() -> list[DetDataSample]:
    return [
        sample("p_1", 5, [FAR, LESION], [0.95, 0.9], [LESION, [50, 50, 60, 60]]),
        sample("p_1", 9, [], [], [LESION]),
        sample("q_1", 7, [IGNORED, LESION, FAR], [0.99, 0.6, 0.5], [LESION]),
    ]


def evaluate(metric: FROCMetric, samples: list[DetDataSample]) -> dict[str, float]:
    evaluator = Evaluator(metric)
    for item in samples:
        evaluator.process([item])
    return evaluator.evaluate(len(samples))


def test_by_hand(samples: list[DetDataSample]) -> None:
    """Two of four lesions, with one false positive (1/3 per image) above them."""
    metrics = evaluate(METRICS.build({"type": "FROCMetric"}), samples)
    assert metrics == {
        "froc/avg": 0.5,
        **{f"froc/sens@{level}": 0.5 for level in ("0.5", "1", "2", "4", "8", "16")},
    }


def test_dump_is_evaluated_alike(samples: list[DetDataSample], tmp_path: Path) -> None:
    metrics = evaluate(FROCMetric(outfile_prefix=str(tmp_path / "out" / "test")), samples)
    dumped = DetectionSet.load(tmp_path / "out" / "test.json").volumes
    assert {found.frame for found in dumped.values()} == {"series-slices"}
    assert dumped["p_1"].boxes.tolist() == [
        [100, 100, 5, 120, 120, 6],
        [10, 10, 5, 30, 30, 6],
    ]
    volumes = [
        VolumeRecord(name, name[0], "1", "1", {"kind": "png16", "path": name}, 1, 20, (512, 512), (5.0, 1.0, 1.0))
        for name in ("p_1", "q_1")
    ]
    lesions = []
    for item in samples:
        z = item.key_slice
        marked = [(b, False) for b in item.gt_instances.bboxes] + [(b, True) for b in item.ignored_instances.bboxes]
        for found, ignore in marked:
            x1, y1, x2, y2 = found.tolist()
            lesions.append(LesionRecord(len(lesions), item.volume_id, (x1, y1, z, x2, y2, z + 1), z, ignore=ignore))
    AnnotationSet({"name": "made", "label_scope": "x"}, volumes, lesions).save(tmp_path / "gt.json")
    result = evaluate_files(tmp_path / "out" / "test.json", tmp_path / "gt.json", "deeplesion-2d")
    assert result["average"] == metrics["froc/avg"]
    assert result["num_images"] == 3


def test_no_lesions_warn_and_give_nan() -> None:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        metrics = evaluate(FROCMetric(), [sample("p_1", 5, [FAR], [0.5], [])])
    finally:
        logger.removeHandler(handler)
    assert np.isnan(list(metrics.values())).all()
    assert any("none of 1 images has a lesion" in message for message in messages)


def test_no_detections_give_zero() -> None:
    metrics = evaluate(FROCMetric(), [sample("p_1", 5, [], [], [LESION])])
    assert set(metrics.values()) == {0.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"treshold": 0.5}, r"it has no field 'treshold'; did you mean 'threshold'\?"),
        ({"levels": 1}, r"levels is 1; it must be a list of numbers"),
        ({"threshold": "half"}, r"protocol 'mine': a value is of the wrong type"),
        ({}, r"lacks headline_levels; give them, or the name"),
    ],
)
def test_faulty_protocols_of_configs_are_explained(change: dict[str, Any], message: str) -> None:
    whole = {"name": "mine", "dim": 2, "overlap": "iou", "threshold": 0.5, "levels": [1], "headline_levels": [1]}
    protocol = whole | change
    if not change:
        del protocol["headline_levels"]
    for metric in (FROCMetric, VolumeFROCMetric):
        with pytest.raises(InputError, match=message):
            metric(protocol=protocol)
    assert VolumeFROCMetric(protocol=whole | {"dim": 3}).protocol.name == "mine"


def test_a_metric_of_volumes_refuses_slices(samples: list[DetDataSample]) -> None:
    with pytest.raises(InputError, match="VolumeFROCMetric: the samples are single slices; .* validations take FROCM"):
        VolumeFROCMetric().process(None, [sample.to_dict() for sample in samples])


def test_protocol_from_config_values(samples: list[DetDataSample]) -> None:
    protocol = {
        "name": "mine",
        "dim": 2,
        "overlap": "iobb",
        "threshold": 0.9,
        "levels": [0.1, 1],
        "headline_levels": [1],
    }
    assert evaluate(FROCMetric(protocol=protocol, prefix="mine"), samples) == {
        "mine/avg": 0.5,
        "mine/sens@0.1": 0.0,
        "mine/sens@1": 0.5,
    }


def test_3d_protocol_is_refused() -> None:
    with pytest.raises(InputError, match="protocol 'lens-3d' is 3D, but data samples are key slices"):
        FROCMetric(protocol="lens-3d")


def test_sample_without_slice_is_refused(samples: list[DetDataSample]) -> None:
    anonymous = samples[0].to_dict()
    del anonymous["key_slice"]
    with pytest.raises(InputError, match="has no 'key_slice'; add it to meta_keys of PackDetInputs"):
        FROCMetric().process(None, [anonymous])
