"""Platt scaling: the fit, and which boxes are hits."""

from __future__ import annotations

import math
import shlex

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from mmpluld.weights.calibration import BIAS_SD, MIN_SCALE, SCALE_SD, command_to_test, fit_platt, log_loss, mark_hits

NONE = np.zeros((0, 4))


def draw(count: int, scale: float, bias: float, seed: int = 0, centre: float = -3.0):
    """Margins of boxes, and hits with the probabilities that belong to a scale and a bias."""
    generator = np.random.default_rng(seed)
    margins = generator.normal(centre, 3.0, count)
    return margins, generator.random(count) < expit(scale * margins + bias)


def newton(margins, hits):
    """The same optimum by damped Newton steps, written out."""
    x = np.array([1.0, 0.0])
    design = np.stack([margins, np.ones(len(margins))], 1)
    prior = np.diag([1 / SCALE_SD**2, 1 / BIAS_SD**2])

    def value(x):
        z = design @ x
        off = x - [1, 0]
        return np.logaddexp(0, z).sum() - z[hits].sum() + off @ prior @ off / 2

    for _ in range(200):
        p = expit(design @ x)
        slope = design.T @ (p - hits) + prior @ (x - [1, 0])
        step = np.linalg.solve(design.T @ (design * (p * (1 - p))[:, None]) + prior, slope)
        rate = 1.0
        while value(x - rate * step) > value(x) and rate > 1e-9:
            rate /= 2
        x = x - rate * step
    return x


@pytest.mark.parametrize(("scale", "bias"), [(0.6, -1.5), (1.0, 0.0), (1.7, 2.0)])
def test_known_scale_and_bias_are_recovered(scale, bias):
    margins, hits = draw(40000, scale, bias)
    assert fit_platt(margins, hits) == pytest.approx((scale, bias), abs=0.06)
    assert 0 < log_loss(margins, hits, *fit_platt(margins, hits)) <= log_loss(margins, hits, scale, bias)


@pytest.mark.parametrize(
    ("count", "scale", "bias", "centre"),
    [(7, 0.8, -1.0, 0.0), (300, 0.5, -3.0, -6.0), (5000, 1.4, -2.0, -7.0), (900, 0.7, 5.0, 9.0)],
)
def test_solution_is_that_of_newton_steps(count, scale, bias, centre):
    margins, hits = draw(count, scale, bias, seed=count, centre=centre)
    wanted = newton(margins, hits)
    assert wanted[0] > MIN_SCALE
    assert fit_platt(margins, hits) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("count", [1, 30, 20000])
def test_no_hits_and_only_hits_stay_finite(count):
    margins = np.random.default_rng(0).normal(-2, 3, count)
    for hits, sign in ((np.zeros(count, bool), -1), (np.ones(count, bool), 1)):
        scale, bias = fit_platt(margins, hits)
        assert MIN_SCALE <= scale < 20
        assert 0 < sign * bias < 10 * BIAS_SD
        assert log_loss(margins, hits, scale, bias) < log_loss(margins, hits)


def test_without_boxes_the_prior_remains():
    assert fit_platt(np.zeros(0), np.zeros(0, bool)) == (1.0, 0.0)
    assert math.isnan(log_loss(np.zeros(0), np.zeros(0, bool)))


def test_separable_margins_stay_finite():
    margins = np.array([-4.0, -3.0, -2.0, 1.0, 2.0])
    scale, bias = fit_platt(margins, margins > 0)
    assert 1 < scale < 5
    assert abs(bias) < BIAS_SD


def test_misleading_scores_keep_their_order():
    margins, hits = draw(4000, -1.0, 0.0)
    assert fit_platt(margins, hits)[0] == MIN_SCALE


def test_log_loss_by_hand():
    assert log_loss(np.zeros(3), np.array([True, False, True])) == pytest.approx(math.log(2))
    # scale * 2 + bias = 1: sigmoid(1) for the hit, 1 - sigmoid(1) for the miss.
    p = 1 / (1 + math.exp(-1))
    assert log_loss(np.array([2.0, 2.0]), np.array([True, False]), 0.25, 0.5) == pytest.approx(
        -(math.log(p) + math.log(1 - p)) / 2
    )
    assert math.isfinite(log_loss(np.array([-1e4, 1e4]), np.array([True, False])))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-900, 160), st.booleans()), min_size=1, max_size=60))
def test_order_within_an_expert_is_unchanged(rows):
    margins, hits = np.array([row[0] / 10 for row in rows]), np.array([row[1] for row in rows])
    scale, bias = fit_platt(margins, hits)
    assert np.isfinite([scale, bias]).all()
    after = scale * margins + bias
    assert (np.sign(np.subtract.outer(after, after)) == np.sign(np.subtract.outer(margins, margins))).all()


def test_hits_by_hand():
    lesion = [10, 10, 20, 20]
    boxes = [
        np.array(
            [
                [10, 10, 20, 15],  # IoU 0.5 with the lesion, not its best box
                [10, 10, 20, 20],  # its best box
                [60, 60, 70, 70],  # beside everything
                [40, 40, 50, 50],  # on the ignored lesion
                [40, 40, 50, 44],  # IoU 0.4 with it
            ],
            dtype=float,
        ),
        NONE,
        np.array([[10, 10, 20, 15], [10, 10, 20, 14.9]]),  # IoU 0.5; just below it, and higher
    ]
    margins = [np.array([0.5, 3.0, 1.0, 2.0, -1.0]), np.zeros(0), np.array([-2.0, 4.0])]
    truth = [np.array([lesion], float), np.array([lesion], float), np.array([lesion], float)]
    ignored = [np.array([[40, 40, 50, 50.0]]), NONE, NONE]
    found, hits = mark_hits(boxes, margins, truth, ignored)
    assert found.tolist() == [4.0, 3.0, 1.0, 0.5, -1.0, -2.0]
    assert hits.tolist() == [False, True, False, False, False, True]


def test_no_boxes_no_hits():
    found, hits = mark_hits([NONE], [np.zeros(0)], [np.array([[0, 0, 1, 1.0]])], [NONE])
    assert found.shape == hits.shape == (0,)


def test_command_to_go_on_with_is_of_the_same_config():
    command = command_to_test("lens", "my out.pth", ["data_root=my data"], twin=True)
    wanted = ["--twin", "--cfg-options", "data_root=my data", "model.test_cfg.rcnn.calibrated=True"]
    assert shlex.split(command) == ["mmpluld", "test", "lens", "my out.pth", *wanted]
