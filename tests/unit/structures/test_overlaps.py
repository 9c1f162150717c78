from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.structures import paired_overlap, pairwise_overlap

SQUARE = np.array([[0.0, 0, 4, 4]])


@pytest.mark.parametrize(
    ("overlap", "expected"), [("iou", 4 / 20), ("iobb", 4 / 8), ("iogt", 4 / 16), ("iobbgt", 4 / 8)]
)
def test_hand_computed_2d(overlap: str, expected: float) -> None:
    assert pairwise_overlap(np.array([[2.0, 0, 4, 4], [2, 2, 6, 4]]), SQUARE, overlap)[1, 0] == expected


@pytest.mark.parametrize(
    ("overlap", "expected"), [("iou", 8 / 120), ("iobb", 8 / 64), ("iogt", 8 / 64), ("iobbgt", 8 / 64)]
)
def test_hand_computed_3d(overlap: str, expected: float) -> None:
    near = np.array([[0.0, 0, 0, 4, 4, 4]])
    assert pairwise_overlap(near, near + 2, overlap)[0, 0] == expected


@pytest.mark.parametrize("width", [4, 6])
@pytest.mark.parametrize(("n", "m"), [(0, 3), (2, 0), (0, 0)])
def test_empty_sides_keep_the_shape(width: int, n: int, m: int) -> None:
    assert pairwise_overlap(np.ones((n, width)), np.ones((m, width))).shape == (n, m)


def test_touching_edges_do_not_overlap() -> None:
    assert pairwise_overlap(SQUARE, np.array([[4.0, 0, 8, 4]]))[0, 0] == 0


@pytest.mark.parametrize("box", [[np.nan, 0, 4, 4], [1, 1, 1, 3]])
def test_nan_where_there_is_nothing_to_divide_by(box: list[float]) -> None:
    assert np.isnan(pairwise_overlap(np.array([box], dtype=float), SQUARE, "iobb")[0, 0])


def test_inverted_box_overlaps_nothing() -> None:
    assert pairwise_overlap(np.array([[3.0, 0, 1, 4]]), SQUARE, "iobb")[0, 0] == 0


def test_centre_is_inside_the_sphere_in_whatever_voxels() -> None:
    """Of a nodule's box: the mark is nearer to its centre than its radius, strictly, on all axes together."""
    spacing = np.array([0.7, 0.7, 2.5])
    centre, radius = np.array([30.0, 40, 25]), 6.0
    nodule = np.concatenate([(centre - radius) / spacing, (centre + radius) / spacing])[None]
    rng = np.random.default_rng(0)
    marks = centre + rng.uniform(-9, 9, (200, 3))
    boxes = np.concatenate([marks - 2, marks + 2], axis=1) / np.tile(spacing, 2)
    near = np.linalg.norm(marks - centre, axis=1) < radius
    assert 20 < near.sum() < 180
    assert np.array_equal(pairwise_overlap(boxes, nodule, "centre")[:, 0], near.astype(float))


def test_centre_on_the_rim_is_outside_and_unknown_places_are_nan() -> None:
    boxes = np.array([[3.0, 1, 5, 3], [2.9, 1, 4.9, 3], [np.nan, 1, 5, 3]])
    found = pairwise_overlap(boxes, SQUARE, "centre")[:, 0]
    assert found[:2].tolist() == [0, 1]
    assert np.isnan(found[2])
    assert pairwise_overlap(boxes[:1], np.array([[4.0, 0, 0, 4]]), "centre")[0, 0] == 0


def test_unknown_measure_is_explained() -> None:
    with pytest.raises(InputError, match="'iob' is not one of iou, iobb, iogt, iobbgt, centre; did you mean 'iobb'"):
        pairwise_overlap(SQUARE, SQUARE, "iob")  # type: ignore[arg-type]


def test_mixed_widths_are_refused() -> None:
    with pytest.raises(InputError, match=r"truth have shape \(1, 6\)"):
        pairwise_overlap(SQUARE, np.ones((1, 6)))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)), max_size=5),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 9)), max_size=5),
)
def test_equals_counting_pixels(first: list[tuple[int, ...]], second: list[tuple[int, ...]]) -> None:
    """On whole pixels every measure is a ratio of pixel counts."""

    def pixels(box: tuple[int, ...]) -> set[tuple[int, int]]:
        x, y, w, h = box
        return {(i, j) for i in range(x, x + w) for j in range(y, y + h)}

    def edges(boxes: list[tuple[int, ...]]) -> np.ndarray:
        return np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], dtype=float).reshape(-1, 4)

    for overlap in ("iou", "iobb", "iogt", "iobbgt"):
        result = pairwise_overlap(edges(first), edges(second), overlap)
        for i, a in enumerate(map(pixels, first)):
            for j, b in enumerate(map(pixels, second)):
                sizes = {"iou": len(a | b), "iobb": len(a), "iogt": len(b), "iobbgt": min(len(a), len(b))}
                assert result[i, j] == len(a & b) / sizes[overlap]


def test_paired_is_the_diagonal_of_pairwise() -> None:
    rng = np.random.default_rng(0)
    low = rng.random((2, 7, 3))
    first, second = np.concatenate([low, low + rng.random((2, 7, 3))], axis=-1)
    assert np.array_equal(paired_overlap(first, second), np.diag(pairwise_overlap(first, second)))
