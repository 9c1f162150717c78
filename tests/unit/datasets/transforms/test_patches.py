"""Patches: where they are cut, what lies in them, and what goes with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmpluld.datasets.transforms import CropLesionPatches, LoadLesionTags, PackLesionPatches, ShiftScaleRotate
from mmpluld.errors import InputError


def _sample(boxes, shape=(10, 12, 3)):
    """Pixel (y, x) of slice d has value 1000 d + 100 y + x."""
    z, y, x = np.meshgrid(np.arange(shape[2]), np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    from mmdet.structures.bbox import HorizontalBoxes  # here: not before our registry is there

    image = (1000 * z + 100 * y + x).astype(np.float32).transpose(1, 2, 0)
    return {"img": image, "gt_bboxes": HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))}


def test_patch_is_centred_on_the_box():
    # Centre (6, 5): columns 4 to 7, rows 3 to 6.
    found = CropLesionPatches(size=4).transform(_sample([[5, 4, 7, 6]]))
    patch = found["patches"]
    assert patch.shape == (1, 3, 4, 4)
    assert patch[0, 0, 0].tolist() == [304, 305, 306, 307]
    assert patch[0, 2, 3].tolist() == [2604, 2605, 2606, 2607]
    assert found["patch_boxes"].tolist() == [[1, 1, 3, 3]]


def test_centre_is_rounded_and_boxes_are_clipped():
    # Centre (5.5, 4.75) goes to (6, 5); the box reaches beyond the patch from (4, 3) to (8, 7).
    found = CropLesionPatches(size=4).transform(_sample([[2, 4.25, 9, 5.25]]))
    assert found["patches"][0, 0, 0, 0] == 304
    np.testing.assert_allclose(found["patch_boxes"], [[0, 1.25, 4, 2.25]])


def test_border_is_carried_on():
    # Centre (1, 9): columns -1 to 2, rows 7 to 10, of which -1 and 10 lie outside.
    patch = CropLesionPatches(size=4).transform(_sample([[0, 8, 2, 10]]))["patches"][0, 0]
    assert patch.tolist() == [
        [700, 700, 701, 702],
        [800, 800, 801, 802],
        [900, 900, 901, 902],
        [900, 900, 901, 902],
    ]


def test_shift_moves_patch_and_box_together():
    crop = CropLesionPatches(size=4, shift_px=1)
    found = [crop.transform(_sample([[5, 4, 7, 6]])) for _ in range(40)]
    corners = {(int(item["patches"][0, 0, 0, 0]) % 100, int(item["patches"][0, 0, 0, 0]) // 100) for item in found}
    assert corners <= {(x, y) for x in (3, 4, 5) for y in (2, 3, 4)} and len(corners) > 4
    for item in found:
        x, y = int(item["patches"][0, 0, 0, 0]) % 100, int(item["patches"][0, 0, 0, 0]) // 100
        assert item["patch_boxes"].tolist() == [[5 - x, 4 - y, 7 - x, 6 - y]]


def test_edges_of_boxes_move():
    crop = CropLesionPatches(size=8, box_jitter=0.25)
    found = np.array([crop.transform(_sample([[4, 3, 8, 7]]))["patch_boxes"][0] for _ in range(50)])
    sides = found[:, 2:] - found[:, :2]
    assert sides.min() >= 2 and sides.max() <= 6 and np.ptp(sides) > 1


def test_packed_are_the_lesions_that_count():
    results = CropLesionPatches(size=4).transform(_sample([[5, 4, 7, 6], [2, 2, 4, 4], [8, 2, 10, 4]]))
    results["instances"] = [
        {"lesion_id": 5, "ignore_flag": 0, "identity": 3, "key_slice": 8},
        {"lesion_id": 6, "ignore_flag": 1},
        {"lesion_id": 7, "ignore_flag": 0, "identity": None, "key_slice": 9},
    ]
    results["lesion_tags"] = np.array([[1, 0], [0, 1], [np.nan, np.nan]], np.float32)
    results |= {"gt_bboxes_labels": np.arange(3), "patient": "p", "volume_id": "v", "key_slice": 8}
    packed = PackLesionPatches().transform(results)
    lesions = packed["data_samples"].gt_instances
    assert packed["inputs"].shape == (2, 3, 4, 4)
    assert (lesions.lesion_ids.tolist(), lesions.identities.tolist()) == ([5, 7], [3, -1])
    assert lesions.on_key_slice.tolist() == [True, False]
    assert lesions.tags[0].tolist() == [1, 0] and lesions.tags[1].isnan().all()
    assert (packed["data_samples"].patient, packed["data_samples"].volume_id) == ("p", "v")


def test_box_that_left_the_image_goes_with_its_lesion():
    results = _sample([[1, 4, 3, 6], [8, 1, 10, 3], [7, 5, 9, 8]])
    results["gt_ignore_flags"] = np.zeros(3, bool)
    results["instances"] = [
        {"lesion_id": 5, "ignore_flag": 0, "identity": 1, "tags": [0]},
        {"lesion_id": 6, "ignore_flag": 0, "identity": 2, "tags": [1]},
        {"lesion_id": 7, "ignore_flag": 1, "identity": 3, "tags": []},
    ]
    results["gt_bboxes_labels"] = np.zeros(3, np.int64)
    shift = ShiftScaleRotate(prob=1)
    shift._draw = lambda: (-0.5, 0.0, 1.0, 0.0)  # six columns to the left: the first box leaves
    for step in (LoadLesionTags(num_tags=2), shift, CropLesionPatches(size=4), PackLesionPatches()):
        results = step.transform(results)
    lesions = results["data_samples"].gt_instances
    assert results["inputs"].shape == (1, 3, 4, 4)
    assert lesions.bboxes.tolist() == [[1, 1, 3, 3]]
    assert (lesions.lesion_ids.tolist(), lesions.identities.tolist()) == ([6], [2])
    assert lesions.tags.tolist() == [[0, 1]]


def test_faulty_settings():
    for settings in ({"size": 5}, {"size": 0}, {"size": 4, "shift_px": 2}, {"box_jitter": 0.5}):
        with pytest.raises(InputError, match="CropLesionPatches: "):
            CropLesionPatches(**settings)
    results = CropLesionPatches(size=4).transform(_sample([[5, 4, 7, 6]]))
    with pytest.raises(InputError, match="1 patches of 2 lesions"):
        PackLesionPatches().transform({**results, "instances": [{}, {}]})
