"""How sure a comparison is whose rows were trained with several seeds and tested on some patients.

Pure NumPy and SciPy; works on the matches of ``mmpluld.evaluation.functional``. All statistics are taken entry by entry
over the last axes of the samples, so that levels, or simulated tables, go through at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import f as fisher
from scipy.stats import t as student

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import (
    FROCProtocol,
    Matches,
    mean_sensitivity,
    resample_sensitivity,
    sensitivity_at,
)
from mmpluld.typing import BoolArray, FloatArray

__all__ = [
    "Difference",
    "Pool",
    "Sample",
    "Spread",
    "Verdict",
    "compare",
    "mean_interval",
    "pool_runs",
    "sample_detector",
    "seeds_needed",
]

Verdict = Literal["first ahead", "second ahead", "equivalent within the margin", "inconclusive"]

_ODD_LEVEL = 0.01  # chance that a table of rows alike has any row called odd
_POWER = 0.8  # of `detectable`


@dataclass(frozen=True)
class Sample:
    """What one trained detector reached, and what it would have on other draws of the test patients.

    Attributes:
        observed: (L + 1,) sensitivities, the headline average last.
        drawn: (R, L + 1) the same for each draw of patients; NaN for a draw without lesions.
        num_patients: Patients with a lesion that counts.
    """

    observed: FloatArray
    drawn: FloatArray
    num_patients: int


def sample_detector(
    matches: Matches,
    patients: Sequence[Hashable],
    protocol: FROCProtocol,
    *,
    groups: Sequence[ArrayLike] = (),
    resamples: int = 1000,
    seed: int = 0,
) -> list[Sample]:
    """Resample the test patients of one detector; equal seeds draw equal patients, so that detectors pair.

    Args:
        matches: Result of ``match_detections``.
        patients: (num_images,) whose image each one is.
        protocol: Gives the levels and the headline levels.
        groups: (m,) each: the lesions that count in a sample of their own. False positives, and so operating points,
            remain those of the whole evaluation, as in :func:`~mmpluld.evaluation.strata.stratify`.
        resamples: Draws of patients, at least 1.
        seed: Seed of the draws.

    Returns:
        The sample on all lesions, then that of each group.

    Raises:
        InputError: If there is no resample or ``patients`` does not name every image.
    """
    chosen = np.array([np.ones(len(matches.lesion_image), dtype=np.bool_), *groups], dtype=np.bool_)
    drawn = resample_sensitivity(matches, patients, protocol, resamples, seed, groups=chosen)
    samples = []
    for number, lesions in enumerate(chosen):
        observed = sensitivity_at(matches, protocol.levels, lesions=lesions)
        holders = {patients[image] for image in matches.lesion_image[lesions]}
        samples.append(
            Sample(_with_average(observed, protocol), _with_average(drawn[:, number], protocol), len(holders))
        )
    return samples


@dataclass(frozen=True)
class Spread:
    """How far the trainings of one row scatter on the same test patients.

    Attributes:
        variance: (L + 1,) of one run.
        luck: (L + 1,) part of it that is peculiar to one seed on single patients; other patients would have other luck.
        freedom: (L + 1,) degrees of freedom of the variance; 0 where nothing is known.
        pooled: (L + 1,) True where the variance is that of the table's rows together.
    """

    variance: FloatArray
    luck: FloatArray
    freedom: FloatArray
    pooled: BoolArray


@dataclass(frozen=True)
class Pool:
    """Variance of runs, shared by the rows of a table, which are trained alike.

    Attributes:
        variance, luck, freedom: (L + 1,) of the pool, as in :class:`Spread`.
        own: Per row its own, of whatever few seeds it has.
        counted: (k, L + 1) rows that the pool is made of.
        odd: (k, L + 1) rows whose variance is clearly another; they are left out of the pool.
        louder: (k, L + 1) odd rows whose variance is the larger; these keep their own. An odd quiet row, such as one
            that finds nothing with any seed, gets the pool's: too wide an interval rather than too narrow.
    """

    variance: FloatArray
    luck: FloatArray
    freedom: FloatArray
    own: tuple[Spread, ...]
    counted: BoolArray
    odd: BoolArray
    louder: BoolArray

    def row(self, index: int) -> Spread:
        """What holds for a row."""
        own, louder = self.own[index], self.louder[index]
        return Spread(
            np.where(louder, own.variance, self.variance),
            np.where(louder, own.luck, self.luck),
            np.where(louder, own.freedom, self.freedom),
            ~louder,
        )


def pool_runs(rows: Sequence[Sequence[Sample]], counted: Sequence[bool] | None = None) -> Pool:
    """Pool the variance of runs over the rows of a table.

    k rows of n seeds give k (n - 1) degrees of freedom instead of n - 1. A row whose variance is clearly another, such
    as one whose training collapses with some seeds, would spoil the pool, so each row is tested against the others
    together (F test, both sides, at 1 % over all rows after Bonferroni), the oddest left out, and the rest tested
    again. The pool keeps two rows at least: of two, neither can be called the odd one.

    Args:
        rows: Samples of each row, one per seed; a row may have none. At least one row must have some.
        counted: Rows that count in the pool; False for one that tests the weights of another row of the table, whose
            trainings count already. All, if None.

    Raises:
        InputError: If no row has a sample.
    """
    found = next((row[0] for row in rows if row), None)
    if found is None:
        raise InputError("no row of the table has a finished run; train one seed of one row first")
    own = tuple(_own_spread(row, found.observed.shape) for row in rows)
    counts = np.array([1.0] * len(rows) if counted is None else counted, dtype=np.float64)
    variance, freedom = (np.array([getattr(item, name) for item in own]) for name in ("variance", "freedom"))
    weight = freedom * counts.reshape(-1, *[1] * found.observed.ndim)
    odd = _odd(variance, freedom, weight)
    weight = np.where(odd, 0.0, weight)
    total = weight.sum(axis=0)
    shares = weight / np.where(total > 0, total, 1.0)
    pooled = (shares * variance).sum(axis=0)
    luck = (shares * np.array([item.luck for item in own])).sum(axis=0)
    return Pool(pooled, luck, total, own, weight > 0, odd, odd & (variance > pooled))


def mean_interval(
    values: ArrayLike, spread: Spread, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean over seeds with Student's interval: what trainings with other seeds would show on the same test patients.

    Args:
        values: (n, L + 1) one entry per seed.
        spread: Of the row.
        confidence: Share of intervals that hold the true mean, in (0, 1).

    Returns:
        Mean, lower and upper end, each (L + 1,). The ends are NaN where the spread is not known.

    Raises:
        InputError: If there is no value.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim == 0 or not len(data):
        raise InputError("an interval over seeds needs at least one value; train one seed first")
    mean = data.mean(axis=0)
    known = spread.freedom > 0
    critical = student.ppf((1 + confidence) / 2, np.where(known, spread.freedom, 1.0))
    half = np.where(known, critical * np.sqrt(spread.variance / len(data)), np.nan)
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Difference:
    """Sensitivity of one row minus that of another; the last entry of each array is the headline average.

    Attributes:
        value: (L + 1,) difference of the means over seeds.
        low: (L + 1,) lower end of the interval.
        high: (L + 1,) upper end.
        p_value: (L + 1,) two-sided, that the difference is zero.
        p_margin: (L + 1,) that the difference is as large as the margin, either way (two one-sided tests).
        se_patients: (L + 1,) standard error from the choice of test patients.
        se_seeds: (L + 1,) standard error from the choice of seeds; NaN if no row has two seeds, when the interval
            says nothing about other trainings.
        detectable: (L + 1,) true difference that a repetition would call significant with probability 0.8.
        seeds: How many seeds each row has.
        paired: The rows test the same trainings, so that they are compared seed by seed.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    p_value: FloatArray
    p_margin: FloatArray
    se_patients: FloatArray
    se_seeds: FloatArray
    detectable: FloatArray
    seeds: tuple[int, int]
    paired: bool

    @property
    def points(self) -> str:
        """The difference of the headline averages with its interval, in percentage points."""
        return f"{100 * self.value[-1]:+.2f} ({100 * self.low[-1]:+.2f} to {100 * self.high[-1]:+.2f})"

    @property
    def verdict(self) -> Verdict:
        """What can be said of the headline averages at 5 %.

        A difference that is certain and certainly smaller than the margin reads as ahead. Of single trainings nothing
        can be told.
        """
        if np.isnan(self.se_seeds[-1]):
            return "inconclusive"
        if self.p_value[-1] < 0.05:
            return "first ahead" if self.value[-1] > 0 else "second ahead"
        return "equivalent within the margin" if self.p_margin[-1] < 0.05 else "inconclusive"


