from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from mmpluld.postprocess import GridMap, chains_on_slices

INTERVALS = st.floats(0.5, 10).map(lambda value: round(value, 4))


def on_slices(grid, positions, boxes):
    """Slices and boxes of one chain."""
    chain, slices, found = chains_on_slices(grid, np.zeros(len(positions), np.int64), positions, boxes)
    assert not chain.any()
    return slices, found


def test_thick_slices_by_hand():
    grid = GridMap(num_slices=4, interval_mm=5.0)  # centres at 0, 5, 10, 15 mm
    # Grid slices 2 to 5 stand for 3 to 11 mm, with the centres at 5 and 10 mm: grid positions 2.5 and 5.
    slices, boxes = on_slices(grid, [2, 3, 5], [[0, 0, 10, 10], [2, 4, 12, 14], [6, 8, 20, 18]])
    assert slices.tolist() == [1, 2]
    assert boxes.tolist() == [[1, 2, 11, 12], [6, 8, 20, 18]]


def test_thin_slices_repeat_the_box_at_the_ends():
    grid = GridMap(num_slices=10, interval_mm=1.0)
    # Grid slices 1 and 2 stand for 1 to 5 mm; slices 1 and 5 lie beyond the positions at 2 and 4 mm.
    slices, boxes = on_slices(grid, [1, 2], [[0, 0, 10, 10], [4, 2, 16, 12]])
    assert slices.tolist() == [1, 2, 3, 4, 5]
    assert boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 10], [2, 1, 13, 11], [4, 2, 16, 12], [4, 2, 16, 12]]


def test_one_box_between_two_slices_lies_on_the_nearest():
    slices, boxes = on_slices(GridMap(num_slices=4, interval_mm=5.0), [1], [[1, 2, 3, 4]])
    assert slices.tolist() == [0]
    assert boxes.tolist() == [[1, 2, 3, 4]]


@given(INTERVALS, st.integers(1, 60))
@example(9.5999, 9)
def test_slices_and_grid_map_to_each_other(interval, count):
    grid = GridMap(count, interval)
    slices, positions = np.arange(count), np.arange(grid.num_grid_slices)
    there = grid.scan_to_grid(slices)
    if interval >= grid.gap_mm:
        np.testing.assert_array_equal(grid.slices_to_scan(there), slices)
    if interval <= grid.gap_mm:
        np.testing.assert_array_equal(grid.scan_to_grid(grid.slices_to_scan(positions)), positions)
    # Both are the nearest there is; less than a ten-thousandth of a slice beyond the middle is a tie.
    off = np.abs(slices[:, None] * interval - positions * grid.gap_mm)
    np.testing.assert_allclose(off[slices, there], off.min(axis=1), atol=2.001e-4 * grid.gap_mm)
    np.testing.assert_allclose(
        off[grid.slices_to_scan(positions), positions], off.min(axis=0), atol=2.001e-4 * interval
    )


@given(INTERVALS, st.integers(1, 40), st.data())
def test_a_chain_covers_the_slices_nearest_to_its_positions(interval, count, data):
    grid = GridMap(count, interval)
    first = data.draw(st.integers(0, grid.num_grid_slices - 1))
    last = data.draw(st.integers(first, grid.num_grid_slices - 1))
    positions = np.arange(first, last + 1)
    # The box says where it is, in grid slices.
    slices, boxes = on_slices(grid, positions, np.stack([positions, positions, positions + 1, positions + 1], 1))
    there = grid.scan_to_grid(np.arange(count))
    assert set(np.flatnonzero((there >= first) & (there <= last))) <= set(slices.tolist())
    np.testing.assert_array_equal(np.diff(slices), 1)
    place = np.clip(slices * interval / grid.gap_mm, first, last)
    np.testing.assert_allclose(boxes[:, 0], place, atol=1e-9)
    np.testing.assert_allclose(boxes[:, 3], place + 1, atol=1e-9)


@given(INTERVALS, st.integers(1, 40), st.data())
def test_chains_together_as_each_alone(interval, count, data):
    grid = GridMap(count, interval)
    chains = data.draw(
        st.dictionaries(
            st.integers(0, 9), st.sets(st.integers(0, grid.num_grid_slices - 1), min_size=1, max_size=6), max_size=4
        )
    )
    rows = [(number, place) for number in sorted(chains) for place in sorted(chains[number])]
    boxes = np.random.default_rng(0).uniform(0, 9, (len(rows), 4))
    owner, places = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    together = chains_on_slices(grid, owner, places, boxes)
    assert sorted(set(together[0].tolist())) == sorted(chains)
    for number in chains:
        own, there = owner == number, together[0] == number
        slices, found = on_slices(grid, places[own], boxes[own])
        np.testing.assert_array_equal(together[1][there], slices)
        np.testing.assert_allclose(together[2][there], found)
        where = slices * interval / grid.gap_mm
        by_corner = [np.interp(where, places[own], corner) for corner in boxes[own].T]
        np.testing.assert_allclose(found, np.stack(by_corner, axis=1), atol=1e-9)
