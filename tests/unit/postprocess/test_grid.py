from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpluld.postprocess import GridMap


def z_range(grid, first, last):
    """Grid slices first..last, both included -> (z1, z2) in the scan."""
    box = grid.boxes_to_scan([[1, 2, first, 3, 4, last + 1]])[0]
    assert box[[0, 1, 3, 4]].tolist() == [1, 2, 3, 4]
    return int(box[2]), int(box[5])


@pytest.mark.parametrize("interval", [2.0, 2.0000004, 1.9999996])
def test_same_interval_is_the_identity(interval):
    grid = GridMap(num_slices=40, interval_mm=interval)
    assert grid.num_grid_slices == 40
    boxes = np.array([[0.5, 1, z1, 9, 8.25, z2] for z1 in range(40) for z2 in range(z1 + 1, 41)])
    np.testing.assert_array_equal(grid.boxes_to_scan(boxes), boxes)
    assert grid.slices_to_scan(range(40)).tolist() == list(range(40))
    assert [grid.neighbours(g) for g in (0, 7, 39)] == [(0, 0, 0.0), (7, 7, 0.0), (39, 39, 0.0)]


def test_thick_slices():
    grid = GridMap(num_slices=4, interval_mm=5.0)  # centres at 0, 5, 10, 15 mm
    assert grid.num_grid_slices == 8 + 0  # 0 to 14 mm; 15 mm lies within 1 mm of the last
    assert grid.neighbours(1) == (0, 1, pytest.approx(0.4))
    assert grid.neighbours(5) == (2, 2, 0.0)
    assert z_range(grid, 2, 3) == (1, 2)  # 3 to 7 mm covers the centre at 5
    assert z_range(grid, 1, 1) == (0, 1)  # 1 to 3 mm covers no centre; the middle, 2 mm, is nearest to 0
    assert z_range(grid, 4, 4) == (2, 3)  # 7 to 9 mm: nearest to 10
    assert z_range(grid, 0, 7) == (0, 4)
    assert grid.slices_to_scan([0, 1, 2, 3, 7]).tolist() == [0, 0, 1, 1, 3]


def test_thin_slices_count_both_ends():
    grid = GridMap(num_slices=10, interval_mm=1.0)
    assert grid.num_grid_slices == 5
    assert z_range(grid, 1, 1) == (1, 4)  # 1 to 3 mm, ends included
    assert z_range(grid, 4, 4) == (7, 10)
    assert z_range(grid, 0, 0) == (0, 2)


def test_nearest_slices():
    thick, thin = GridMap(num_slices=4, interval_mm=5.0), GridMap(num_slices=10, interval_mm=1.0)
    boxes = [[1, 2, 1, 3, 4, 2], [1, 2, 1, 3, 4, 4]]  # grid slices 1, and 1 to 3
    assert thick.boxes_to_scan(boxes)[:, [2, 5]].tolist() == [[0, 1], [1, 2]]  # 1 to 7 mm
    assert thick.boxes_to_scan(boxes, "nearest").tolist() == [[1, 2, 0, 3, 4, 1], [1, 2, 0, 3, 4, 2]]
    assert thin.boxes_to_scan(boxes)[:, [2, 5]].tolist() == [[1, 4], [1, 8]]
    assert thin.boxes_to_scan(boxes, "nearest")[:, [2, 5]].tolist() == [[2, 3], [2, 7]]
    same = GridMap(num_slices=9, interval_mm=2.0)
    np.testing.assert_array_equal(same.boxes_to_scan(boxes, "nearest"), boxes)
    with pytest.raises(ValueError, match="rule is 'cover'; it must be 'covered' or 'nearest'"):
        thin.boxes_to_scan(boxes, "cover")


def test_single_slice():
    grid = GridMap(num_slices=1, interval_mm=3.0)
    assert grid.num_grid_slices == 1
    assert z_range(grid, 0, 0) == (0, 1)


def test_no_boxes():
    assert GridMap(5, 2.5).boxes_to_scan([]).shape == (0, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2.0), "num_slices is 0"),
        ((3, float("nan")), "interval_mm is nan; it must be a finite number greater than 0"),
        ((3, 2.0, -1.0), "gap_mm is -1.0"),
    ],
)
def test_bad_geometry(arguments, message):
    with pytest.raises(ValueError, match=message):
        GridMap(*arguments)


def test_unknown_grid_slice():
    with pytest.raises(IndexError, match="grid slice 8 is outside 0 to 7"):
        GridMap(4, 5.0).neighbours(8)


@given(n=st.integers(1, 80), interval=st.floats(0.3, 12), gap=st.floats(0.5, 5))
def test_every_slice_is_reached_and_ranges_stay_inside(n, interval, gap):
    grid = GridMap(n, interval, gap)
    single = grid.boxes_to_scan([[0, 0, g, 1, 1, g + 1] for g in range(grid.num_grid_slices)])
    assert (single[:, 2] >= 0).all()
    assert (single[:, 5] <= n).all()
    assert (single[:, 5] - single[:, 2] >= 1).all()
    reached = {z for low, high in single[:, [2, 5]].astype(int) for z in range(low, high)}
    assert reached == set(range(n))


@given(n=st.integers(2, 60), interval=st.floats(0.3, 12), data=st.data())
def test_a_longer_run_covers_a_shorter_one(n, interval, data):
    grid = GridMap(n, interval)
    last = grid.num_grid_slices - 1
    low = data.draw(st.integers(0, last))
    high = data.draw(st.integers(low, last))
    inner, outer = z_range(grid, low, high), z_range(grid, max(low - 1, 0), min(high + 1, last))
    assert outer[0] <= inner[0]
    assert outer[1] >= inner[1]


@given(n=st.integers(2, 60), interval=st.floats(0.3, 12))
def test_interpolation_of_a_ramp_is_exact(n, interval):
    grid = GridMap(n, interval)
    for g in range(grid.num_grid_slices):
        lower, upper, weight = grid.neighbours(g)
        position = min(g * 2.0 / interval, n - 1)
        assert 0 <= lower <= upper <= n - 1
        assert lower + weight * (upper - lower) == pytest.approx(position, abs=2e-4)
