"""Plans of slice stacks: offsets worked out by hand, the peers' weights, ends of a series."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.io.slice_stack import INTERPOLATIONS, blend_stack, plan_indices, plan_stack, stack_gap_mm

EVERYWHERE = range(-1000, 1000)


def offsets(plan, key=0):
    """Mean slice number of every position, less the key."""
    return [sum(index * weight for index, weight in position) - key for position in plan]


@pytest.mark.parametrize(
    ("interval_mm", "expected"),
    [
        (5.0, [0.4, 0.8, 1.2]),
        (2.5, [0.8, 1.6, 2.4]),
        (1.25, [1.6, 3.2, 4.8]),
        (1.0, [2, 4, 6]),
        (2.0, [1, 2, 3]),
        (0.5, [4, 8, 12]),
        (3.0, [2 / 3, 4 / 3, 2]),
    ],
)
def test_exact_offsets(interval_mm, expected):
    plan = plan_stack(0, interval_mm, EVERYWHERE, 7)
    assert offsets(plan) == pytest.approx([-x for x in reversed(expected)] + [0, *expected])


@pytest.mark.parametrize(
    ("interval_mm", "expected"),
    [
        (5.0, [0.4, 0.4, 1.4]),
        (2.5, [0.8, 1.8, 2.8]),
        (1.25, [1.6, 3.6, 4.6]),
        (1.5, [4 / 3, 7 / 3, 4]),
        (1.0, [2, 4, 6]),
        (2.0, [1, 2, 3]),
    ],
)
def test_peer_weights_come_from_the_first_step(interval_mm, expected):
    plan = plan_stack(50, interval_mm, EVERYWHERE, 7, interp="peer")
    assert offsets(plan, 50)[4:] == pytest.approx(expected)
    assert offsets(plan, 50)[:3] == pytest.approx([-x for x in reversed(expected)])


def test_whole_plan_at_five_mm():
    plan = plan_stack(10, 5.0, EVERYWHERE, 5)
    expected = [
        {9: 0.8, 10: 0.2},
        {9: 0.4, 10: 0.6},
        {10: 1.0},
        {10: 0.6, 11: 0.4},
        {10: 0.2, 11: 0.8},
    ]
    assert [dict(position) for position in plan] == [pytest.approx(item) for item in expected]
    assert plan_indices(plan) == [9, 10, 11]


@pytest.mark.parametrize(
    ("interval_mm", "expected"), [(5.0, [1, 2, 3]), (2.0, [1, 2, 3]), (1.25, [1.6, 3.2, 4.8]), (1.0, [2, 4, 6])]
)
def test_native_takes_adjacent_slices_of_thick_series(interval_mm, expected):
    plan = plan_stack(0, interval_mm, EVERYWHERE, 7, interp="native")
    assert offsets(plan)[4:] == pytest.approx(expected)


def test_native_rule_of_the_published_loader():
    assert plan_stack(0, 5.0, EVERYWHERE, 7, interp="native-peer") == plan_stack(0, 5.0, EVERYWHERE, 7, interp="native")
    thin = plan_stack(0, 1.25, EVERYWHERE, 7, interp="native-peer")
    assert offsets(thin)[4:] == pytest.approx([1.6, 3.6, 4.6])


@pytest.mark.parametrize(
    ("interval_mm", "interp", "expected"),
    [
        (5.0, "exact", 2.0),
        (5.0, "native", 5.0),
        (5.0, "native-peer", 5.0),
        (1.9999999, "native", 1.9999999),
        (1.25, "native", 2.0),
        (math.nan, "native", 2.0),
        (math.inf, "native", 2.0),
    ],
)
def test_distance_of_the_slices_of_a_stack(interval_mm, interp, expected):
    assert stack_gap_mm(interval_mm, 2.0, interp) == expected


@pytest.mark.parametrize("interval_mm", [math.nan, -5.0, 0.0, math.inf])
@pytest.mark.parametrize("interp", INTERPOLATIONS)
def test_unknown_interval_repeats_the_key_slice(interval_mm, interp):
    assert plan_stack(7, interval_mm, {7, 8}, 3, interp=interp) == (((7, 1.0),),) * 3


def test_no_gap_repeats_the_key_slice():
    assert plan_stack(7, 1.0, EVERYWHERE, 5, gap_mm=0) == (((7, 1.0),),) * 5


def test_one_slice_is_the_key():
    assert plan_stack(7, 5.0, {7}, 1) == (((7, 1.0),),)


def test_ends_and_gaps_are_filled_from_the_key_side():
    # Wanted are 2, 4, 8 and 10: the series starts at 3, lacks 4 and 8, and ends at 9.
    plan = plan_stack(6, 1.0, {3, 5, 6, 7, 9}, 5)
    assert plan_indices(plan) == [3, 5, 6, 7, 9]
    assert [position[0][0] for position in plan] == [3, 5, 6, 7, 9]


def test_missing_neighbour_keeps_its_weight():
    # Offset 1.6 is 0.4 of slice 1 and 0.6 of slice 2; slice 2 is missing, so slice 1 gets all of it.
    plan = plan_stack(0, 1.25, {-2, -1, 0, 1}, 3)
    assert plan[2] == ((1, 1.0),)
    assert dict(plan[0]) == pytest.approx({-2: 0.6, -1: 0.4})


def test_rounding_does_not_split_a_slice():
    plan = plan_stack(0, 0.7, EVERYWHERE, 15)
    assert plan[-1] == ((20, 1.0),)


@given(
    interval_mm=st.floats(0.3, 12),
    half=st.integers(0, 6),
    present=st.sets(st.integers(-30, 30)),
    interp=st.sampled_from(INTERPOLATIONS),
)
def test_plans_hold_only_existing_slices_and_weights_sum_to_one(interval_mm, half, present, interp):
    available = present | {0}
    plan = plan_stack(0, interval_mm, available, 2 * half + 1, interp=interp)
    assert len(plan) == 2 * half + 1
    assert plan[half] == ((0, 1.0),)
    assert set(plan_indices(plan)) <= available
    for position in plan:
        assert sum(weight for _, weight in position) == pytest.approx(1)
        assert all(weight >= 0 for _, weight in position)


@given(interval_mm=st.floats(0.3, 12), half=st.integers(1, 6), interp=st.sampled_from(INTERPOLATIONS))
def test_plans_are_symmetric_and_move_outwards(interval_mm, half, interp):
    found = offsets(plan_stack(0, interval_mm, EVERYWHERE, 2 * half + 1, interp=interp))
    assert found == pytest.approx([-x for x in reversed(found)], abs=1e-5)
    assert all(later >= earlier - 1e-9 for earlier, later in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("num_slices", [0, 4, -1])
def test_even_counts_are_refused(num_slices):
    with pytest.raises(InputError, match=rf"num_slices is {num_slices}; allowed are odd numbers"):
        plan_stack(0, 1.0, {0}, num_slices)


def test_unknown_interpolation_is_refused():
    with pytest.raises(InputError, match=r"interp is 'cubic'; allowed are exact, peer, native, native-peer"):
        plan_stack(0, 1.0, {0}, 3, interp="cubic")


def test_missing_key_slice_is_refused():
    with pytest.raises(InputError, match=r"key slice 5 does not exist"):
        plan_stack(5, 1.0, {4, 6}, 3)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("shape", [(2, 3), (16, 16)])
def test_blend_is_the_weighted_sum(dtype, shape):
    rng = np.random.default_rng(0)
    slices = {index: rng.integers(-1024, 3071, shape).astype(dtype) for index in range(10)}
    plan = plan_stack(5, 1.25, range(10), 5)
    stack = blend_stack(plan, slices)
    assert stack.shape == (*shape, 5)
    assert stack.dtype == np.float32
    assert stack.flags.c_contiguous
    for channel, position in enumerate(plan):
        expected = sum(np.float64(weight) * slices[index] for index, weight in position)
        np.testing.assert_allclose(stack[..., channel], expected, atol=1e-3)


def test_blend_of_one_slice_keeps_three_axes():
    assert blend_stack((((0, 1.0),),), {0: np.ones((4, 5), np.int16)}).shape == (4, 5, 1)


def test_slices_of_different_size_are_refused():
    plan = (((0, 1.0),), ((1, 1.0),))
    with pytest.raises(InputError, match=r"slices \[0, 1\] of one series differ in size"):
        blend_stack(plan, {0: np.zeros((4, 5), np.int16), 1: np.zeros((5, 5), np.int16)})
