"""Box i, label i, flag i and mask i stay one lesion through every transform of the pipelines, whatever is dropped."""

from __future__ import annotations

import importlib
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.registry import TRANSFORMS

# Not an import statement, which would be sorted before mmpluld's: mmdet needs the operators that mmpluld supplies.
structures = importlib.import_module("mmdet.structures")

HEIGHT, WIDTH = 72, 96
STEPS = {
    "shift": {"type": "ShiftScaleRotate", "prob": 1.0, "shift_limit": 0.3, "scale_limit": 0.3, "rotate_limit": 20},
    "spacing": {"type": "ResizeToSpacing", "pixel_mm": 0.7},
    "resize": {"type": "mmdet.Resize", "scale": (120, 120), "keep_ratio": True},
    "flip": {"type": "mmdet.RandomFlip", "prob": 0.5},
    "crop": {"type": "mmdet.RandomCrop", "crop_size": (48, 48), "allow_negative_crop": False},
    "filter": {"type": "mmdet.FilterAnnotations", "min_gt_bbox_wh": (6, 6), "keep_empty": False},
}
BOXES = st.lists(
    st.tuples(st.integers(0, WIDTH - 13), st.integers(0, HEIGHT - 13), st.integers(6, 12), st.integers(6, 12)),
    min_size=1,
    max_size=5,
)


def sample(boxes):
    """Every lesion's mask fills its box, and its label tells its number."""
    edges = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes])
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, edges, strict=True):
        mask[y1:y2, x1:x2] = 1
    return {
        "img": np.zeros((HEIGHT, WIDTH, 7), np.float32),
        "img_shape": (HEIGHT, WIDTH),
        "spacing_mm": (5.0, 0.8, 0.9),
        "gt_bboxes": structures.bbox.HorizontalBoxes(torch.tensor(edges, dtype=torch.float32)),
        "gt_bboxes_labels": np.arange(len(boxes)),
        "gt_ignore_flags": np.arange(len(boxes)) % 2 == 1,
        "gt_masks": structures.mask.BitmapMasks(masks, HEIGHT, WIDTH),
    }


def check_paired(results, count):
    labels, masks, boxes = results["gt_bboxes_labels"], results["gt_masks"], results["gt_bboxes"].tensor.numpy()
    assert len(labels) == len(masks) == len(boxes) == len(results["gt_ignore_flags"]) <= count
    assert (labels % 2 == 1).tolist() == results["gt_ignore_flags"].tolist()
    assert (masks.height, masks.width) == results["img"].shape[:2]
    for mask, (x1, y1, x2, y2) in zip(masks.masks, boxes, strict=True):
        assert set(np.unique(mask)) <= {0, 1}
        rows, columns = np.nonzero(mask)
        if len(rows):
            # Nearest neighbour may be a pixel off; another lesion's mask would be anywhere.
            assert columns.min() >= x1 - 1.51 and columns.max() + 1 <= x2 + 1.51
            assert rows.min() >= y1 - 1.51 and rows.max() + 1 <= y2 + 1.51


@pytest.mark.parametrize(
    "chain", [*([name] for name in STEPS), ["shift", "resize", "flip"], ["crop", "filter", "flip"]]
)
def test_single_steps_and_the_pipelines(chain):
    steps = [TRANSFORMS.build(dict(STEPS[name])) for name in chain]

    @settings(max_examples=25)
    @given(BOXES, st.integers(0, 2**31 - 1))
    def check(boxes, seed):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  mmdet's transforms use the global generator
        results = sample(boxes)
        for step in steps:
            results = step(results)
            if results is None:  # the sample was refused, and the dataset draws another
                return
        check_paired(results, len(boxes))

    check()


def test_dropping_boxes_drops_their_masks():
    """Half of the lesions leave the slice; the peers' code kept their masks."""
    shift = TRANSFORMS.build(dict(STEPS["shift"]))
    shift._draw = lambda: (0.5, 0.0, 1.0, 0.0)
    results = shift(sample([(70, 5, 10, 10), (10, 5, 10, 10), (80, 40, 8, 8), (20, 40, 8, 8)]))
    assert results["gt_bboxes_labels"].tolist() == [1, 3]
    for mask, box in zip(results["gt_masks"].masks, results["gt_bboxes"].tensor.tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box
