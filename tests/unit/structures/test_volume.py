from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.structures import CTVolume

_AXES = [
    tuple((axis + 1) * sign for axis, sign in zip(order, signs, strict=True))
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def _lps_file(shape=(4, 3, 2)) -> CTVolume:
    """A file whose axes run left, posterior, superior: only the slices are in reverse order."""
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    affine = np.array([[0.5, 0, 0, 10], [0, 0.6, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
    return CTVolume.from_file_array(array, affine, "scan")


def test_reorientation_by_hand():
    volume = _lps_file()
    assert volume.shape == (2, 3, 4)
    assert volume.source_shape == (4, 3, 2)
    assert volume.source_axes == (1, 2, -3)
    assert volume.spacing_mm == (3.0, 0.6, 0.5)
    # Canonical (z=0, y=2, x=1) is file (i=1, j=2, k=1), stored as (1 * 3 + 2) * 2 + 1.
    assert volume.array[0, 2, 1] == 11
    assert volume.array.flags.c_contiguous
    assert volume.points_to_world_lps([1, 2, 0]).tolist() == pytest.approx([10.5, 21.2, 33])
    assert volume.slice_to_source(0) == (2, 1)


def test_boxes_by_hand():
    volume = _lps_file()
    # One voxel, file (1, 2, 1): its centre is at (10.5, 21.2, 33) and its size 0.5 x 0.6 x 3 mm.
    box = [[1, 2, 0, 2, 3, 1]]
    np.testing.assert_allclose(volume.boxes_to_world_lps(box), [[10.25, 20.9, 31.5, 10.75, 21.5, 34.5]])
    assert volume.boxes_to_source(box).tolist() == [[1, 2, 1, 2, 3, 2]]


def test_no_boxes_stay_no_boxes():
    volume = _lps_file()
    for mapped in (volume.boxes_to_world_lps([]), volume.boxes_to_source([]), volume.boxes_from_source([])):
        assert mapped.shape == (0, 6)


def test_axis_aligned_array_is_not_copied():
    stored = np.zeros((2, 3, 4), dtype=np.int16)
    volume = CTVolume.from_file_array(stored.transpose(), np.diag([1.0, 1.0, -1.0, 1.0]), "scan")
    assert np.shares_memory(volume.array, stored)


@given(st.sampled_from(_AXES), st.lists(st.floats(-5, 40), min_size=6, max_size=6))
def test_source_boxes_go_both_ways(axes, numbers):
    shape_xyz = (5, 6, 7)
    source_shape = [0, 0, 0]
    for canonical, axis in enumerate(axes):
        source_shape[abs(axis) - 1] = shape_xyz[canonical]
    volume = CTVolume(np.zeros((7, 6, 5), np.int16), np.eye(4), tuple(source_shape), axes)
    near, far = np.sort(np.array(numbers).reshape(2, 3), axis=0)
    box = np.concatenate([near, far])[None]
    there = volume.boxes_to_source(box)
    assert (there[:, 3:] >= there[:, :3]).all()
    np.testing.assert_allclose(volume.boxes_from_source(there), box, atol=1e-13)
    whole = [[0, 0, 0, 5, 6, 7]]
    assert volume.boxes_to_source(whole).tolist() == [[0, 0, 0, *source_shape]]


@given(st.lists(st.floats(-500, 500), min_size=3, max_size=3))
def test_points_go_both_ways(point):
    affine = np.array([[0.5, 0.1, 0, 10], [-0.1, 0.6, 0.2, 20], [0, 0.3, -3, 30], [0, 0, 0, 1.0]])
    volume = CTVolume.from_file_array(np.zeros((4, 3, 2), np.int16), affine, "scan")
    np.testing.assert_allclose(volume.points_from_world_lps(volume.points_to_world_lps(point)), point, atol=1e-9)


def test_oblique_scan_takes_the_nearest_axes_and_keeps_its_geometry():
    angle = np.radians(15)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 2.0, -3.0])
    volume = CTVolume.from_file_array(np.zeros((4, 3, 2), np.int16), affine, "scan")
    assert volume.source_axes == (1, 2, 3)
    assert volume.spacing_mm == pytest.approx((3.0, 2.0, 1.0))
    np.testing.assert_allclose(volume.affine_lps, affine)
    # The hull of a turned 4 x 6 mm plane.
    low, high = volume.boxes_to_world_lps([[0, 0, 0, 4, 3, 2]])[0].reshape(2, 3)
    width = 4 * np.cos(angle) + 6 * np.sin(angle)
    np.testing.assert_allclose(high - low, [width, 4 * np.sin(angle) + 6 * np.cos(angle), 6])


def test_from_canonical():
    volume = CTVolume.from_canonical(np.zeros((2, 3, 4), np.float32), (5, 0.8, 0.7), origin_lps=(1, 2, 3))
    assert volume.spacing_mm == pytest.approx((5, 0.8, 0.7))
    assert volume.points_to_world_lps([1, 1, 1]).tolist() == pytest.approx([1.7, 2.8, -2.0])
    assert volume.boxes_to_source([[1, 2, 0, 3, 3, 1]]).tolist() == [[1, 2, 0, 3, 3, 1]]


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (np.zeros((2, 3), np.int16), np.eye(4), r"^scan: the image has 2 axes"),
        (np.zeros((0, 3, 4), np.int16), np.eye(4), r"shape \(4, 3, 0\)"),
        (np.zeros((2, 3, 4)), np.eye(4), "float64; allowed are int16 and float32"),
        (np.zeros((2, 3, 4), np.int16), np.diag([0, 1, 1, 1.0]), "voxel size 0x1x1 mm; each must be above 0"),
        (np.zeros((2, 3, 4), np.int16), np.diag([np.nan, 1, 1, 1.0]), "NaN or inf"),
        (np.zeros((2, 3, 4), np.int16), np.eye(3), r"shape \(3, 3\)"),
        (np.zeros((2, 3, 4), np.int16), np.eye(4)[:, [0, 0, 2, 3]], "singular"),
        (np.zeros((2, 40, 4), np.int16), np.diag([1, 40, 1, 1.0]), "measures 2 x 1600 x 4 mm.* 1500 mm across"),
        (np.zeros((2, 3, 70), np.int16), np.diag([1, 1, 50, 1.0]), "measures 2 x 3 x 3500 mm.*3000 mm along"),
        (np.zeros((2, 3, 4), np.int16), np.eye(4) + np.eye(4)[[3, 2, 0, 1]].T * 2, "63 degrees off a right angle"),
    ],
)
def test_from_file_array_refuses(array, affine, message):
    with pytest.raises(InputError, match=message):
        CTVolume.from_file_array(array, affine, "scan")


