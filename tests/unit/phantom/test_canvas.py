from __future__ import annotations

import numpy as np
import pytest

from mmpluld.phantom.canvas import BodyFrame, Canvas, Capsules, SmoothField


def _canvas(count: int = 41, step: float = 1.0) -> Canvas:
    axis = ((np.arange(count) - count // 2) * step).astype(np.float32)
    y, x = np.broadcast_to(axis[:, None], (count, count, count)), np.broadcast_to(axis, (count, count, count))
    still = np.zeros(y.shape, np.float32)
    return Canvas(axis, axis, axis, axis[:, None, None], y.copy(), x.copy(), still, still, step, 0.0)


def test_ellipsoid_has_its_volume_and_value() -> None:
    canvas = _canvas()
    canvas.ellipsoid((0, 0, 0), (10, 10, 10), 0.0)
    assert canvas.hu[20, 20, 20] == 0.0
    assert canvas.hu[0, 0, 0] == -1000.0
    volume = float((canvas.hu / 1000 + 1).sum())
    assert volume == pytest.approx(4 / 3 * np.pi * 1000, rel=0.01)


def test_a_shape_outside_the_block_changes_nothing() -> None:
    canvas = _canvas()
    assert canvas.ellipsoid((200, 0, 0), (5, 5, 5), 50.0) is None
    canvas.tubes(Capsules.chain([(0, 0, 100), (0, 0, 200)], 5.0), 50.0)
    assert np.unique(canvas.hu).tolist() == [-1000.0]


def test_capsule_distance_matches_the_definition_by_sampling() -> None:
    capsules = Capsules.chain([(1, 2, 3), (9, -4, 6)], [2.0, 1.0])
    point = np.array([5.0, 5.0, 1.0], np.float32)
    t = np.linspace(0, 1, 20001)[:, None]
    axis_points = capsules.starts[0] + t * (capsules.ends[0] - capsules.starts[0])
    nearest = np.linalg.norm(axis_points - point, axis=1).argmin()
    expected = np.linalg.norm(axis_points[nearest] - point) - (2.0 - t[nearest, 0])
    x, y, z = (np.full((1, 1, 1), value, np.float32) for value in point)
    assert capsules.distance(0, z, y, x).item() == pytest.approx(expected, abs=1e-3)


def test_gas_lies_in_front() -> None:
    canvas = _canvas()
    canvas.hollow(Capsules.chain([(0, 0, -10), (0, 0, 10)], 10.0), 2.0, 70.0, 30.0, air_y=0.0)
    assert canvas.hu[20, 15, 20] < -800  # anterior: smaller y
    assert canvas.hu[20, 25, 20] == pytest.approx(30.0)
    assert canvas.hu[20, 29, 20] == pytest.approx(70.0), "the wall"


def test_smooth_field_is_smooth_and_of_unit_variance() -> None:
    field = SmoothField(np.random.default_rng(0), 20.0)
    axis = np.linspace(-100, 100, 101).astype(np.float32)
    values = field.on_axes(np.linspace(100, 500, 101).astype(np.float32), axis, axis)
    assert values.shape == (101, 101, 101)
    assert 0.8 < values.std() < 1.2
    steps = np.diff(values, axis=2)
    assert steps.std() < 0.2  # 2 mm steps against 20 mm between control points
    assert np.abs(np.diff(steps, axis=2)).max() < 0.3


def _posture(roll: float, breath_mm: float) -> BodyFrame:
    rng = np.random.default_rng(0)
    return BodyFrame((1.0, 0.95, 1.05), SmoothField(rng, 60.0), SmoothField(rng, 60.0), 3.0, roll, breath_mm)


def test_a_rolled_body_is_turned_by_that_angle() -> None:
    straight, rolled = _posture(0.0, 0.0), _posture(0.1, 0.0)
    z, axis = np.array([100.0], np.float32), np.linspace(-150, 150, 7).astype(np.float32)
    _, y0, x0 = straight.coordinates(z, axis, axis)
    _, y1, x1 = rolled.coordinates(z, axis, axis)
    _, ys, xs = straight.axes(z, axis, axis)
    # What turns is the body, not its deformation.
    expected_x = np.cos(0.1) * xs + np.sin(0.1) * ys[:, None]
    expected_y = np.cos(0.1) * ys[:, None] - np.sin(0.1) * xs
    assert x1[0] - (x0[0] - xs) == pytest.approx(expected_x, abs=1e-3)
    assert y1[0] - (y0[0] - ys[:, None]) == pytest.approx(expected_y, abs=1e-3)


def test_breath_moves_the_diaphragm_most_and_never_folds_the_body() -> None:
    heights = np.arange(0, 620, dtype=np.float32)
    for breath in (-14.0, 14.0):
        moved, _, _ = _posture(0.0, breath).axes(heights, heights, heights)
        assert np.abs(moved - heights).argmax() == 230
        assert (moved - heights)[230] == pytest.approx(breath)
        assert (np.diff(moved) > 0.5).all()


def test_windows_of_a_rolled_body_hold_every_shape() -> None:
    frame = _posture(0.1, 8.0)
    z, axis = np.arange(180, 240, 3, dtype=np.float32), np.linspace(-180, 180, 97).astype(np.float32)
    still = np.zeros((len(z), 97, 97), np.float32)

    def painted(slack_mm: float) -> np.ndarray:
        parts = (*frame.axes(z, axis, axis), *frame.coordinates(z, axis, axis))
        canvas = Canvas(*parts, still, still, 3.75, slack_mm, frame.roll)
        canvas.ellipsoid((120, -60, 215), (12, 6, 10), 50.0, turn=0.5)
        canvas.ellipsoid((-140, 50, 210), (9, 9, 9), 100.0)
        canvas.tubes(Capsules.chain([(-100, -100, 190), (130, 90, 235)], 5.0), 200.0)
        return canvas.hu

    assert (painted(4 * frame.warp_mm) == painted(500.0)).all()
