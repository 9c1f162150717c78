from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmpluld.errors import InputError
from mmpluld.structures import as_boxes, boxes_hull_transform, inclusive_to_edges

_COORDINATES = st.integers(-4000, 4000).map(lambda n: n / 8)


def test_inclusive_box_gets_one_on_the_far_side():
    assert inclusive_to_edges([[3, 4, 5, 3, 8, 6]]).tolist() == [[3, 4, 5, 4, 9, 7]]
    assert inclusive_to_edges([[3, 4, 9, 9]]).tolist() == [[3, 4, 10, 10]]
    assert inclusive_to_edges(np.zeros((0, 6))).shape == (0, 6)


def test_conversion_leaves_its_input_alone():
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    inclusive_to_edges(boxes)
    assert boxes.tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_hull_of_a_box_turned_by_90_degrees():
    quarter_turn = np.array([[0, -1, 0, 10], [1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]])
    assert boxes_hull_transform([[0, 0, 0, 4, 2, 1]], quarter_turn).tolist() == [[8, 0, 0, 10, 4, 2]]
    assert boxes_hull_transform(np.zeros((0, 6)), np.eye(4)).shape == (0, 6)


@given(
    arrays(np.float64, (3, 6), elements=_COORDINATES),
    arrays(np.float64, (3, 4), elements=st.integers(-40, 40).map(lambda n: n / 8)),
)
def test_hull_holds_exactly_the_corners(raw, top):
    boxes = np.concatenate([np.minimum(raw[:, :3], raw[:, 3:]), np.maximum(raw[:, :3], raw[:, 3:])], axis=1)
    matrix = np.vstack([top, [0, 0, 0, 1]])
    hulls = boxes_hull_transform(boxes, matrix)
    for box, hull in zip(boxes, hulls, strict=True):
        corners = np.array([[*corner, 1.0] for corner in itertools.product(*box.reshape(2, 3).T)]) @ matrix.T
        np.testing.assert_allclose(hull, np.concatenate([corners.min(0)[:3], corners.max(0)[:3]]), atol=1e-8)


@pytest.mark.parametrize("empty", [[], [[]], np.zeros((0, 6)), np.zeros(0)])
def test_no_boxes_have_a_shape(empty):
    assert as_boxes(empty, 3).shape == (0, 6)
    assert as_boxes(empty, 2).shape == (0, 4)


def test_as_boxes_copies_to_float64():
    boxes = np.array([[1, 2, 3, 4]], dtype=np.int16)
    checked = as_boxes(boxes, 2)
    assert checked.dtype == np.float64
    assert checked.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[1, 2, 3, 4]], r"shape \(1, 4\); allowed is \(N, 6\)"),
        ([1, 2, 3, 4, 5, 6], r"shape \(6,\)"),
        ([[1, 2, 3, 4, 5, 6], [1, 2]], "ragged"),
        ([["1", "2", "3", "4", "5", "6"]], "allowed are numbers"),
        ([[1, 2, 3, 4, 5, None]], "allowed are numbers"),
        ([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, np.nan, 1]], r"box 1 is .*nan.*finite"),
        ([[0, 0, 5, 1, 1, 4]], "far edge lies before its near edge"),
    ],
)
def test_as_boxes_refuses(boxes, message):
    with pytest.raises(InputError, match=message):
        as_boxes(boxes, 3)
