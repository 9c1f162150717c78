"""A mined annotation file trains a detector through the ordinary dataset."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper

from mmpluld.datasets import CTLesionDataset
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

PIPELINE = [
    {"type": "LoadSliceStack", "num_slices": 9, "slice_gap_mm": 2.0},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "WindowHU", "window_hu": (-1024, 3071), "out_range": (0, 255), "offset": -50},
    {"type": "PackDetInputs", "meta_keys": ("img_id", "img_shape", "ori_shape", "scale_factor", "dataset")},
]
MARKED, UNCERTAIN = [10.0, 10.0, 30.0, 26.0], [30.0, 36.0, 50.0, 52.0]


@pytest.fixture
def mined(tmp_path):
    """A lesion annotated on slice 2 and carried over to slice 3, and an uncertain one on slices 3 and 4."""
    series = VolumeRecord("a", "p", "1", "1", {"kind": "png16", "path": "a"}, 1, 5, (64, 64), (2.0, 1.0, 1.0))
    rows = [[2, *MARKED], [3, *MARKED]]
    lesions = [
        LesionRecord(
            0, "a", (10, 10, 2, 30, 26, 4), key_slice=2,
            attributes={"slice_boxes": rows, "slice_origins": ["annotated", "propagated"]},
        ),
        *(
            LesionRecord(
                number, "a", (30, 36, number, 50, 52, number + 1), ignore=True, origin="mined", score=0.9,
                attributes={"expert": "lits"},
            )
            for number in (3, 4)
        ),
    ]  # fmt: skip
    AnnotationSet({"name": "deeplesion", "label_scope": "universal-partial"}, [series], lesions).save(
        tmp_path / "m.json"
    )
    (tmp_path / "a").mkdir()
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        image = rng.normal(40, 30, (64, 64))
        image[10:26, 10:30] += 300
        image[36:52, 30:50] += 300
        cv2.imwrite(str(tmp_path / "a" / f"{number:03d}.png"), (image + 32768).astype(np.uint16))

    def build(**options):
        return CTLesionDataset(
            str(tmp_path / "m.json"), str(tmp_path), pipeline=PIPELINE, sampling={"policy": "all_slices"}, **options
        )

    return build


def batch(dataset, *indices):
    items = [dataset[index] for index in indices]
    return {"inputs": [item["inputs"] for item in items], "data_samples": [item["data_samples"] for item in items]}


@pytest.mark.parametrize("changes", [{}, {"model.train_cfg.rcnn.assigner.ignore_iou_thr": 0.3}])
def test_two_steps(lens, mined, changes):
    model = lens.model("afp", **changes).train()
    assert model.roi_head.bbox_assigner.ignore_iou_thr == changes.get(
        "model.train_cfg.rcnn.assigner.ignore_iou_thr", -1
    )
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4))
    before = {key: value.clone() for key, value in model.named_parameters()}
    dataset = mined()
    assert [len(dataset[index]["data_samples"].gt_instances) for index in range(5)] == [0, 1, 1, 0, 0]
    assert [len(dataset[index]["data_samples"].ignored_instances) for index in range(5)] == [0, 0, 1, 1, 0]
    for indices in ((2, 3), (1, 0)):
        torch.manual_seed(0)
        logs = model.train_step(batch(dataset, *indices), optim)
        assert torch.isfinite(logs["loss"])
    assert [key for key, value in model.named_parameters() if torch.equal(before[key], value)] == []


def test_an_image_of_uncertain_boxes_alone_teaches_no_background_there(lens, mined):
    """Its central half (AFP) and the regions on it (second stage) are in no loss."""
    model = lens.model("afp").train()
    dataset = mined()
    data = model.data_preprocessor(batch(dataset, 3), training=True)
    sample = data["data_samples"][0]
    (scores,), _ = model.rpn_head(model.extract_feat(data["inputs"]))
    _, weights, _ = model.rpn_head.get_targets(scores, [sample.gt_instances], [sample.ignored_instances])
    left_out = (weights.view(16, 16) == 0).nonzero().tolist()
    # The central half of [30, 50] x [36, 52] is [35, 45] x [40, 48]: cell centres 38 and 42, and 42 and 46.
    assert left_out == [[10, 9], [10, 10], [11, 9], [11, 10]]
    priors = torch.tensor([UNCERTAIN, [36.0, 40, 46, 48], MARKED])
    assigned = model.roi_head.bbox_assigner.assign(
        type(sample.gt_instances)(priors=priors), sample.gt_instances, sample.ignored_instances
    )
    assert assigned.gt_inds.tolist() == [-1, -1, 0]


def test_uncertain_boxes_as_truth(mined):
    dataset = mined(uncertain="truth")
    samples = [dataset[index]["data_samples"] for index in range(5)]
    assert [len(item.gt_instances) for item in samples] == [0, 1, 2, 1, 0]
    assert not any(len(item.ignored_instances) for item in samples)
