"""ShiftScaleRotate and ResizeToSpacing, and mmdet's own transforms on stacks of 7 and 9 slices."""

from __future__ import annotations

import importlib
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.datasets.transforms import CropAtLesion, ResizeToSpacing, ShiftScaleRotate
from mmpluld.errors import InputError
from mmpluld.registry import TRANSFORMS

# Not an import statement, which would be sorted before mmpluld's: mmdet needs the operators that mmpluld supplies.
structures = importlib.import_module("mmdet.structures")


def of_mmdet(name, **settings):
    return TRANSFORMS.build({"type": f"mmdet.{name}", **settings})


def sample(boxes, height=64, width=96, depth=7, masks=False):
    """A stack whose channel c is 10 * c inside the boxes and 0 elsewhere."""
    image = np.zeros((height, width, depth), np.float32)
    bitmaps = np.zeros((len(boxes), height, width), np.uint8)
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2] = 10 * np.arange(depth)
        bitmaps[index, y1:y2, x1:x2] = 1
    results = {
        "img": image,
        "img_shape": (height, width),
        "gt_bboxes": structures.bbox.HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        "gt_bboxes_labels": np.arange(len(boxes)),
        "gt_ignore_flags": np.arange(len(boxes)) % 2 == 1,
    }
    return results | ({"gt_masks": structures.mask.BitmapMasks(bitmaps, height, width)} if masks else {})


def fixed(shift_x=0.0, shift_y=0.0, scale=1.0, degrees=0.0):
    """The transform with its random numbers replaced by these."""
    transform = ShiftScaleRotate(prob=1)
    transform._draw = lambda: (shift_x, shift_y, scale, degrees)
    return transform


def extent(plane):
    rows, columns = np.nonzero(plane > plane.max() / 2)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_shift_by_whole_pixels():
    results = fixed(shift_x=0.25, shift_y=-0.125)(sample([[30, 16, 50, 24]]))
    assert results["gt_bboxes"].tensor.tolist() == [[54, 8, 74, 16]]
    assert extent(results["img"][..., 6]) == [54, 8, 74, 16]
    np.testing.assert_allclose(results["img"][10, 60], 10 * np.arange(7), atol=1e-3)


def test_half_turn_maps_edges_onto_edges():
    results = fixed(degrees=180)(sample([[20, 16, 40, 24]]))
    np.testing.assert_allclose(results["gt_bboxes"].tensor, [[56, 40, 76, 48]], atol=1e-4)
    assert extent(results["img"][..., 6]) == [56, 40, 76, 48]


def test_quarter_turn_of_a_square_image():
    results = fixed(degrees=90)(sample([[20, 16, 40, 24]], 64, 64))
    # Counter-clockwise: (x, y) goes to (y, 64 - x).
    np.testing.assert_allclose(results["gt_bboxes"].tensor, [[16, 24, 24, 44]], atol=1e-4)
    assert extent(results["img"][..., 6]) == [16, 24, 24, 44]


def test_scaling_is_about_the_centre():
    results = fixed(scale=1.5)(sample([[38, 22, 58, 42]]))
    np.testing.assert_allclose(results["gt_bboxes"].tensor, [[33, 17, 63, 47]], atol=1e-4)
    assert extent(results["img"][..., 6]) == [33, 17, 63, 47]


def test_box_becomes_the_hull_of_its_turned_corners():
    results = fixed(degrees=45)(sample([[43, 27, 53, 37]]))
    half = 5 * np.sqrt(2)
    expected = [[48 - half, 32 - half, 48 + half, 32 + half]]
    np.testing.assert_allclose(results["gt_bboxes"].tensor, expected, atol=1e-4)


def test_boxes_that_leave_go_with_label_flag_and_mask():
    boxes = [[0, 0, 10, 10], [40, 30, 50, 40], [60, 30, 70, 40], [85, 30, 96, 40]]
    results = fixed(shift_x=-0.25)(sample(boxes, masks=True))
    assert results["gt_bboxes"].tensor.tolist() == [[16, 30, 26, 40], [36, 30, 46, 40], [61, 30, 72, 40]]
    assert results["gt_bboxes_labels"].tolist() == [1, 2, 3]
    assert results["gt_ignore_flags"].tolist() == [True, False, True]
    for mask, box in zip(results["gt_masks"].masks, results["gt_bboxes"].tensor.tolist(), strict=True):
        assert extent(mask) == box


