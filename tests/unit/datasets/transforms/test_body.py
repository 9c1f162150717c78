"""Cutting away the air around the body."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from mmpluld.datasets.transforms import CropBody
from mmpluld.datasets.transforms.body import body_box
from mmpluld.errors import InputError

# Not an import statement, which would be sorted before mmpluld's: mmdet needs the operators that mmpluld supplies.
structures = importlib.import_module("mmdet.structures")

BODY = (20, 16, 76, 60)


def slice_hu(x1=20, y1=16, x2=76, y2=60, height=80, width=96):
    """A body of water in air."""
    image = np.full((height, width), -1000, np.float32)
    image[y1:y2, x1:x2] = 0
    return image


def sample(boxes=((30, 20, 40, 30),), key=None):
    """A stack whose other slices are all body."""
    key = slice_hu() if key is None else key
    stack = np.stack([np.zeros_like(key), key, np.zeros_like(key)], -1)
    bitmaps = np.zeros((len(boxes), *key.shape), np.uint8)
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        bitmaps[index, y1:y2, x1:x2] = 1
    return {
        "img": stack,
        "img_shape": key.shape,
        "gt_bboxes": structures.bbox.HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        "gt_bboxes_labels": np.arange(len(boxes)),
        "gt_ignore_flags": np.zeros(len(boxes), bool),
        "gt_masks": structures.mask.BitmapMasks(bitmaps, *key.shape),
    }


def test_box_of_the_body():
    assert body_box([slice_hu()]) == BODY
    assert body_box([slice_hu(), slice_hu(10, 30, 50, 40)]) == (10, 16, 76, 60)
    assert body_box([]) is None
    assert body_box([np.full((20, 20), -1000, np.int16)]) is None


def test_noise_and_thin_things_are_no_body():
    image = slice_hu()
    image[4:10, :] = 100  # 6 pixels high
    image[70, 5] = 3000
    assert body_box([image]) == BODY
    image[4:11, :] = 100
    assert body_box([image]) == (0, 4, 96, 60)


def test_threshold():
    image = np.full((20, 20), -768, np.float32)
    assert body_box([image]) is None
    image += 1
    assert body_box([image]) == (0, 0, 20, 20)


def test_crop_at_the_body_on_the_key_slice():
    results = CropBody()(sample([(30, 20, 40, 30), (0, 0, 5, 5), (70, 50, 90, 70)]))
    assert results["img"].shape == (44, 56, 3)
    assert results["img_shape"] == (44, 56)
    assert results["crop_offset"] == (20, 16)
    assert (results["img"][..., 1] == 0).all()
    # A box outside goes with all that belongs to it; one that sticks out is clipped.
    assert results["gt_bboxes"].tensor.tolist() == [[10, 4, 20, 14], [50, 34, 56, 44]]
    assert results["gt_bboxes_labels"].tolist() == [0, 2]
    assert len(results["gt_ignore_flags"]) == len(results["gt_masks"]) == 2
    assert results["gt_masks"].masks.shape[1:] == (44, 56)
    assert results["gt_masks"].masks[0, 4:14, 10:20].all()


def test_nothing_but_air_is_left_whole():
    results = CropBody()(sample(key=np.full((30, 40), -1000, np.float32), boxes=()))
    assert results["img"].shape == (30, 40, 3)
    assert results["crop_offset"] == (0, 0)


def test_box_of_the_volume_replaces_that_of_the_slice():
    results = CropBody()(sample() | {"body_box": (4, 6, 90, 70)})
    assert results["img"].shape == (64, 86, 3)
    assert results["crop_offset"] == (4, 6)


@pytest.mark.parametrize(("shift", "corner", "size"), [((-8, 7), (12, 23), (37, 64)), ((-30, -30), (0, 0), (60, 76))])
def test_shift_moves_the_left_and_the_upper_edge(shift, corner, size):
    crop = CropBody(shift_px=30)
    crop._draw = lambda: shift
    results = crop(sample())
    assert results["crop_offset"] == corner
    assert results["img"].shape[:2] == size
    assert results["gt_bboxes"].tensor[0, :2].tolist() == [30 - corner[0], max(20 - corner[1], 0)]


def test_shifts_drawn():
    crop = CropBody(shift_px=8)
    drawn = [crop._draw() for _ in range(500)]
    assert {value for pair in drawn for value in pair} == set(range(-8, 8))
    assert CropBody()._draw() == (0, 0)


def test_a_shift_leaves_a_pixel():
    crop = CropBody(shift_px=8)
    crop._draw = lambda: (7, 7)
    results = crop(sample(key=slice_hu(85, 70, 92, 77), boxes=()))
    assert min(results["img"].shape[:2]) == 1


def test_samples_without_annotations():
    results = CropBody()({"img": sample()["img"]})
    assert results["crop_offset"] == (20, 16)


def test_refuses_a_negative_shift():
    with pytest.raises(InputError, match="shift_px is -1"):
        CropBody(shift_px=-1)
