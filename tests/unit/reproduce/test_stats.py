"""Intervals and tests over seeds and patients, against hand-computed values and simulated tables."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import DEEPLESION_2D, bootstrap_sensitivity, match_detections, sensitivity_at
from mmpluld.reproduce.stats import (
    Sample,
    Spread,
    compare,
    mean_interval,
    pool_runs,
    sample_detector,
    seeds_needed,
)

MARGIN = 0.02


def sample(observed: float, drawn: list[float], patients: int = 11) -> Sample:
    return Sample(np.array([observed]), np.array(drawn)[:, None], patients)


def runs(*observed: float) -> list[Sample]:
    """Seeds of a row whose patients are all alike."""
    return [sample(value, [value] * 3) for value in observed]


def between(first, second, others=(), **options):
    """The comparison of two rows of a table with some other rows."""
    pool = pool_runs([first, second, *others])
    return compare(first, second, (pool.row(0), pool.row(1)), MARGIN, **options)


def test_variance_is_pooled_over_rows_by_their_freedom():
    pool = pool_runs([runs(0.1, 0.2, 0.3), runs(0.5, 0.7), runs(0.4), []])
    # Squares about the means: 0.02 and 0.02, with 2 and 1 degrees of freedom.
    assert pool.variance[0] == pytest.approx(0.04 / 3)
    assert pool.freedom[0] == 3
    assert pool.luck[0] == pytest.approx(0)
    assert not pool.odd.any()


def test_row_interval_by_hand():
    # Pooled variance 0.04 / 3, t(0.975, 3) = 3.182446: half width 3.182446 * sqrt(0.04 / 3 / n).
    pool = pool_runs([runs(0.1, 0.2, 0.3), runs(0.5, 0.7), runs(0.4)])
    for index, values in enumerate(([0.1, 0.2, 0.3], [0.5, 0.7], [0.4])):
        mean, low, high = mean_interval(np.array(values)[:, None], pool.row(index))
        half = 3.182446 * (0.04 / 3 / len(values)) ** 0.5
        np.testing.assert_allclose([low[0], high[0]], [mean[0] - half, mean[0] + half], rtol=1e-5)


def test_one_seed_in_all_rows_has_no_interval_and_none_is_refused():
    pool = pool_runs([runs(0.5), runs(0.6), []])
    mean, low, high = mean_interval([[0.5]], pool.row(0))
    assert mean == 0.5
    assert np.isnan([low, high]).all()
    with pytest.raises(InputError, match="at least one value"):
        mean_interval([], pool.row(0))
    with pytest.raises(InputError, match="no row of the table has a finished run"):
        pool_runs([[], []])


def test_row_that_tests_weights_of_another_adds_no_freedom():
    rows = [runs(0.1, 0.2, 0.3), runs(0.5, 0.7, 0.6), runs(0.1, 0.2, 0.3)]
    assert pool_runs(rows).freedom[0] == 6
    assert pool_runs(rows, counted=[True, True, False]).freedom[0] == 4


def test_collapsed_row_is_left_out_of_the_pool_with_its_own_variance():
    calm = [runs(0.60, 0.61, 0.62), runs(0.63, 0.62, 0.605), runs(0.66, 0.65, 0.64), runs(0.61, 0.60, 0.615)]
    wild = runs(0.03, 0.5, 0.38)
    pool, clean = pool_runs([*calm, wild]), pool_runs(calm)
    assert pool.odd[:, 0].tolist() == [False] * 4 + [True]
    assert pool.louder[4, 0]
    assert pool.variance[0] == pytest.approx(clean.variance[0])
    own = pool.row(4)
    assert own.variance[0] == pytest.approx(np.var([0.03, 0.5, 0.38], ddof=1))
    assert own.freedom[0] == 2
    assert not own.pooled[0]


def test_row_without_any_spread_neither_counts_nor_claims_certainty():
    pool = pool_runs([runs(0.60, 0.61), runs(0.63, 0.615), runs(0.66, 0.65), runs(0.0, 0.0)])
    assert pool.odd[:, 0].tolist() == [False, False, False, True]
    assert not pool.louder.any()
    assert pool.row(3).variance[0] == pytest.approx(pool.variance[0])
    assert pool.freedom[0] == 3


def test_of_two_rows_none_is_odd():
    assert not pool_runs([runs(0.6, 0.6001, 0.6002), runs(0.1, 0.5, 0.9)]).odd.any()


def test_rows_alike_are_rarely_called_odd():
    values = np.random.default_rng(5).normal(0.6, 0.02, (6, 3, 4000))
    tables = [[Sample(seed, np.tile(seed, (2, 1)), 11) for seed in row] for row in values]
    assert pool_runs(tables).odd.any(axis=0).mean() == pytest.approx(0.01, abs=0.005)


def test_difference_by_hand():
    first = [sample(0.8, [0.7, 0.8, 0.9]), sample(0.7, [0.6, 0.7, 0.8])]
    second = [sample(0.6, [0.6, 0.6, 0.6]), sample(0.6, [0.5, 0.6, 0.7])]
    spreads = tuple(Spread(*(np.array([value]) for value in (0.0055, 0.0005, 6.0)), np.array([True])) for _ in "12")
    result = compare(first, second, spreads, MARGIN)
    assert result.value[0] == pytest.approx(0.15)
    # Draws of the difference over seeds: 0.1, 0.15, 0.2; their variance 0.0025 times 11 / 10, less the luck.
    assert result.se_patients[0] == pytest.approx((0.00275 - 0.0005) ** 0.5)
    # 0.0055 (1 / 2 + 1 / 2).
    assert result.se_seeds[0] == pytest.approx(0.0055**0.5)
    # t(0.975, 10) = 2.228139, t(0.975, 6) = 2.446912.
    half = (result.high - result.low)[0] / 2
    assert half == pytest.approx((0.00225 * 2.228139**2 + 0.0055 * 2.446912**2) ** 0.5, rel=1e-6)
    assert result.low[0] == pytest.approx(0.15 - half)
    assert result.seeds == (2, 2)
    assert 0.1 < result.p_value[0] < 0.15  # |t| = 1.70
    assert result.detectable[0] > half
    assert not result.paired


def test_p_is_the_level_at_which_the_interval_begins_at_zero():
    first, second = [[sample(value, [0.7, 0.8, 0.9])] for value in (0.8, 0.75)]
    second[0].drawn[:] = 0.6
    spread = Spread(*(np.array([value]) for value in (0.01, 0.0, 1.0)), np.array([True]))
    result = compare(first, second, (spread, spread), MARGIN)
    # Parts 0.011 with t(0.975, 10) = 2.228139, and 0.02 with t(0.975, 1) = 12.706205.
    half = (0.011 * 2.228139**2 + 0.02 * 12.706205**2) ** 0.5
    assert (result.high - result.low)[0] / 2 == pytest.approx(half, rel=1e-5)
    at_p = compare(first, second, (spread, spread), MARGIN, confidence=1 - result.p_value[0])
    assert at_p.low[0] == pytest.approx(0, abs=1e-6)


def test_equal_rows_differ_by_nothing():
    row = [sample(0.8, [0.7, 0.8, 0.9]), sample(0.7, [0.6, 0.7, 0.8])]
    result = between(row, row)
    assert result.value[0] == result.low[0] == result.high[0] == 0
    assert result.p_value[0] == 1
    assert result.verdict == "equivalent within the margin"


def test_rows_on_the_same_trainings_are_compared_seed_by_seed():
    first, second = runs(0.50, 0.60, 0.70), runs(0.48, 0.575, 0.68)
    apart, together = between(first, second), between(first, second, same_trainings=True)
    assert together.paired
    assert together.value[0] == pytest.approx(apart.value[0])
    assert together.se_seeds[0] == pytest.approx(np.std([0.02, 0.025, 0.02], ddof=1) / 3**0.5)
    assert together.verdict == "first ahead"
    assert apart.verdict == "inconclusive"


def test_single_trainings_use_the_patients_alone_and_tell_nothing():
    result = between([sample(0.8, [0.75, 0.8, 0.85])], [sample(0.1, [0.1, 0.1, 0.1])])
    assert np.isnan(result.se_seeds[0])
    assert np.isnan(result.detectable[0])  # a repetition could tell nothing, either
    assert result.se_patients[0] == pytest.approx(0.05 * 1.1**0.5)
    assert result.p_value[0] < 0.001
    assert result.verdict == "inconclusive"


def test_rows_of_unequal_seeds_are_compared():
    result = between(runs(0.8, 0.79, 0.81), runs(0.7))
    assert result.seeds == (3, 1)
    assert result.se_seeds[0] == pytest.approx((0.0001 * (1 / 3 + 1)) ** 0.5)


@pytest.mark.parametrize(
    ("second", "verdict"),
    [
        ((0.50, 0.502, 0.504), "first ahead"),
        ((0.70, 0.702, 0.704), "second ahead"),
        ((0.604, 0.602, 0.6), "equivalent within the margin"),
        ((0.5, 0.7, 0.6), "inconclusive"),
    ],
)
def test_verdicts(second, verdict):
    assert between(runs(0.60, 0.602, 0.604), runs(*second)).verdict == verdict


def test_equivalence_is_the_90_percent_interval_within_the_margin():
    first, second = runs(0.60, 0.62, 0.61), runs(0.61, 0.60, 0.62)
    pool = pool_runs([first, second])
    edge = compare(first, second, (pool.row(0), pool.row(1)), MARGIN, confidence=0.9).high[0]
    for margin, within in ((edge * 1.001, True), (edge * 0.999, False)):
        result = compare(first, second, (pool.row(0), pool.row(1)), margin)
        assert (result.verdict == "equivalent within the margin") is within


def test_draws_without_lesions_are_left_out():
    result = between([sample(0.8, [0.7, np.nan, 0.9])], [sample(0.6, [0.6, np.nan, 0.6])])
    assert result.se_patients[0] == pytest.approx(0.2 / 2**0.5 * 1.1**0.5)


@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        ([sample(1, [1, 1])], [], {}, "1 seeds against 0"),
        ([sample(1, [1, 1])] * 2, [sample(1, [1, 1])], {"same_trainings": True}, "2 seeds against 1"),
        ([sample(1, [1, 1])], [sample(1, [1, 1, 1])], {}, "other draws or patients"),
        ([sample(1, [1, 1])], [sample(1, [1, 1], 12)], {}, "other draws or patients"),
        ([sample(1, [1, 1], 1)], [sample(1, [1, 1], 1)], {}, "1 test patient; a bootstrap over patients needs at"),
        ([sample(1, [1, np.nan])], [sample(1, [1, 1])], {}, "1 usable draws"),
    ],
)
def test_unusable_pairs_are_refused(first, second, options, message):
    with pytest.raises(InputError, match=message):
        between(first, second, **options)


PATIENTS, DRAWS, TABLES = 60, 120, 1000
# Standard deviations of a row on a patient, of a run, and of a run on a patient: patients rule, all three, runs rule,
# luck of one run on one patient rules.
LUCK = {"patients": (0.3, 0.008, 0.1), "mixed": (0.15, 0.02, 0.1), "runs": (0.02, 0.02, 0.02), "both": (0.1, 0.01, 0.3)}
SIZES = ((4, 2), (8, 2), (6, 3), (4, 5))  # rows, seeds


@cache
def tables(rows: int, seeds: int, luck: str, same: float = 0.0):
    """Simulated tables on the last axis of each sample, and the true means of their rows on these patients.

    Args:
        rows: Of each table; all are as good, on all patients that there could be.
        seeds: Of each row.
        luck: One of ``LUCK``.
        same: Share of a run's variance that all rows have in common at equal seeds.
    """
    rng = np.random.default_rng(rows * 100 + seeds)
    of_patient, of_run, of_both = LUCK[luck]
    # One set of draws serves all tables; the weights of a draw are how often it takes a patient.
    drawn = rng.multinomial(PATIENTS, [1 / PATIENTS] * PATIENTS, size=DRAWS) / PATIENTS
    shared = rng.normal(0.6, 0.2, (PATIENTS, TABLES))
    common = rng.normal(0, of_run * same**0.5, (seeds, TABLES))
    found, here = [], []
    for _ in range(rows):
        own = shared + rng.normal(0, of_patient, (PATIENTS, TABLES))
        here.append(own.mean(axis=0))
        row = []
        for seed in range(seeds):
            run = common[seed] + rng.normal(0, of_run * (1 - same) ** 0.5, TABLES)
            values = own + run + rng.normal(0, of_both, (PATIENTS, TABLES))
            row.append(Sample(values.mean(axis=0), drawn @ values, PATIENTS))
        found.append(row)
    return found, here


@cache
def chances(rows: int, seeds: int, luck: str, same: float = 0.0) -> tuple[float, float, float, float]:
    """Coverage of the intervals of two pairs and of two rows, and how often p is under 0.05 and 0.001 by chance."""
    found, here = tables(rows, seeds, luck, same)
    pool = pool_runs(found)
    pairs = [compare(found[a], found[b], (pool.row(a), pool.row(b)), MARGIN) for a, b in ((0, 1), (2, 3))]
    covered = np.mean([(pair.low <= 0) & (pair.high >= 0) for pair in pairs])
    p_values = np.array([pair.p_value for pair in pairs])
    ends = [mean_interval([item.observed for item in found[row]], pool.row(row)) for row in (0, 1)]
    of_rows = np.mean([(low <= here[row]) & (here[row] <= high) for row, (_, low, high) in enumerate(ends)])
    return float(covered), float(of_rows), float(np.mean(p_values < 0.05)), float(np.mean(p_values < 0.001))


@pytest.mark.parametrize("luck", LUCK)
@pytest.mark.parametrize(("rows", "seeds"), SIZES)
def test_intervals_cover_and_p_errs_as_often_as_they_say(rows, seeds, luck):
    pair, row, five, _ = chances(rows, seeds, luck)
    assert 0.93 <= pair <= 0.97
    assert 0.93 <= row <= 0.97
    assert 0.03 <= five <= 0.07


def test_p_under_a_thousandth_comes_by_chance_once_in_a_thousand():
    found = [chances(rows, seeds, luck)[3] for rows, seeds in SIZES for luck in LUCK]
    assert 0.0004 <= np.mean(found) <= 0.0016
    assert max(found) <= 0.004


@pytest.mark.parametrize("luck", LUCK)
@pytest.mark.parametrize("same_trainings", [False, True])
def test_intervals_are_never_too_narrow_with_the_fewest_runs(luck, same_trainings):
    found, _ = tables(2, 2, luck)
    pool = pool_runs(found)
    result = compare(*found, (pool.row(0), pool.row(1)), MARGIN, same_trainings=same_trainings)
    assert np.mean(result.p_value < 0.05) <= 0.065
    assert np.mean(result.p_value < 0.001) <= 0.004


def test_seeds_that_stay_alike_make_intervals_too_wide_not_too_narrow():
    assert chances(4, 3, "mixed", same=0.5)[0] > 0.96


def test_true_difference_is_covered_and_found_as_often_as_promised():
    found, _ = tables(6, 3, "mixed")
    pool = pool_runs(found)
    spreads = pool.row(0), pool.row(1)
    size = np.median(compare(found[0], found[1], spreads, MARGIN).detectable)
    ahead = [Sample(item.observed + size, item.drawn + size, PATIENTS) for item in found[0]]
    result = compare(ahead, found[1], spreads, MARGIN)
    assert np.mean((result.low <= size) & (size <= result.high)) == pytest.approx(0.95, abs=0.02)
    assert np.mean(result.p_value < 0.05) == pytest.approx(0.8, abs=0.05)


def test_equivalence_is_claimed_wrongly_in_5_percent_at_most():
    found, _ = tables(6, 3, "runs")
    pool = pool_runs(found)
    margin = 0.06
    apart = [Sample(item.observed + margin, item.drawn + margin, PATIENTS) for item in found[0]]
    spreads = pool.row(0), pool.row(1)
    assert np.mean(compare(apart, found[1], spreads, margin).p_margin < 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(compare(found[0], found[1], spreads, margin).p_margin < 0.05) > 0.7


def test_number_of_seeds_that_detects_the_margin():
    # Without patients' part, 6 rows: (t(0.975, f) + t(0.8, f)) sqrt(2 / n) 0.02 with f = 6 (n - 1) is 0.0208 for
    # n = 16 and 0.0201 for n = 17.
    assert seeds_needed(0.02, 0.02**2, 0.0, 60, 6) == 17
    assert seeds_needed(0.0205, 0.02**2, 0.0, 60, 6) == 16
    assert seeds_needed(0.02, 0.0001**2, 0.0, 60, 6) == 2
    assert seeds_needed(0.02, 0.02**2, 0.02**2, 60, 6) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=6), st.integers(0, 9))
@settings(max_examples=50)
def test_swapping_the_rows_turns_the_sign(pairs, seed):
    rng = np.random.default_rng(seed)
    first, second = ([sample(value, list(rng.random(20))) for value in column] for column in zip(*pairs, strict=True))
    one, other = between(first, second), between(second, first)
    np.testing.assert_allclose(one.value, -other.value)
    np.testing.assert_allclose(one.low, -other.high)
    np.testing.assert_allclose(one.p_value, other.p_value)
    assert (one.low <= one.value).all()


@pytest.fixture(scope="module")
def matched():
    """Matches of 40 images of 10 patients, a lesion each, and whose image each one is."""
    rng = np.random.default_rng(3)
    truth = [[[10.0, 10, 30, 30]] for _ in range(40)]
    found = [[[10.0, 10, 30, 30], [60, 60, 80, 80]] if rng.random() < 0.6 else [[60.0, 60, 80, 80]] for _ in truth]
    scores = [rng.random(len(boxes)) for boxes in found]
    return match_detections(found, scores, truth, DEEPLESION_2D), [index // 4 for index in range(40)]


def test_sample_of_a_detector_agrees_with_the_bootstrap_interval(matched):
    (result,) = sample_detector(*matched, DEEPLESION_2D, resamples=200, seed=5)
    interval = bootstrap_sensitivity(*matched, DEEPLESION_2D, resamples=200, seed=5)
    assert result.num_patients == 10
    assert result.drawn.shape == (200, 7)
    np.testing.assert_allclose(result.observed, [*interval.value, interval.average])
    np.testing.assert_allclose(np.quantile(result.drawn[:, -1], 0.025), interval.average_low)
    np.testing.assert_allclose(np.quantile(result.drawn[:, :-1], 0.975, axis=0), interval.high)


def test_groups_of_lesions_keep_the_operating_points_of_all(matched):
    matches, patients = matched
    first = np.arange(40) < 12
    everything, few, rest, none = sample_detector(
        matches, patients, DEEPLESION_2D, groups=[first, ~first, np.zeros(40, bool)], resamples=100
    )
    np.testing.assert_allclose(few.observed[:-1], sensitivity_at(matches, DEEPLESION_2D.levels, lesions=first))
    np.testing.assert_allclose(0.3 * few.observed + 0.7 * rest.observed, everything.observed)
    assert (few.num_patients, rest.num_patients, none.num_patients) == (3, 7, 0)
    assert np.isnan(none.drawn).all()
    # Some draws have none of the three patients; in the others groups, weighted by their lesions, make up the whole.
    assert 0 < np.isnan(few.drawn).any(axis=1).mean() < 0.2
    assert np.isfinite(everything.drawn).all()
