"""How sure a comparison is that was trained with several seeds and tested on some patients.

Pure NumPy and SciPy; works on the matches of ``mmpluld.evaluation.functional``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import (
    FROCProtocol,
    Matches,
    mean_sensitivity,
    resample_sensitivity,
    sensitivity_at,
)
from mmpluld.typing import FloatArray

__all__ = ["Difference", "Sample", "paired_difference", "sample_detector", "t_interval"]


def t_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean over seeds with Student's interval: what another training run with other seeds would show.

    Args:
        values: (n, ...) one entry per seed.
        confidence: Share of intervals that hold the true mean, in (0, 1).

    Returns:
        Mean, lower and upper end, each (...). The ends are NaN for one seed.

    Raises:
        InputError: If there is no value.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim == 0 or not len(data):
        raise InputError("an interval over seeds needs at least one value; train one seed first")
    mean = data.mean(axis=0)
    if len(data) == 1:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = student.ppf((1 + confidence) / 2, len(data) - 1) * data.std(axis=0, ddof=1) / np.sqrt(len(data))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Difference:
    """Sensitivity of one row minus that of another; the last entry of each array is the headline average.

    Attributes:
        value: (L + 1,) mean difference over seeds.
        low: (L + 1,) lower end of the interval.
        high: (L + 1,) upper end.
        p_value: (L + 1,) two-sided, that the difference is zero.
        se_patients: (L + 1,) standard error from the choice of test patients.
        se_seeds: (L + 1,) standard error from the choice of seeds; 0 for one seed, whose interval says nothing about
            other trainings.
        detectable: (L + 1,) true difference that a repetition would call significant with probability 0.8.
        seeds: How many seeds both rows have.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    p_value: FloatArray
    se_patients: FloatArray
    se_seeds: FloatArray
    detectable: FloatArray
    seeds: int


@dataclass(frozen=True)
class Sample:
    """What one trained detector reached, and what it would have on other draws of the test patients.

    Attributes:
        observed: (L + 1,) sensitivities, the headline average last.
        drawn: (R, L + 1) the same for each draw of patients; NaN for a draw without lesions.
        num_patients: Patients that were drawn from.
    """

    observed: FloatArray
    drawn: FloatArray
    num_patients: int


def sample_detector(
    matches: Matches, patients: Sequence[Hashable], protocol: FROCProtocol, *, resamples: int = 1000, seed: int = 0
) -> Sample:
    """Resample the test patients of one detector; equal seeds draw equal patients, so that detectors pair.

    Args:
        matches: Result of ``match_detections``.
        patients: (num_images,) whose image each one is.
        protocol: Gives the levels and the headline levels.
        resamples: Draws of patients, at least 1.
        seed: Seed of the draws.

    Raises:
        InputError: If there is no resample or ``patients`` does not name every image.
    """
    drawn = resample_sensitivity(matches, patients, protocol, resamples, seed)
    observed = sensitivity_at(matches, protocol.levels)
    return Sample(_with_average(observed, protocol), _with_average(drawn, protocol), len(set(patients)))


def paired_difference(first: Sequence[Sample], second: Sequence[Sample], confidence: float = 0.95) -> Difference:
    """Seed-mean difference of two rows, paired over seeds and patients.

    Two things could have come out otherwise: which patients were tested, and how the trainings went. The standard
    error joins both, ``se^2 = se_patients^2 + se_seeds^2``:

    - ``se_patients`` is the standard deviation of the seed-mean difference over the draws of patients, which are the
      same for all detectors (lesions of a patient stay together);
    - ``se_seeds`` is the standard deviation of the difference over seeds, divided by the root of their number.

    The interval and p are Student's with the Welch-Satterthwaite degrees of freedom of that sum. Luck that is peculiar
    to one seed on one patient enters both terms, so intervals are a little too wide rather than too narrow. Drawing
    seeds with replacement, as a nested bootstrap does, would make them too narrow at the usual 3 to 5 seeds.

    Args:
        first: One row, one sample per seed.
        second: The other row, in the same order of seeds, from the same draws of patients.
        confidence: Of the interval, in (0, 1).

    Raises:
        InputError: If the rows have no or unequally many seeds, other draws or fewer than two usable ones, or one
            patient.
    """
    if len(first) != len(second) or not first:
        raise InputError(f"{len(first)} seeds against {len(second)}: a paired comparison needs the same seeds of both")
    if len({(sample.drawn.shape, sample.num_patients) for sample in (*first, *second)}) != 1:
        raise InputError("samples have other draws or patients; sample all detectors on the same truth, equally often")
    if first[0].num_patients < 2:
        raise InputError(f"{first[0].num_patients} test patient; a bootstrap over patients needs at least 2")
    observed = np.array([a.observed - b.observed for a, b in zip(first, second, strict=True)])
    drawn = np.mean([a.drawn - b.drawn for a, b in zip(first, second, strict=True)], axis=0)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if len(drawn) < 2:
        raise InputError(f"{len(drawn)} usable draws of patients; a standard error needs at least 2, 1000 is usual")
    value, seeds = observed.mean(axis=0), len(observed)
    se_patients = drawn.std(axis=0, ddof=1)
    se_seeds = observed.std(axis=0, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.zeros_like(value)
    se = np.hypot(se_patients, se_seeds)
    freedom = _freedom(se_patients, se_seeds, first[0].num_patients, seeds)
    critical = student.ppf((1 + confidence) / 2, freedom)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(value == 0, 0.0, np.abs(value) / se)  # equal detectors: no difference, whatever the error
    return Difference(
        value=value,
        low=value - critical * se,
        high=value + critical * se,
        p_value=2 * student.sf(ratio, freedom),
        se_patients=se_patients,
        se_seeds=se_seeds,
        detectable=(critical + student.ppf(0.8, freedom)) * se,
        seeds=seeds,
    )


def _with_average(sensitivity: FloatArray, protocol: FROCProtocol) -> FloatArray:
    """(..., L) values with their headline average behind, (..., L + 1)."""
    return np.concatenate([sensitivity, mean_sensitivity(sensitivity, protocol)[..., None]], axis=-1)


def _freedom(se_patients: FloatArray, se_seeds: FloatArray, patients: int, seeds: int) -> FloatArray:
    """Degrees of freedom of the joint standard error (Welch, Satterthwaite)."""
    terms = se_patients**4 / max(patients - 1, 1) + se_seeds**4 / max(seeds - 1, 1)
    total = (se_patients**2 + se_seeds**2) ** 2
    return np.where(terms > 0, total / np.where(terms > 0, terms, 1.0), 1.0)
