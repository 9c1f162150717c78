from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmpluld.phantom.radiologist import MIN_LONG_MM, measure


def _ellipse(a: float, b: float, angle: float = 0.0, size: int = 61, centre: float = 30.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - centre
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    rho = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    return np.clip(0.5 - (rho - 1) * min(a, b), 0, 1).astype(np.float32)


def test_an_ellipse_along_the_axes_is_measured_exactly() -> None:
    result = measure(_ellipse(12, 6), (100, 200), 1.0, 5.0, 512)
    assert result is not None
    assert result.long_px == pytest.approx(24, abs=0.2)
    assert result.short_px == pytest.approx(12, abs=0.3)
    # The centre of pixel (row 130, column 230) is at 230.5, 130.5 in edge coordinates; padding adds 5.5 there.
    assert result.box == pytest.approx((230.5 - 17.5, 130.5 - 11.5, 230.5 + 17.5, 130.5 + 11.5), abs=0.3)


def test_absent_and_tiny_lesions_are_not_measured() -> None:
    assert measure(np.zeros((5, 5), np.float32), (0, 0), 1.0, 5.0, 64) is None
    assert measure(np.zeros((0, 5), np.float32), (0, 0), 1.0, 5.0, 64) is None
    small = _ellipse(1.5, 1.5)
    assert measure(small, (0, 0), MIN_LONG_MM / 4, 5.0, 64) is None
    assert measure(small, (0, 0), MIN_LONG_MM, 5.0, 64) is not None


def test_boxes_are_cut_at_the_border() -> None:
    result = measure(_ellipse(12, 12, size=40, centre=14.0), (0, 0), 1.0, 5.0, 40)
    assert result is not None
    assert result.box[:2] == (0.0, 0.0)
    assert max(result.box) <= 40


@settings(max_examples=40)
@given(st.floats(3, 14), st.floats(0.45, 1.0), st.floats(0, 3.1))
@example(3.0, 0.99999, 2.0)  # the diameters differ by less than what is taken for equal
def test_short_is_perpendicular_to_and_no_longer_than_long(a: float, ratio: float, angle: float) -> None:
    result = measure(_ellipse(a, a * ratio, angle), (0, 0), 1.0, 5.0, 61)
    assert result is not None
    ends = np.array(result.recist).reshape(4, 2)
    long, short = ends[1] - ends[0], ends[3] - ends[2]
    assert np.linalg.norm(long) == pytest.approx(result.long_px, abs=1e-3)
    assert np.linalg.norm(short) == pytest.approx(result.short_px, abs=1e-3)
    assert result.short_px <= result.long_px + 1e-6
    cosine = long @ short / np.linalg.norm(long) / np.linalg.norm(short)
    assert abs(cosine) < 1e-3
    assert result.long_px == pytest.approx(2 * a, abs=0.6)
