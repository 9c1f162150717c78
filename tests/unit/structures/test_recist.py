"""RECIST diameters of masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.structures import measure_recist, recist_ends, recist_lengths

ISOTROPIC = (1.0, 1.0)


def rectangle(height: int, width: int, top: int = 3, left: int = 4) -> np.ndarray:
    mask = np.zeros((top + height + 5, left + width + 6), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def ellipse(long: float, short: float, degrees: float, spacing_yx=ISOTROPIC, size: int = 120) -> np.ndarray:
    """Pixels whose centre lies in an ellipse with these axes in mm, about the middle of the image."""
    y, x = (np.indices((size, size)) + 0.5 - size / 2) * np.array(spacing_yx)[:, None, None]
    angle = math.radians(degrees)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return (2 * u / long) ** 2 + (2 * v / short) ** 2 <= 1


def test_single_pixel_is_as_long_and_wide_as_its_sides():
    found = measure_recist(rectangle(1, 1), (2.0, 0.5))
    assert (found.long_mm, found.short_mm) == pytest.approx((2.0, 0.5))
    assert found.ends == pytest.approx((4.5, 3, 4.5, 4, 4, 3.5, 5, 3.5)) or found.ends == pytest.approx(
        (4.5, 4, 4.5, 3, 4, 3.5, 5, 3.5)
    )


def test_bar_of_n_pixels_is_n_long():
    found = measure_recist(rectangle(1, 9), (0.7, 0.8))
    assert (found.long_mm, found.short_mm) == pytest.approx((9 * 0.8, 0.7))


@pytest.mark.parametrize(("height", "width"), [(4, 7), (10, 30), (20, 21)])
def test_rectangle(height, width):
    # From the middle of a pixel side on the left edge's first pixel to that of the right edge's last.
    found = measure_recist(rectangle(height, width), ISOTROPIC)
    assert found.long_mm == pytest.approx(math.hypot(width, height - 1))
    # The chord across it hits both long sides, unless the rectangle is nearly square.
    if width > 2 * height:
        assert found.short_mm == pytest.approx(height * math.hypot(width, height - 1) / width, abs=1e-6)


@pytest.mark.parametrize("degrees", [0, 17, 30, 45, 90, 131])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.8, 0.8), (1.5, 0.6)])
def test_rotated_ellipse(degrees, spacing):
    found = measure_recist(ellipse(40.0, 22.0, degrees, spacing), spacing)
    assert found.long_mm == pytest.approx(40.0, abs=0.75 * max(spacing))
    assert found.short_mm == pytest.approx(22.0, abs=1.0 * max(spacing))


def test_shares_of_pixels_are_measured_below_a_pixel():
    y, x = np.indices((60, 60)) + 0.5
    share = np.clip(0.5 + 12.3 - np.hypot(y - 30.2, x - 29.7), 0, 1)
    found = measure_recist(share, ISOTROPIC)
    assert (found.long_mm, found.short_mm) == pytest.approx((24.6, 24.6), abs=0.2)


def test_largest_part_counts():
    mask = rectangle(6, 12)
    mask[0, 0] = True
    assert measure_recist(mask, ISOTROPIC) == measure_recist(rectangle(6, 12), ISOTROPIC)


def test_origin_moves_the_ends_only():
    here, there = measure_recist(rectangle(5, 8), ISOTROPIC), measure_recist(rectangle(5, 8), ISOTROPIC, (100, 7))
    assert (there.long_mm, there.short_mm) == (here.long_mm, here.short_mm)
    assert np.reshape(there.ends, (4, 2)) - np.reshape(here.ends, (4, 2)) == pytest.approx(np.tile([100, 7], (4, 1)))


def test_nothing_inside():
    assert measure_recist(np.zeros((5, 5), dtype=bool), ISOTROPIC) is None
    assert measure_recist(np.full((5, 5), 0.49), ISOTROPIC) is None
    assert recist_ends(np.zeros((5, 5))) is None


@pytest.mark.parametrize(
    ("mask", "spacing", "message"),
    [
        (np.ones((2, 3, 3)), ISOTROPIC, r"shape \(2, 3, 3\); needed is one slice"),
        (np.ones((3, 3)), (1.0, 0.0), "two positive numbers of mm"),
        (np.ones((3, 3)), (math.nan, 1.0), "two positive numbers of mm"),
        (np.ones((3, 3)), (1.0, 1.0, 1.0), "two positive numbers of mm"),
    ],
)
def test_bad_input(mask, spacing, message):
    with pytest.raises(InputError, match=message):
        measure_recist(mask, spacing)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3), st.floats(0.3, 3))
def test_properties(seed, spacing_y, spacing_x):
    """Ends tell the lengths, the diameters are perpendicular, none exceeds the extent, turning the mask turns them."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((16, 18), dtype=bool)
    top, left = rng.integers(1, 8, 2)
    mask[top : top + rng.integers(1, 8), left : left + rng.integers(1, 9)] = True
    mask &= rng.random(mask.shape) < 0.9
    found = measure_recist(mask, (spacing_y, spacing_x))
    if found is None:
        assert not mask.any()
        return
    assert recist_lengths(found.ends, (spacing_y, spacing_x)) == pytest.approx((found.long_mm, found.short_mm))
    assert 0 < found.short_mm <= found.long_mm + 1e-9
    points = np.reshape(found.ends, (2, 2, 2)) * [spacing_x, spacing_y]
    (long, short) = points[:, 1] - points[:, 0]
    assert abs(long @ short) <= 1e-6 * found.long_mm * max(found.short_mm, 1e-3)
    rows, columns = np.nonzero(mask)
    extent = math.hypot((np.ptp(rows) + 1) * spacing_y, (np.ptp(columns) + 1) * spacing_x)
    assert found.long_mm <= extent + 1e-9
    turned = measure_recist(mask.T, (spacing_x, spacing_y))
    assert turned.long_mm == pytest.approx(found.long_mm, abs=1e-4)  # lengths this near are taken for equal


def test_lengths_of_a_mark():
    assert recist_lengths((0, 0, 3, 4, 1, 1, 1, 3), (1.0, 1.0)) == pytest.approx((5.0, 2.0))
    assert recist_lengths((0, 0, 3, 4, 1, 1, 1, 3), (0.5, 2.0)) == pytest.approx((math.hypot(6, 2), 1.0))
    assert np.isnan(recist_lengths((0, 0, 3, 4, 1, 1, 1, 3), (math.nan, math.nan))).all()


@pytest.mark.parametrize("shape", [(9, 9), (6, 11)])
def test_equal_diameters_are_not_told_apart_by_rounding(shape):
    """A rectangle has two diagonals, and chords of one length over a part of them."""
    mask = np.zeros((20, 20))
    mask[3 : 3 + shape[0], 4 : 4 + shape[1]] = 1
    wanted = measure_recist(mask, (0.7, 0.7))
    draw = np.random.default_rng(0)
    for _ in range(50):
        noisy = np.clip(mask + draw.normal(0, 1e-7, mask.shape), 0, 1)
        assert measure_recist(noisy, (0.7, 0.7)).ends == pytest.approx(wanted.ends, abs=1e-4)
