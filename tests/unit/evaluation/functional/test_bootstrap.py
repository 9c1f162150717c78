from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import (
    DEEPLESION_2D,
    Matches,
    bootstrap_difference,
    bootstrap_ratio,
    bootstrap_sensitivity,
    match_detections,
    sensitivity_at,
)

LESION = [0.0, 0, 10, 10]


def detector(seed: int, skill: float, images: int = 40) -> Matches:
    """One lesion per image, found with probability ``skill`` among three false positives."""
    rng = np.random.default_rng(seed)
    boxes, scores = [], []
    for _ in range(images):
        hit = rng.random() < skill
        boxes.append([[50.0 * (i + 1), 0, 50.0 * (i + 1) + 9, 9] for i in range(3)] + [LESION] * hit)
        scores.append([*rng.random(3), *([rng.random() + 0.3] * hit)])
    return match_detections(boxes, scores, [[LESION]] * images, DEEPLESION_2D)


def test_one_draw_is_the_weighted_sensitivity() -> None:
    """Against the weights that the seed gives, for two images a patient."""
    matches = detector(0, 0.7)
    patients = [f"p{i // 2}" for i in range(40)]
    draws = np.bincount(np.random.default_rng(3).integers(20, size=20), minlength=20)
    expected = sensitivity_at(matches, DEEPLESION_2D.levels, weights=draws[np.arange(40) // 2])
    interval = bootstrap_sensitivity(matches, patients, DEEPLESION_2D, resamples=1, seed=3)
    assert np.array_equal(interval.low, expected)
    assert np.array_equal(interval.high, expected)


def test_draws_that_need_all_false_positives() -> None:
    """One patient has all false positives, so some draws accept each of them and some hardly any."""
    crowded = [[[20.0 * i, 50, 20.0 * i + 9, 59] for i in range(1, 500)] + [LESION]]
    boxes = [[LESION]] * 100 + crowded
    scores = [[0.0]] * 100 + [[*np.linspace(1, 2, 499), 1.5]]
    matches = match_detections(boxes, scores, [[LESION]] * 101, replace(DEEPLESION_2D))
    patients = ["a"] * 100 + ["b"]
    for seed in range(6):
        draws = np.bincount(np.random.default_rng(seed).integers(2, size=2), minlength=2)
        expected = sensitivity_at(matches, DEEPLESION_2D.levels, weights=np.repeat(draws, [100, 1]))
        interval = bootstrap_sensitivity(matches, patients, DEEPLESION_2D, resamples=1, seed=seed)
        assert np.array_equal(interval.low, expected)


def test_interval_holds_the_value_and_repeats() -> None:
    matches = detector(0, 0.6)
    interval = bootstrap_sensitivity(matches, range(40), DEEPLESION_2D, resamples=300, seed=1)
    assert np.array_equal(interval.value, sensitivity_at(matches, DEEPLESION_2D.levels))
    assert (interval.low <= interval.value).all()
    assert (interval.value <= interval.high).all()
    assert interval.average_low < interval.average < interval.average_high
    again = bootstrap_sensitivity(matches, range(40), DEEPLESION_2D, resamples=300, seed=1)
    assert np.array_equal(interval.low, again.low)
    other = bootstrap_sensitivity(matches, range(40), DEEPLESION_2D, resamples=300, seed=2)
    assert interval.average_low != other.average_low


def test_width_is_that_of_a_binomial() -> None:
    """Without false positives sensitivity is a mean of independent hits, with a known standard error."""
    images = 400
    boxes = [[LESION] if i % 4 else [] for i in range(images)]
    matches = match_detections(boxes, [[1.0] * len(b) for b in boxes], [[LESION]] * images, DEEPLESION_2D)
    interval = bootstrap_sensitivity(matches, range(images), DEEPLESION_2D, resamples=2000)
    expected = 2 * 1.96 * np.sqrt(0.75 * 0.25 / images)
    assert interval.high[0] - interval.low[0] == pytest.approx(expected, rel=0.1)


def test_images_of_one_patient_move_together() -> None:
    """All images of one patient: every draw is the whole data set, so the interval has no width."""
    matches = detector(0, 0.6)
    interval = bootstrap_sensitivity(matches, ["same"] * 40, DEEPLESION_2D, resamples=20)
    assert np.array_equal(interval.low, interval.high)


def test_difference_of_a_detector_with_itself_is_nothing() -> None:
    matches = detector(0, 0.6)
    interval = bootstrap_difference(matches, matches, range(40), DEEPLESION_2D, resamples=50)
    assert not interval.low.any()
    assert not interval.high.any()
    assert interval.p_value == 1


def test_difference_of_unlike_detectors_is_seen() -> None:
    interval = bootstrap_difference(detector(0, 0.9), detector(0, 0.2), range(40), DEEPLESION_2D, resamples=300)
    assert interval.average_low > 0
    assert interval.p_value is not None
    assert interval.p_value < 0.05
    swapped = bootstrap_difference(detector(0, 0.2), detector(0, 0.9), range(40), DEEPLESION_2D, resamples=300)
    assert swapped.average == -interval.average
    assert swapped.p_value == interval.p_value


def test_no_lesions_give_nan() -> None:
    matches = match_detections([[LESION]], [[0.5]], [[]], DEEPLESION_2D)
    interval = bootstrap_sensitivity(matches, ["a"], DEEPLESION_2D, resamples=5)
    assert np.isnan(interval.low).all()
    assert np.isnan(interval.average)


def test_bad_arguments_are_refused() -> None:
    matches = detector(0, 0.6)
    with pytest.raises(InputError, match="3 patients for 40 images"):
        bootstrap_sensitivity(matches, range(3), DEEPLESION_2D)
    with pytest.raises(InputError, match="-1 bootstrap resamples; at least 1"):
        bootstrap_sensitivity(matches, range(40), DEEPLESION_2D, resamples=-1)
    with pytest.raises(InputError, match=r"confidence is 95; it must lie in \(0, 1\)"):
        bootstrap_sensitivity(matches, range(40), DEEPLESION_2D, resamples=2, confidence=95)
    with pytest.raises(InputError, match="match both against the same lesions"):
        bootstrap_difference(matches, detector(0, 0.6, images=39), range(40), DEEPLESION_2D)


def test_share_of_patients_together():
    share, low, high = bootstrap_ratio([3, 0, 1], [4, 2, 2], resamples=2000, seed=1)
    assert share == 0.5
    # All three of one patient are the extremes: 0 of 6 and 9 of 12, each with 1 chance in 27.
    assert (low, high) == (0.0, 0.75)
    assert bootstrap_ratio([3, 0, 1], [4, 2, 2], resamples=2000, seed=1) == (share, low, high)
    assert bootstrap_ratio([2, 2], [4, 4], resamples=20) == (0.5, 0.5, 0.5)
    assert np.isnan(bootstrap_ratio([0, 0], [0, 0])).all()
    # Draws of the second patient alone count out of nothing.
    assert bootstrap_ratio([1, 0], [2, 0], resamples=50) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"resamples": 0}, "0 bootstrap resamples"), ({"confidence": 1}, "confidence is 1")],
)
def test_settings_of_a_share(settings, message):
    with pytest.raises(InputError, match=message):
        bootstrap_ratio([1], [2], **settings)
