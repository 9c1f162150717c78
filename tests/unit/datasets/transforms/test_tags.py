"""Tags stay with their boxes through transforms that drop some."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from mmpluld.datasets.transforms import LoadLesionTags, PackLesionInputs
from mmpluld.engine.hooks import seed_everything
from mmpluld.errors import InputError
from mmpluld.registry import DATASETS, TRANSFORMS


def sample() -> dict:
    boxes = [[2, 2, 6, 6], [10, 10, 40, 40], [20, 30, 50, 62], [30, 4, 55, 30]]
    tags = [[0], None, [1, 3], []]
    instances = [
        {"bbox": box, "bbox_label": 0, "ignore_flag": int(index == 3), "lesion_id": index, "tags": own}
        for index, (box, own) in enumerate(zip(boxes, tags, strict=True))
    ]
    return {"img": np.zeros((64, 64, 3), np.float32), "img_shape": (64, 64), "instances": instances, "img_id": "a"}


def pipeline(*steps: dict) -> Compose:
    with DefaultScope.overwrite_default_scope("mmpluld"):
        return Compose([TRANSFORMS.build(step) for step in steps])


LOAD = [{"type": "LoadAnnotations", "with_bbox": True}, {"type": "LoadLesionTags", "num_tags": 4}]
PACK = {"type": "PackLesionInputs", "meta_keys": ("img_id",)}


def test_dropped_boxes_take_their_tags_along() -> None:
    packed = pipeline(*LOAD, {"type": "FilterAnnotations", "min_gt_bbox_wh": (9, 9)}, PACK)(sample())["data_samples"]
    found = packed.gt_instances
    assert found.bboxes.tensor[:, 0].tolist() == [10, 20]
    assert found.labels.tolist() == [0, 0]
    assert found.tags[0].isnan().all()
    assert found.tags[1].tolist() == [0, 1, 0, 1]
    assert packed.ignored_instances.labels.tolist() == [0]
    assert packed.ignored_instances.tags.tolist() == [[0, 0, 0, 0]]


def test_random_crops_and_shifts_keep_the_pairs() -> None:
    whole = {"type": "RandomCrop", "crop_size": (52, 52), "allow_negative_crop": True}
    shift = {"type": "ShiftScaleRotate", "prob": 1.0, "shift_limit": 0.4, "scale_limit": 0.0, "rotate_limit": 0.0}
    run = pipeline(*LOAD, shift, whole, PACK)
    tags = {(4, 4): "first", (30, 30): "none", (30, 32): "third"}
    seen = set()
    for seed in range(40):
        seed_everything(seed)
        found = run(sample())["data_samples"].gt_instances
        for box, own in zip(found.bboxes.tensor.numpy(), found.tags.numpy(), strict=True):
            kind = tags.get(tuple(int(side) for side in np.round(box[2:] - box[:2])))
            if kind is None:  # cut by the border
                continue
            seen.add(kind)
            expected = {"first": [1, 0, 0, 0], "none": [np.nan] * 4, "third": [0, 1, 0, 1]}[kind]
            np.testing.assert_array_equal(own, expected)
    assert seen == {"first", "none", "third"}


def test_no_boxes() -> None:
    empty = sample() | {"instances": []}
    found = pipeline(*LOAD, PACK)(empty)["data_samples"].gt_instances
    assert found.tags.shape == (0, 4)
    assert len(found.labels) == 0


def test_a_tag_too_many() -> None:
    with pytest.raises(InputError, match="lesion 2 has tag 3, num_tags is 3"):
        LoadLesionTags(3).transform(sample() | {"gt_bboxes_labels": np.zeros(4, int)})


def test_packing_needs_tags() -> None:
    with pytest.raises(InputError, match="put LoadLesionTags after LoadAnnotations"):
        PackLesionInputs().transform(sample())


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"normalized_location": [0.1, 0.2, 0.7], "gender": "M", "age": 62.0}, (0.7, 1.0, 0.62)),
        ({"normalized_location": [0.1, 0.2, 0.7], "gender": "F", "age": None}, (0.7, 0.0, math.nan)),
        # An age of 0 stands for an unknown one in DL_info.csv.
        ({"gender": "", "age": 0.0}, (math.nan, math.nan, math.nan)),
    ],
)
def test_tags_position_sex_and_age_reach_the_sample(
    write_annotations: Callable[..., Path], known: dict, expected: tuple[float, ...]
) -> None:
    """From the annotation file to what the model's refining layer reads."""
    boxes = [(4, 5, 2, 14, 17, 5), (20, 5, 3, 31, 19, 6)]
    tags: list[dict] = [{"tags": [1, 3]}, {}]
    root = write_annotations(
        [
            {"volume": "a", "box": box, "key_slice": 3, "attributes": {**known, **own}}
            for box, own in zip(boxes, tags, strict=True)
        ]
    )
    with DefaultScope.overwrite_default_scope("mmpluld"):
        dataset = DATASETS.build(
            {
                "type": "CTLesionDataset",
                "ann_file": "annotations/train.json",
                "data_root": str(root),
                "sampling": {"policy": "key_slices"},
                "pipeline": [
                    {"type": "LoadSliceStack", "num_slices": 3},
                    *LOAD,
                    {"type": "PackLesionInputs", "meta_keys": ("img_id", "body_context")},
                ],
            }
        )
    (packed,) = [dataset[index] for index in range(len(dataset))]
    sample = packed["data_samples"]
    assert sample.body_context == pytest.approx(expected, nan_ok=True)
    assert sample.gt_instances.tags[0].tolist() == [0, 1, 0, 1]
    assert sample.gt_instances.tags[1].isnan().all()


def test_uncertain_tags_can_be_masked() -> None:
    found = {}
    for uncertain in ("truth", "masked"):
        start = sample()
        start["instances"][2]["uncertain_tags"] = [3]
        steps = [LOAD[0], {**LOAD[1], "uncertain": uncertain}]
        found[uncertain] = pipeline(*steps)(start)["lesion_tags"][2]
    assert found["truth"].tolist() == [0, 1, 0, 1]
    assert found["masked"][:3].tolist() == [0, 1, 0] and np.isnan(found["masked"][3])
    with pytest.raises(InputError, match="uncertain is 'no'; allowed are truth, masked"):
        LoadLesionTags(num_tags=4, uncertain="no")