@pytest.mark.parametrize("shift", [(0.25, -0.125), (-0.5, 0.25)])
def test_map_of_classes_moves_with_the_image(shift):
    image = np.random.default_rng(0).integers(0, 18, (64, 96)).astype(np.uint8)
    moved = fixed(*shift)({"img": image[..., None].astype(np.float32), "gt_seg_map": image})
    classes = moved["gt_seg_map"]
    known = classes != 255
    assert (classes.dtype, classes.shape) == (np.uint8, (64, 96))
    np.testing.assert_allclose(moved["img"][..., 0][known], classes[known], atol=1e-3)
    assert known.mean() == (1 - abs(shift[0])) * (1 - abs(shift[1]))  # the rest of the image is mirrored


def test_turned_map_of_classes_keeps_its_classes():
    image = np.zeros((64, 64), np.uint8)
    image[16:24, 20:40] = 9
    moved = fixed(degrees=90)({"img": image[..., None].astype(np.float32), "gt_seg_map": image})
    np.testing.assert_array_equal(moved["gt_seg_map"] == 9, moved["img"][..., 0] > 4.5)
    assert set(np.unique(moved["gt_seg_map"])) <= {0, 9, 255}


def test_boxes_are_clipped_to_the_image():
    results = fixed(shift_x=-0.25)(sample([[16, 30, 40, 40]]))
    assert results["gt_bboxes"].tensor.tolist() == [[0, 30, 16, 40]]


def test_a_sample_that_would_lose_every_box_passes_as_it_was():
    before = sample([[0, 0, 10, 10]], masks=True)
    results = fixed(shift_x=-0.5)({**before})
    assert results["img"] is before["img"]
    assert results["gt_bboxes"].tensor.tolist() == [[0, 0, 10, 10]]
    assert len(results["gt_masks"]) == 1
    assert "homography_matrix" not in results


def test_a_sample_without_boxes_is_moved_all_the_same():
    results = sample([], masks=True)
    results["img"][:, :48] = 1
    results = fixed(shift_x=0.25)(results)
    assert results["gt_bboxes"].tensor.shape == (0, 4)
    assert results["gt_masks"].masks.shape == (0, 64, 96)
    assert results["img"][32, 60, 0] == pytest.approx(1, abs=1e-5)


def test_without_annotations():
    results = fixed(shift_x=0.25)({"img": np.ones((8, 8, 3), np.float32)})
    assert results["img"].shape == (8, 8, 3)


@pytest.mark.parametrize("depth", [1, 3, 4, 5, 7, 9])
def test_every_channel_is_treated_alike(depth):
    image = np.random.default_rng(0).random((16, 20, 1)).astype(np.float32).repeat(depth, axis=2)
    moved = fixed(0.1, 0.05, 1.1, 7)({"img": image})["img"]
    assert (moved.shape, moved.dtype, moved.flags.c_contiguous) == ((16, 20, depth), np.float32, True)
    for channel in range(depth):
        np.testing.assert_allclose(moved[..., channel], moved[..., 0], atol=1e-5)


def test_the_border_is_mirrored_and_values_stay_near_their_range():
    image = np.full((16, 16, 3), -50, np.float32)
    np.testing.assert_allclose(fixed(0.3, 0.3, 0.5, 15)({"img": image})["img"], -50, atol=1e-3)


def test_homography_moves_points_as_boxes():
    results = fixed(shift_x=0.25)(sample([[20, 16, 40, 24]]))
    np.testing.assert_allclose(results["homography_matrix"] @ [20, 16, 1], [44, 16, 1], atol=1e-9)


def test_probability():
    random.seed(0)
    transform = ShiftScaleRotate(prob=0.8)
    changed = [transform({"img": np.zeros((4, 4, 3), np.float32)}).get("homography_matrix") for _ in range(500)]
    assert 370 <= sum(matrix is not None for matrix in changed) <= 430
    assert ShiftScaleRotate(prob=0)._draw() is None