def compare(
    first: Sequence[Sample],
    second: Sequence[Sample],
    spreads: tuple[Spread, Spread],
    margin: float,
    *,
    same_trainings: bool = False,
    confidence: float = 0.95,
) -> Difference:
    """Difference of two rows, on the same draws of patients.

    Two things could have come out otherwise, which patients were tested and how the trainings went. The squared
    standard error is the sum of

    - the seeds' part: variance of a run over the number of seeds, of both rows;
    - the patients' part: variance of the difference of the means over seeds when patients are drawn with replacement,
      the same draws for all runs (lesions of a patient stay together). Luck that is peculiar to one seed on one patient
      is in the seeds' part already. It is known from how far the draws move the seeds of one row apart, and is
      subtracted here, so that it counts once.

    Rows are not paired by seed: runs of equal seeds share the initialisation but soon drift apart, and where they stay
    alike the interval is too wide, never too narrow. Rows that test the same trainings are paired, with the variance of
    their own differences, and so are rows that agree in every figure.

    Interval and p join Student's of the two parts by Banerjee's rule, ``half^2 = (t_patients se_patients)^2 + (t_seeds
    se_seeds)^2``, whose coverage is never less than it says for normal errors. Welch's and Satterthwaite's
    approximation, which pretends to one number of degrees of freedom, claims too much where the seeds' part has few.

    Args:
        first: One row, one sample per seed.
        second: The other row, from the same draws of patients.
        spreads: Of both rows, from :func:`pool_runs`.
        margin: Largest difference that does not matter, as a fraction, above 0.
        same_trainings: Whether sample i of both rows tests the same training.
        confidence: Of the interval, in (0, 1).

    Raises:
        InputError: If a row has no sample, the rows have other draws or fewer than two usable ones, or fewer than two
            patients; with ``same_trainings``, if they have unequally many samples.
    """
    if not first or not second:
        raise InputError(f"{len(first)} seeds against {len(second)}: a comparison needs one of each row at least")
    if same_trainings and len(first) != len(second):
        raise InputError(f"{len(first)} seeds against {len(second)}: rows on the same trainings have the same seeds")
    if len({(sample.drawn.shape, sample.num_patients) for sample in (*first, *second)}) != 1:
        raise InputError("samples have other draws or patients; sample all detectors on the same truth, equally often")
    patients = first[0].num_patients
    if patients < 2:
        raise InputError(f"{patients} test patient; a bootstrap over patients needs at least 2")
    one, two = _usable_draws(first), _usable_draws(second)
    if one.shape[1] < 2:
        raise InputError(f"{one.shape[1]} usable draws of patients; a standard error needs at least 2, 1000 is usual")
    paired = same_trainings or _agree(first, second)
    value = np.mean([item.observed for item in first], axis=0) - np.mean([item.observed for item in second], axis=0)
    of_patients = _variance_of_draws(one.mean(axis=0) - two.mean(axis=0), patients)
    if paired:
        of_seeds, luck = _paired_parts(first, second)
    else:
        of_seeds, luck = _parts(spreads, (len(first), len(second)))
    known = np.all([freedom > 0 for _, freedom in of_seeds], axis=0)
    of_seeds = [(np.where(known, variance, 0.0), np.where(known, freedom, 1.0)) for variance, freedom in of_seeds]
    of_patients = np.maximum(of_patients - np.where(known, luck, 0.0), 0.0)
    parts = [(of_patients, np.full_like(of_patients, patients - 1)), *of_seeds]
    error = _Error(np.array([variance for variance, _ in parts]), np.array([freedom for _, freedom in parts]))
    half = error.half_width((1 - confidence) / 2)
    return Difference(
        value=value,
        low=value - half,
        high=value + half,
        p_value=np.minimum(2 * error.tail(np.abs(value)), 1.0),
        p_margin=error.tail(margin - np.abs(value)),
        se_patients=np.sqrt(of_patients),
        se_seeds=np.where(known, np.sqrt(sum(variance for variance, _ in of_seeds)), np.nan),
        detectable=np.where(known, error.detectable(), np.nan),
        seeds=(len(first), len(second)),
        paired=paired,
    )


