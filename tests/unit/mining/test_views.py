from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.pool import ProposalPool
from mmpluld.mining.strategies import propagate_across_slices
from mmpluld.mining.views import average_views

A = "1_01_01"


@pytest.fixture
def views(volume, store):
    def make(*rows):
        series = volume(A)
        return [store([(series, item)], name=f"view{index}").load(A) for index, item in enumerate(rows)]

    return make


def test_means_weighted_by_score(views):
    # On slice 3 the first two boxes overlap by 400 / 480; the third view saw nothing there.
    one, two, three = views(
        [(3, (0, 0, 20, 20), 0.9, "deeplesion", 0)],
        [(3, (0, 0, 20, 24), 0.3, "deeplesion", 0)],
        [(4, (0, 0, 20, 20), 0.6, "deeplesion", 0), (3, (0, 0, 20, 20), 0.6, "lits", -1)],
    )
    joint = average_views([one, two, three])
    rows = list(zip(joint.grid.tolist(), joint.expert.tolist(), joint.slice.tolist(), strict=True))
    assert rows == [(3, 0, 14), (3, 1, 14), (4, 0, 15)]
    np.testing.assert_allclose(joint.boxes, [[0, 0, 20, 21], [0, 0, 20, 20], [0, 0, 20, 20]], atol=1e-6)
    np.testing.assert_allclose(joint.scores, [0.4, 0.2, 0.2], atol=1e-6)
    assert (joint.tracklet == -1).all()


def test_a_view_gives_a_box_its_best_alone(views):
    # The second view has two boxes on the first's: the better overlap joins, the other stays by itself.
    one, two = views(
        [(0, (0, 0, 20, 20), 0.9, "lits", -1)],
        [(0, (0, 0, 20, 39), 0.7, "lits", -1), (0, (0, 2, 20, 20), 0.5, "lits", -1)],
    )
    joint = average_views([one, two])
    np.testing.assert_allclose(joint.scores, [0.7, 0.35], atol=1e-6)
    np.testing.assert_allclose(joint.boxes[0], [0, 0.5 * 2 / 1.4, 20, 20], atol=1e-5)


def test_means_that_come_to_lie_on_one_lesion_are_one(views):
    # In either view the boxes overlap by less than half; the second view's move the first's towards one another.
    one, two = views(
        [(0, (0, 0, 20, 20), 0.8, "lits", -1), (0, (0, 8, 20, 28), 0.4, "lits", -1)],
        [(0, (0, 4, 20, 24), 0.8, "lits", -1), (0, (0, -4, 20, 16), 0.2, "lits", -1)],
    )
    joint = average_views([one, two])
    np.testing.assert_allclose(joint.scores, [0.8], atol=1e-6)
    np.testing.assert_allclose(joint.boxes, [[0, 2, 20, 22]], atol=1e-5)


def test_the_order_of_views_has_no_influence(views):
    rng = np.random.default_rng(0)
    rows = [
        [
            (int(rng.integers(10)), (x, y, x + 20, y + 20), float(rng.random()), "lits", -1)
            for x, y in rng.random((40, 2)) * 60
        ]
        for _ in range(3)
    ]
    found = views(*rows)
    one, two = average_views(found), average_views(found[::-1])
    for name in ("boxes", "scores", "grid", "expert"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-9)
    assert len(one.scores) < 120


def test_nothing_found_and_other_grids(views):
    one, two = views([], [])
    assert len(average_views([one, two]).scores) == 0
    assert average_views([one]) is one
    with pytest.raises(InputError, match=r"volume '1_01_01': its views have different grids"):
        average_views([one, replace(two, gap_mm=1.0)])


def test_pools(volume, store, annotated):
    one, two = volume(A), volume("2_01_01")
    first = store([(one, [(0, (0, 0, 20, 20), 0.9, "lits", -1)])], name="first")
    second = store([(two, [])], name="second")
    pool = ProposalPool([first, second])
    assert one.id in pool and two.id in pool and "other" not in pool
    assert len(pool.load(A).scores) == 1
    third = store([(one, [(0, (0, 0, 20, 20), 0.3, "lits", -1)])], name="third")
    both = ProposalPool([first, third])
    assert both.load(A).scores.tolist() == pytest.approx([0.6])
    with pytest.raises(InputError, match=r"cross-slice: 1 volume \(1_01_01\) have proposals in several folders"):
        propagate_across_slices(annotated([one], []), both, MiningOptions())
    with pytest.raises(InputError, match=r"no proposals of volume 'other'; run `mmpluld propose` again"):
        pool.load("other")
