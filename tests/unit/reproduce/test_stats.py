"""Intervals and tests over seeds and patients, against hand-computed values and simulations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import DEEPLESION_2D, bootstrap_sensitivity, match_detections
from mmpluld.reproduce.stats import Sample, paired_difference, sample_detector, t_interval


def test_t_interval_by_hand():
    # sd 1, three seeds, t(0.975, 2) = 4.302653: half width 4.302653 / sqrt(3).
    mean, low, high = t_interval([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    np.testing.assert_allclose(mean, [2, 5])
    np.testing.assert_allclose(low, [2 - 2.484138, 5], atol=1e-6)
    np.testing.assert_allclose(high, [2 + 2.484138, 5], atol=1e-6)


def test_one_seed_has_no_interval_and_none_is_refused():
    mean, low, high = t_interval([0.5])
    assert mean == 0.5
    assert np.isnan([low, high]).all()
    with pytest.raises(InputError, match="at least one value"):
        t_interval([])


@pytest.mark.parametrize("seeds", [3, 5])
def test_t_interval_covers_the_truth_as_often_as_it_says(seeds):
    values = np.random.default_rng(0).normal(0.7, 0.02, (seeds, 4000))
    _, low, high = t_interval(values)
    assert np.mean((low <= 0.7) & (high >= 0.7)) == pytest.approx(0.95, abs=0.012)


def sample(observed: float, drawn: list[float], patients: int = 11) -> Sample:
    return Sample(np.array([observed]), np.array(drawn)[:, None], patients)


def test_difference_by_hand():
    first = [sample(0.8, [0.7, 0.8, 0.9]), sample(0.7, [0.6, 0.7, 0.8])]
    second = [sample(0.6, [0.6, 0.6, 0.6]), sample(0.6, [0.5, 0.6, 0.7])]
    result = paired_difference(first, second)
    # Differences of the seeds 0.2 and 0.1; of the draws, over seeds, 0.1, 0.15, 0.2.
    assert result.value[0] == pytest.approx(0.15)
    assert result.se_seeds[0] == pytest.approx(0.05)
    assert result.se_patients[0] == pytest.approx(0.05)
    # se^2 = 0.005, freedom = 0.005^2 / (0.05^4 / 10 + 0.05^4 / 1) = 3.636364; t(0.975) there is 2.890.
    half = (result.high - result.low)[0] / 2
    assert half == pytest.approx(2.890 * 0.005**0.5, rel=1e-3)
    assert result.low[0] == pytest.approx(0.15 - half)
    assert result.seeds == 2
    assert 0.05 < result.p_value[0] < 0.15  # |t| = 2.12 with 3.6 degrees of freedom
    assert result.detectable[0] > half


def test_equal_rows_differ_by_nothing():
    row = [sample(0.8, [0.7, 0.8, 0.9]), sample(0.7, [0.6, 0.7, 0.8])]
    result = paired_difference(row, row)
    assert result.value[0] == result.low[0] == result.high[0] == 0
    assert result.p_value[0] == 1


def test_one_seed_uses_the_patients_alone():
    result = paired_difference([sample(0.8, [0.7, 0.8, 0.9])], [sample(0.6, [0.6, 0.6, 0.6])])
    assert result.se_seeds[0] == 0
    assert result.se_patients[0] == pytest.approx(0.1)


def test_draws_without_lesions_are_left_out():
    result = paired_difference([sample(0.8, [0.7, np.nan, 0.9])], [sample(0.6, [0.6, np.nan, 0.6])])
    assert result.se_patients[0] == pytest.approx(0.2 / 2**0.5)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([sample(1, [1, 1])], [], "1 seeds against 0"),
        ([], [], "0 seeds against 0"),
        ([sample(1, [1, 1])], [sample(1, [1, 1, 1])], "other draws or patients"),
        ([sample(1, [1, 1])], [sample(1, [1, 1], 12)], "other draws or patients"),
        ([sample(1, [1, 1], 1)], [sample(1, [1, 1], 1)], "1 test patient; a bootstrap over patients needs at least 2"),
        ([sample(1, [1, np.nan])], [sample(1, [1, 1])], "1 usable draws"),
    ],
)
def test_unusable_pairs_are_refused(first, second, message):
    with pytest.raises(InputError, match=message):
        paired_difference(first, second)


def simulated(rng, seeds, patients, effect, sd_seed, sd_patient, sd_both, draws):
    """Two rows whose true difference is ``effect``, with luck of seeds, patients, and of both together."""
    rows = []
    shared = rng.normal(0.7, 0.2, patients)
    resampled = rng.integers(patients, size=(draws, patients))
    for mean in (effect, 0.0):
        own = rng.normal(0, sd_patient, patients)
        row = []
        for _ in range(seeds):
            luck = rng.normal(0, sd_seed) + rng.normal(0, sd_both, patients)
            values = mean + shared + own + luck
            row.append(Sample(np.array([values.mean()]), values[resampled].mean(axis=1)[:, None], patients))
        rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("sd_seed", "sd_patient", "sd_both"),
    [(0.0, 0.2, 0.0), (0.02, 0.1, 0.0), (0.02, 0.0, 0.0), (0.01, 0.1, 0.3), (0.0, 0.0, 0.3)],
)
def test_interval_covers_and_null_p_is_no_smaller_than_it_should_be(sd_seed, sd_patient, sd_both):
    rng = np.random.default_rng(1)
    effect, p_values, covered = 0.03, [], 0
    for _ in range(300):
        result = paired_difference(*simulated(rng, 3, 60, effect, sd_seed, sd_patient, sd_both, draws=100))
        covered += bool(result.low[0] <= effect <= result.high[0])
        null = paired_difference(*simulated(rng, 3, 60, 0.0, sd_seed, sd_patient, sd_both, draws=100))
        p_values.append(null.p_value[0])
    assert covered / 300 >= 0.91  # 0.95 less three standard errors of the simulation
    assert np.mean(np.array(p_values) < 0.05) <= 0.08
    assert np.mean(np.array(p_values) < 0.5) >= 0.25  # not so wide that nothing is ever found


def test_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(2)
    setting = {"seeds": 3, "patients": 60, "sd_seed": 0.0, "sd_patient": 0.2, "sd_both": 0.0, "draws": 100}
    size = np.mean([paired_difference(*simulated(rng, effect=0.0, **setting)).detectable[0] for _ in range(50)])
    found = [paired_difference(*simulated(rng, effect=size, **setting)).p_value[0] < 0.05 for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_swapping_the_rows_turns_the_sign(pairs, seed):
    rng = np.random.default_rng(seed)
    first, second = ([sample(value, list(rng.random(20))) for value in column] for column in zip(*pairs, strict=True))
    one, other = paired_difference(first, second), paired_difference(second, first)
    np.testing.assert_allclose(one.value, -other.value)
    np.testing.assert_allclose(one.low, -other.high)
    np.testing.assert_allclose(one.p_value, other.p_value)
    assert (one.low <= one.value).all()


def test_sample_of_a_detector_agrees_with_the_bootstrap_interval():
    rng = np.random.default_rng(3)
    truth = [[[10.0, 10, 30, 30]] for _ in range(40)]
    found = [[[10.0, 10, 30, 30], [60, 60, 80, 80]] if rng.random() < 0.6 else [[60.0, 60, 80, 80]] for _ in truth]
    scores = [rng.random(len(boxes)) for boxes in found]
    patients = [index // 4 for index in range(40)]
    matches = match_detections(found, scores, truth, DEEPLESION_2D)
    result = sample_detector(matches, patients, DEEPLESION_2D, resamples=200, seed=5)
    interval = bootstrap_sensitivity(matches, patients, DEEPLESION_2D, resamples=200, seed=5)
    assert result.num_patients == 10
    assert result.drawn.shape == (200, 7)
    np.testing.assert_allclose(result.observed, [*interval.value, interval.average])
    np.testing.assert_allclose(np.quantile(result.drawn[:, -1], 0.025), interval.average_low)
    np.testing.assert_allclose(np.quantile(result.drawn[:, :-1], 0.975, axis=0), interval.high)
