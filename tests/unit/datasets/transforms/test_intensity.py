"""WindowHU and CurveHU against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mmpluld.datasets.transforms import CurveHU, JitterHU, WindowHU
from mmpluld.errors import InputError


def test_default_window():
    hu = np.array([[-32768, -1024, 513, 2050, 32767]], np.float32)
    found = WindowHU()({"img": hu[..., None]})["img"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, :, 0], [-50, -50, 77.5, 205, 205], atol=1e-4)


def test_other_window_and_range():
    image = np.array([-175, 50, 275], np.int16).reshape(1, 3, 1)
    found = WindowHU((-175, 275), (-1, 1), 0)({"img": image})["img"]
    np.testing.assert_allclose(found.ravel(), [-1, 0, 1], atol=1e-6)


def test_the_array_it_was_given_is_left_alone():
    image = np.full((2, 2, 3), 100, np.float32)
    WindowHU()({"img": image})
    assert (image == 100).all()


def test_empty_image():
    assert WindowHU()({"img": np.zeros((0, 0, 7), np.float32)})["img"].shape == (0, 0, 7)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"window_hu": (100, 100)}, "window_hu"),
        ({"window_hu": (100, float("nan"))}, "window_hu"),
        ({"window_hu": (1, 2, 3)}, "window_hu"),
        ({"out_range": (255, 0)}, "out_range"),
    ],
)
def test_ranges_are_checked(settings, name):
    with pytest.raises(InputError, match=rf"{name} is .*; needed are two ascending numbers"):
        WindowHU(**settings)


def test_jitter_changes_shade_and_noise():
    image = np.linspace(-1000, 1000, 32 * 32 * 3, dtype=np.float32).reshape(32, 32, 3)
    found = [JitterHU(shift_hu=30, scale=0.2)({"img": image})["img"] for _ in range(20)]
    for one in found:
        slope, shift = np.polyfit(image.ravel(), one.ravel(), 1)
        assert 0.8 <= slope <= 1.2 and abs(shift) <= 30.1
        np.testing.assert_allclose(one, slope * image + shift, atol=0.01)
    assert len({float(one[0, 0, 0]) for one in found}) == 20
    noise = [float(np.std(JitterHU(noise_hu=20)({"img": image})["img"] - image)) for _ in range(20)]
    assert max(noise) <= 21 and max(noise) > 2 * min(noise)
    assert JitterHU()({"img": image})["img"].tolist() == image.tolist()


def test_faulty_jitter():
    for settings in ({"scale": 1.0}, {"shift_hu": -1}, {"noise_hu": float("nan")}):
        with pytest.raises(InputError, match="JitterHU: "):
            JitterHU(**settings)


def test_curve_has_its_corners_and_straight_lines_between():
    image = np.array([-2000, -1000, -600, -200, 0, 200, 3000], np.int16).reshape(1, 7, 1)
    found = CurveHU((-1000, -200, 200), (0, 40, 240))({"img": image})["img"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.ravel(), [0, 0, 20, 40, 140, 240, 240], atol=1e-4)
    assert image.min() == -2000


@pytest.mark.parametrize(
    ("hu", "grey"),
    [((0,), (1,)), ((0, 0), (0, 1)), ((0, 1), (1, 0)), ((0, 1, 2), (0, 1)), ((0, float("inf")), (0, 1))],
)
def test_curve_that_is_none_is_refused(hu, grey):
    with pytest.raises(InputError, match="CurveHU"):
        CurveHU(hu, grey)