def seeds_needed(
    margin: float, variance: float, of_patients: float, patients: int, rows: int, most: int = 200
) -> int | None:
    """Fewest seeds of each row with which a difference of ``margin`` is found significant four times in five.

    Args:
        margin: The difference, as a fraction.
        variance: Of one run.
        of_patients: Variance of a difference from the patients.
        patients: Test patients.
        rows: Rows whose variances are pooled.
        most: Where to stop.

    Returns:
        At least 2; None if ``most`` seeds do not do, for lack of patients.
    """
    for seeds in range(2, most + 1):
        freedom = np.array([patients - 1.0, rows * (seeds - 1.0)])
        if _Error(np.array([of_patients, 2 * variance / seeds]), freedom).detectable() <= margin:
            return seeds
    return None


@dataclass(frozen=True)
class _Error:
    """Standard error whose square is a sum of variances with degrees of freedom, (p, ...) each.

    Half widths are Banerjee's (1960): the root of the sum of the parts' squared ones. They never promise more than they
    hold, however few degrees of freedom a part has, and cost little where it has many.
    """

    variance: FloatArray
    freedom: FloatArray

    def half_width(self, tail: ArrayLike) -> FloatArray:
        """What a value exceeds by chance with a probability of at most ``tail``, below a half."""
        return np.asarray(np.sqrt((student.isf(tail, self.freedom) ** 2 * self.variance).sum(axis=0)))

    def detectable(self) -> FloatArray:
        """True value that is called significant at 5 % with a probability of about 0.8."""
        return self.half_width(0.025) + self.half_width(1 - _POWER)

    def tail(self, value: FloatArray) -> FloatArray:
        """One-sided probability to exceed ``value`` by chance, at least 1e-17 or so; the inverse of ``half_width``."""
        size = np.abs(value)
        low, high = np.full(size.shape, -40.0), np.full(size.shape, np.log(0.5))  # logarithm of the tail
        for _ in range(26):
            middle = (low + high) / 2
            beyond = self.half_width(np.exp(middle)) > size
            low, high = np.where(beyond, middle, low), np.where(beyond, high, middle)
        found = np.where(value == 0, 0.5, np.exp(high))  # equal detectors: no difference, whatever the error
        return np.where(value < 0, 1 - found, found)


