from __future__ import annotations

import numpy as np

from mmpluld.postprocess import GridMap, Tracklet, tracklet_to_box3d
from mmpluld.postprocess.scan_tracklets import scan_tracklets


def test_each_is_what_it_would_be_alone(volume, store):
    series = volume("1_01_01", interval=5.0, num_slices=9)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(12):
        first, length = rng.integers(0, 12), rng.integers(1, 8)
        for place in range(first, first + length):
            corner = rng.uniform(0, 50, 2)
            score = 0.0 if number == 3 else float(rng.random())
            rows.append((int(place), (*corner, *(corner + 20)), score, "lits", number))
    shard = store([(series, rows)]).load(series.id)
    found = scan_tracklets(shard)
    assert sorted(item.number for item in found) == list(range(12))
    assert [next(iter(item.boxes)) for item in found] == sorted(next(iter(item.boxes)) for item in found)
    grid = GridMap(9, 5.0)
    for item in found:
        own = np.flatnonzero(shard.tracklet == item.number)
        merged = tracklet_to_box3d(Tracklet(shard.grid[own], shard.boxes[own], shard.scores[own]))
        z1, z2 = grid.boxes_to_scan([merged.box])[0, [2, 5]] + series.first_slice
        np.testing.assert_allclose(item.box, [*merged.box[:2], z1, *merged.box[3:5], z2], atol=1e-9)
        assert item.score == merged.score
        near = series.first_slice + int(grid.slices_to_scan(merged.key_slice))
        assert item.key_slice == min(max(near, int(z1)), int(z2) - 1)
        assert list(item.boxes) == list(range(int(z1), int(z2)))


def test_nothing(volume, store):
    series = volume("1_01_01")
    assert scan_tracklets(store([(series, [(0, (0, 0, 9, 9), 0.9, "lits", -1)])]).load(series.id)) == []