@pytest.mark.parametrize(
    ("source_shape", "source_axes", "message"),
    [((4, 3, 2), (1, 2, 2), "signed order"), ((4, 3, 9), (1, 2, 3), r"needed is \(9, 3, 4\)")],
)
def test_volume_refuses_contradicting_axes(source_shape, source_axes, message):
    with pytest.raises(InputError, match=message):
        CTVolume(np.zeros((2, 3, 4), np.int16), np.eye(4), source_shape, source_axes)


@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_array_goes_back_to_file_order(order, signs):
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs
    array_ijk = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = CTVolume.from_file_array(array_ijk, affine, "memory")
    assert np.array_equal(volume.array_to_source(), array_ijk)
    assert np.array_equal(volume.array_from_source(array_ijk), volume.array)


@pytest.mark.parametrize(
    ("array", "spacing", "message"),
    [
        (np.zeros((4, 4), np.int16), (1, 1, 1), r"the volume is of shape \(4, 4\); needed is an array of three axes"),
        ([[[0]]], (1, 1, 1), "the volume is a list; needed is an array"),
        (np.zeros((2, 2, 2), np.int16), 2, "spacing_mm is 2; needed are three numbers, in mm"),
        (np.zeros((2, 2, 2), np.int16), (1, 1, np.nan), "spacing_mm is .*needed are three numbers, in mm"),
        (np.zeros((2, 2, 2), np.int16), (-2, 1, 1), "spacing_mm is .*allowed are numbers above 0"),
        (np.zeros((2, 2, 2), np.int16), (2, 1000, 1000), "voxel size 1000x1000x2 mm, from spacing_mm; allowed is"),
    ],
)
def test_from_canonical_refuses(array, spacing, message):
    with pytest.raises(InputError, match=message):
        CTVolume.from_canonical(array, spacing)
