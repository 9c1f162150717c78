"""Pseudo-masks: GrabCut on drawn lesions, what stands in where it fails, and the whole annotation file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.datasets.converters import add_pseudo_masks, convert_deeplesion, pseudo_mask, pseudo_masks
from mmpluld.datasets.converters.pseudo_masks import encode_mask
from mmpluld.errors import InputError
from mmpluld.io.slice_sources import read_png16
from mmpluld.structures import AnnotationSet

CENTRE_XY, RADII_XY = (62.0, 50.0), (14.0, 9.0)
RECIST = (48.5, 50.0, 75.5, 50.0, 62.0, 41.5, 62.0, 58.5)
BOX = (43.0, 36.0, 81.0, 64.0)
WINDOW = (-160.0, 240.0)


def inside(height: int = 100, width: int = 120) -> np.ndarray:
    y, x = np.indices((height, width)) + 0.5
    return ((x - CENTRE_XY[0]) / RADII_XY[0]) ** 2 + ((y - CENTRE_XY[1]) / RADII_XY[1]) ** 2 <= 1


def draw(contrast: float = 100.0, noise: float = 8.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (40 + contrast * inside() + noise * rng.standard_normal((100, 120))).astype(np.int16)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("contrast", [100, -100])
def test_a_lesion_that_stands_out_is_found(contrast):
    mask, origin = pseudo_mask(draw(contrast), BOX, RECIST, WINDOW)
    assert origin == "grabcut"
    assert dice(mask, inside()) > 0.93


def test_what_does_not_touch_the_mark_is_left_out():
    image = draw()
    image[37:40, 44:47] = 140  # as bright as the lesion, in its box
    mask, _ = pseudo_mask(image, BOX, RECIST, WINDOW)
    assert not mask[36:41, 43:48].any()
    assert dice(mask, inside()) > 0.93


def test_legacy_wraps_negative_grey_values_around():
    """Air in the legacy image is 206, above everything else; a lesion of air in soft tissue still has its contrast."""
    image = np.where(inside(), -1024, 40).astype(np.int16)
    mask, origin = pseudo_mask(image, BOX, RECIST, WINDOW, "legacy")
    assert origin == "grabcut"
    assert dice(mask, inside()) > 0.9


def test_the_lesions_window_matters_in_exact_mode_alone():
    shown, hidden = (0.0, 200.0), (-1000.0, -500.0)  # all of the slice is white in the second
    exact = [pseudo_mask(draw(), BOX, RECIST, window)[0] for window in (shown, hidden)]
    assert dice(exact[0], inside()) > 0.97 > dice(exact[1], inside())
    legacy = [pseudo_mask(draw(), BOX, RECIST, window, "legacy")[0] for window in (shown, hidden)]
    np.testing.assert_array_equal(*legacy)


@pytest.mark.parametrize("window", [None, (None, None), (50.0, 50.0)])
def test_without_a_valid_window_soft_tissue_is_taken(window):
    expected, _ = pseudo_mask(draw(), BOX, RECIST, (-175.0, 275.0))
    np.testing.assert_array_equal(pseudo_mask(draw(), BOX, RECIST, window)[0], expected)


def test_where_grabcut_takes_the_whole_box_the_mark_stands_in():
    box = (49.0, 42.0, 75.0, 58.0)
    image = np.full((100, 120), 40, dtype=np.int16)
    image[42:58, 49:75] = 140
    mask, origin = pseudo_mask(image, box, (50, 50, 74, 50, 62, 43, 62, 57), WINDOW)
    assert origin == "recist"
    assert mask[50, 62] and not mask[43, 50]


def test_box_that_fills_the_slice_leaves_no_background():
    mask, origin = pseudo_mask(draw(), (0, 0, 120, 100), RECIST, WINDOW)
    assert origin == "recist"
    assert mask.sum() == pytest.approx(0.5 * 27 * 17, rel=0.25)


@pytest.mark.parametrize(
    "recist", [None, (500, 500, 520, 500, 510, 490, 510, 510), (-40, -40, -30, -40, -35, -45, -35, -30)]
)
def test_without_a_mark_in_the_slice_the_ellipse_of_the_box_stands_in(recist):
    mask, origin = pseudo_mask(draw(), (48.0, 41.0, 76.0, 59.0), recist, WINDOW)
    assert origin == "ellipse"
    assert dice(mask, inside()) > 0.99


def test_mark_that_leaves_the_slice_is_cut():
    mask, origin = pseudo_mask(draw(), (100, 40, 130, 60), (104, 50, 126, 50, 115, 43, 115, 57), WINDOW)
    assert mask.shape == (100, 120)
    assert mask.any() and origin in ("grabcut", "recist")


def test_lesion_of_one_pixel():
    mask, _ = pseudo_mask(draw(), (10.0, 10.0, 11.0, 11.0), (10.5, 10.5, 10.5, 10.5, 10.5, 10.5, 10.5, 10.5), WINDOW)
    assert np.argwhere(mask).tolist() == [[10, 10]]
    assert pseudo_mask(draw(), (10.2, 10.2, 10.4, 10.4), None)[0].sum() == 1


def test_box_outside_the_slice_has_an_empty_mask():
    mask, origin = pseudo_mask(draw(), (200, 40, 230, 60), RECIST, WINDOW)
    assert not mask.any() and origin == "ellipse"


def test_random_state_has_no_influence():
    masks = []
    for seed in (1, 2):
        cv2.setRNGSeed(seed)
        masks.append(pseudo_mask(draw(20, 20), BOX, RECIST, WINDOW)[0])
    np.testing.assert_array_equal(*masks)


@settings(max_examples=40)
@given(st.lists(st.floats(-30, 150), min_size=8, max_size=8), st.lists(st.floats(-30, 150), min_size=4, max_size=4))
def test_any_marks_give_a_mask_within_the_box_and_the_mark(points, corners):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    mask, _ = pseudo_mask(draw(), (x1, y1, x2 + 1, y2 + 1), points, WINDOW)
    assert mask.shape == (100, 120)
    y, x = np.indices(mask.shape)
    box = (x > x1 - 1) & (x < x2 + 1) & (y > y1 - 1) & (y < y2 + 1)
    rows, columns = np.nonzero(mask & ~box)
    if len(rows):
        assert columns.min() >= min(points[::2]) - 1.5 and columns.max() <= max(points[::2]) + 0.5
        assert rows.min() >= min(points[1::2]) - 1.5 and rows.max() <= max(points[1::2]) + 0.5


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_run_lengths_come_back(seed, decode_mask):
    mask = np.random.default_rng(seed).random((7, 9)) < 0.4
    encoded = encode_mask(mask)
    assert encoded["size"] == [7, 9] and isinstance(encoded["counts"], str)
    np.testing.assert_array_equal(decode_mask(encoded), mask)


@pytest.fixture
def annotations(write_annotations):
    mark = (6, 10, 14, 10, 10, 7, 10, 13)
    lesions = [
        {"volume": "a", "box": (4, 5, 3, 16, 15, 4), "key_slice": 3, "recist": mark},
        {"volume": "a", "box": (18, 5, 3, 28, 15, 4), "key_slice": 3},
        {"volume": "b", "box": (4, 5, 21, 16, 15, 23), "recist": mark},
        {"volume": "b", "box": (40, 5, 22, 50, 15, 23), "key_slice": 22},
    ]
    root = write_annotations(lesions)
    return root, AnnotationSet.load(root / "annotations/train.json")


@pytest.mark.parametrize("cores", [1, 3])
def test_every_lesion_with_a_key_slice_gets_a_mask(annotations, monkeypatch, cores):
    monkeypatch.setattr(pseudo_masks, "usable_cores", lambda: cores)
    root, records = annotations
    counts = add_pseudo_masks(records, root)
    # The slices are flat, so that GrabCut cannot tell lesion from background; one lesion lies outside the slice.
    assert counts["ellipse"] == 1 and sum(counts.values()) == 2
    assert [lesion.mask is not None for lesion in records.lesions] == [True, True, False, False]
    records.save(root / "masks.json")
    assert AnnotationSet.load(root / "masks.json") == records


def test_masks_that_are_there_stay(annotations):
    root, records = annotations
    own = encode_mask(np.eye(32, dtype=bool))
    records.lesions[0].mask = own
    add_pseudo_masks(records, root)
    assert records.lesions[0].mask is own


def test_slice_that_cannot_be_read_leaves_the_marks(annotations, decode_mask):
    root, records = annotations
    (root / "Images_png/a/003.png").write_bytes(b"not a picture")
    counts = add_pseudo_masks(records, root)
    assert (counts["recist"], counts["ellipse"], counts["grabcut"]) == (1, 1, 0)
    mask = decode_mask(records.lesions[0].mask)
    assert mask[10, 10] and not mask[6, 5]


def test_unknown_mode(annotations):
    root, records = annotations
    with pytest.raises(InputError, match="mask mode is 'exct'; allowed are exact, legacy; did you mean 'exact'"):
        add_pseudo_masks(records, root, "exct")


def test_converter_writes_masks_unless_told_otherwise(tmp_path, write_csv, write_slices, decode_mask):
    write_slices(tmp_path / "Images_png/000001_01_01", range(3, 8))
    write_csv(tmp_path / "DL_info.csv", [{}])
    report = convert_deeplesion(tmp_path, units="hu")
    (lesion,) = AnnotationSet.load(tmp_path / "annotations/train.json").lesions
    assert decode_mask(lesion.mask).any()
    assert sum(report.masks.values()) == 1
    assert "masks: " in report.summary()
    report = convert_deeplesion(tmp_path, overwrite=True, masks=None, units="hu")
    assert AnnotationSet.load(tmp_path / "annotations/train.json").lesions[0].mask is None
    assert "masks: " not in report.summary()


def test_converter_refuses_an_unknown_mode_before_any_work(tmp_path):
    with pytest.raises(InputError, match="mask mode is 'best'; allowed are exact, legacy"):
        convert_deeplesion(tmp_path, masks="best")


def test_real_lesions(real_data, tmp_path, decode_mask):
    """On real key slices the masks keep close to the marks: neither the bare mark nor the box."""
    root = tmp_path / "deeplesion"
    root.mkdir()
    (root / "Images_png").symlink_to(real_data / "deeplesion/Images_png")
    (root / "DL_info.csv").write_bytes((real_data / "deeplesion/DL_info_images.csv").read_bytes())
    report = convert_deeplesion(root, drop_noisy=False)
    assert report.masks == {"grabcut": 32}
    for split in ("val", "test"):
        for lesion in AnnotationSet.load(root / f"annotations/{split}.json").lesions:
            x1, y1, _, x2, y2, _ = lesion.box
            share = decode_mask(lesion.mask).sum() / ((x2 - x1) * (y2 - y1))
            assert 0.1 < share < 0.7
    assert read_png16(root / "Images_png/000016_02_01/253.png").shape == (512, 512)