def test_random_numbers_are_within_their_limits_and_repeat_with_the_seed():
    transform = ShiftScaleRotate(prob=1)
    random.seed(3)
    drawn = np.array([transform._draw() for _ in range(300)])
    random.seed(3)
    assert np.array_equal(drawn, [transform._draw() for _ in range(300)])
    limits = np.array([0.04, 0.04, 0.2, 15])
    spread = np.abs(drawn - [0, 0, 1, 0])
    assert (spread <= limits).all()
    assert (spread.max(axis=0) > 0.95 * limits).all()


@settings(max_examples=30)
@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(0.7, 1.3), st.floats(-45, 45), st.integers(0, 2**31))
def test_boxes_fit_what_they_held(shift_x, shift_y, scale, degrees, seed):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, [80, 48])
    boxes = [[*corner, *(corner + rng.integers(6, 16, 2))]]
    results = fixed(shift_x, shift_y, scale, degrees)(sample(boxes, masks=True))
    box = results["gt_bboxes"].tensor[0].numpy()
    assert 0 <= box[0] < box[2] <= 96
    assert 0 <= box[1] < box[3] <= 64
    mask = results["gt_masks"].masks[0]
    if mask.any():
        # A pixel belongs to the mask if its centre does, so up to half a pixel may stick out.
        assert (np.array(extent(mask))[:2] >= box[:2] - 0.51).all()
        assert (np.array(extent(mask))[2:] <= box[2:] + 0.51).all()
    if (box[:2] > 0).all() and box[2] < 96 and box[3] < 64:
        # Where nothing was clipped the box is tight: a corner of the lesion reaches every side.
        assert np.abs(extent(mask) - box).max() <= 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prob": 1.5}, r"prob is 1.5; allowed is 0 to 1"),
        ({"shift_limit": -0.1}, r"shift_limit is -0.1; allowed is 0 to 1"),
        ({"scale_limit": 1}, r"scale_limit is 1; allowed is 0 to 0.99"),
        ({"rotate_limit": 200}, r"rotate_limit is 200; allowed is 0 to 180"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        ShiftScaleRotate(**settings)


def test_resize_to_spacing():
    results = ResizeToSpacing(0.8)(sample([[20, 16, 40, 24]]) | {"spacing_mm": (5.0, 0.4, 1.6)})
    assert results["img"].shape == (32, 192, 7)
    assert results["img_shape"] == (32, 192)
    assert results["scale_factor"] == (2.0, 0.5)
    assert results["gt_bboxes"].tensor.tolist() == [[40, 8, 80, 12]]


def test_resize_to_spacing_keeps_within_the_largest_size():
    results = ResizeToSpacing(0.8, max_size=96)(sample([[20, 16, 40, 24]]) | {"spacing_mm": (5.0, 1.6, 1.6)})
    assert results["img_shape"] == (64, 96)
    assert results["scale_factor"] == (1.0, 1.0)


@pytest.mark.parametrize("spacing", [float("nan"), 0.0, -1.0])
def test_resize_to_spacing_leaves_axes_of_unknown_size(spacing):
    results = ResizeToSpacing(0.8)(sample([]) | {"spacing_mm": (5.0, spacing, 1.6)})
    assert results["img_shape"] == (64, 192)


def test_resize_to_spacing_checks_its_settings():
    with pytest.raises(InputError, match=r"pixel_mm is 0; needed is a positive number of mm"):
        ResizeToSpacing(0)
    with pytest.raises(InputError, match=r"max_size is 0; needed is at least 1 pixel"):
        ResizeToSpacing(0.8, max_size=0)


@pytest.mark.parametrize("depth", [7, 9])
def test_transforms_of_mmdet_take_stacks(depth):
    results = sample([[20, 16, 40, 24]], 64, 64, depth) | {"patient": "p"}
    results = of_mmdet("Resize", scale=(128, 128), keep_ratio=True)(results)
    assert results["img"].shape == (128, 128, depth)
    np.testing.assert_allclose(results["img"][40, 60], 10 * np.arange(depth), atol=1e-4)
    results = of_mmdet("RandomFlip", prob=1.0)(results)
    assert results["gt_bboxes"].tensor.tolist() == [[48, 32, 88, 48]]
    assert extent(results["img"][..., -1]) == [48, 32, 88, 48]
    packed = of_mmdet("PackDetInputs", meta_keys=("img_shape", "scale_factor", "patient"))(results)
    assert packed["inputs"].shape == (depth, 128, 128)
    assert packed["data_samples"].patient == "p"
    assert packed["data_samples"].gt_instances.bboxes.tensor.tolist() == [[48, 32, 88, 48]]


def test_annotations_of_mmdet_take_samples_without_lesions():
    results = of_mmdet("LoadAnnotations", with_bbox=True)({"instances": [], "img_shape": (8, 8)})
    packed = of_mmdet("PackDetInputs", meta_keys=())({**results, "img": np.zeros((8, 8, 7), np.float32)})
    assert packed["data_samples"].gt_instances.bboxes.shape == (0, 4)


def _crop_sample(boxes, flags=None, size=(40, 48)):
    """An image whose pixels tell their place: row in the first channel, column in the second."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    return {
        "img": np.stack([rows, columns], axis=2),
        "gt_bboxes": np.array(boxes, np.float32).reshape(-1, 4),
        "gt_bboxes_labels": np.zeros(len(boxes), np.int64),
        "gt_ignore_flags": np.array(flags or [False] * len(boxes), bool),
    }


def test_crop_keeps_a_lesion_whole_and_moves_its_box():
    step = CropAtLesion(crop_size=(20, 16))
    places, both = set(), set()
    for seed in range(200):
        np.random.seed(seed)  # noqa: NPY002 mmdet draws from it
        boxes = [[3.5, 2, 9, 7.25], [38, 30, 46, 38]]
        cropped = step.transform(_crop_sample(boxes))
        top, left = cropped["img"][0, 0].astype(int).tolist()
        assert cropped["img"].shape == (16, 20, 2)
        assert cropped["img_shape"] == (16, 20)
        # The lesions are too far apart for one crop.
        assert len(cropped["gt_bboxes"]) == len(cropped["gt_bboxes_labels"]) == len(cropped["gt_ignore_flags"]) == 1
        moved = (cropped["gt_bboxes"][0] + [left, top, left, top]).tolist()
        assert moved in boxes
        places.add((top, left))
        both.add(boxes.index(moved))
    assert both == {0, 1}
    assert len(places) == 3 * 4 + 3 * 3


def test_crop_without_lesions_is_anywhere():
    step = CropAtLesion(crop_size=(20, 16))
    places = set()
    for seed in range(300):
        np.random.seed(seed)  # noqa: NPY002
        # An uncertain lesion draws no crop to it.
        cropped = step.transform(_crop_sample([[0, 0, 5, 5]], [True]))
        places.add(tuple(cropped["img"][0, 0].astype(int).tolist()))
    assert {top for top, _ in places} == set(range(25))
    assert {left for _, left in places} == set(range(29))


def test_crop_of_a_lesion_larger_than_it():
    cropped = CropAtLesion(crop_size=(10, 10)).transform(_crop_sample([[10, 5, 30, 35]]))
    assert cropped["img"][0, 0].tolist() == [15, 15]
    assert cropped["gt_bboxes"].tolist() == [[0, 0, 10, 10]]


def test_crop_of_an_image_smaller_than_it():
    cropped = CropAtLesion(crop_size=(64, 64)).transform(_crop_sample([[10, 5, 30, 35]]))
    assert cropped["img"].shape == (40, 48, 2)
    assert cropped["gt_bboxes"].tolist() == [[10, 5, 30, 35]]


def test_random_sizes_around_the_spacing():
    resize = ResizeToSpacing(0.8, ratio_range=(0.5, 2.0))
    results = [resize(sample([], depth=1) | {"spacing_mm": (1.0, 0.8, 0.8)}) for _ in range(60)]
    widths = {item["img_shape"][1] for item in results}
    assert len(widths) > 20
    assert min(widths) >= 48 and max(widths) <= 192
    capped = ResizeToSpacing(0.8, max_size=100, ratio_range=(2.0, 2.0))
    assert max(capped(sample([], depth=1) | {"spacing_mm": (1.0, 0.8, 0.8)})["img_shape"]) == 100


@pytest.mark.parametrize("ratios", [(0.0, 1.0), (1.2, 0.8)])
def test_ratios_out_of_range(ratios):
    with pytest.raises(InputError, match="ratio_range"):
        ResizeToSpacing(0.8, ratio_range=ratios)