Parts = list[tuple[FloatArray, FloatArray]]  # variances with their degrees of freedom


def _parts(spreads: tuple[Spread, Spread], seeds: tuple[int, int]) -> tuple[Parts, FloatArray]:
    """What the seeds of both rows add, in one part where both have the pool's variance; and luck of them."""
    first, second = spreads
    one, two = first.variance / seeds[0], second.variance / seeds[1]
    together = first.pooled & second.pooled
    parts = [(np.where(together, one + two, one), first.freedom), (np.where(together, 0.0, two), second.freedom)]
    return parts, first.luck / seeds[0] + second.luck / seeds[1]


def _paired_parts(first: Sequence[Sample], second: Sequence[Sample]) -> tuple[Parts, FloatArray]:
    """The same for rows on the same trainings."""
    pairs = zip(first, second, strict=True)
    each = [Sample(a.observed - b.observed, a.drawn - b.drawn, a.num_patients) for a, b in pairs]
    own = _own_spread(each, first[0].observed.shape)
    return [(own.variance / len(each), own.freedom)], own.luck / len(each)


def _own_spread(samples: Sequence[Sample], shape: tuple[int, ...]) -> Spread:
    """Of one row alone; no freedom with fewer than two seeds."""
    seeds = len(samples)
    if seeds < 2:
        nothing = np.zeros(shape)
        return Spread(nothing, nothing, nothing, np.zeros(shape, dtype=np.bool_))
    variance = np.var([item.observed for item in samples], axis=0, ddof=1)
    drawn = _usable_draws(samples)
    patients = samples[0].num_patients
    luck = np.zeros(shape)
    if drawn.shape[1] > 1 and patients > 1:
        apart = drawn - drawn.mean(axis=0)
        luck = np.sum([_variance_of_draws(item, patients) for item in apart], axis=0) / (seeds - 1)
    return Spread(variance, luck, np.full(shape, seeds - 1.0), np.zeros(shape, dtype=np.bool_))


def _odd(variance: FloatArray, freedom: FloatArray, weight: FloatArray) -> BoolArray:
    """(k, ...) rows whose variance is clearly another than that of the other rows together."""
    odd = np.zeros(variance.shape, dtype=np.bool_)
    for _ in range(len(variance)):
        inside = np.where(odd, 0.0, weight)
        others = inside.sum(axis=0) - inside
        with np.errstate(divide="ignore", invalid="ignore"):
            rest = np.maximum((inside * variance).sum(axis=0) - inside * variance, 0.0) / others
            ratio = variance / rest
        sides = np.minimum(fisher.sf(ratio, freedom, others), fisher.cdf(ratio, freedom, others))
        # Without three rows, the two that are left could not be told apart; without seeds there is no variance.
        open_ = ~odd & (freedom > 0) & ((inside > 0).sum(axis=0) > 2)
        chance = np.where(open_ & np.isfinite(sides), 2 * sides, 1.0) * open_.sum(axis=0)
        oddest = chance.argmin(axis=0)[None]
        found = (np.take_along_axis(chance, oddest, axis=0) < _ODD_LEVEL) & open_.any(axis=0)
        if not found.any():
            break
        np.put_along_axis(odd, oddest, np.take_along_axis(odd, oddest, axis=0) | found, axis=0)
    return odd


def _usable_draws(samples: Sequence[Sample]) -> FloatArray:
    """(n, R', ...) draws of a row, those without lesions left out; they are the same for all runs."""
    drawn = np.array([item.drawn for item in samples])
    return drawn[:, np.isfinite(drawn).all(axis=(0, *range(2, drawn.ndim)))]


def _variance_of_draws(drawn: FloatArray, patients: int) -> FloatArray:
    """Variance over (R, ...) draws of patients; draws with replacement show (patients - 1) / patients of it."""
    return np.asarray(drawn.var(axis=0, ddof=1) * patients / (patients - 1))


def _agree(first: Sequence[Sample], second: Sequence[Sample]) -> bool:
    """Whether two rows are the same detectors."""
    return len(first) == len(second) and all(
        np.array_equal(a.observed, b.observed) and np.array_equal(a.drawn, b.drawn, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )


def _with_average(sensitivity: FloatArray, protocol: FROCProtocol) -> FloatArray:
    """(..., L) values with their headline average behind, (..., L + 1)."""
    return np.concatenate([sensitivity, mean_sensitivity(sensitivity, protocol)[..., None]], axis=-1)
