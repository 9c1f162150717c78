"""How sure a FROC result is: bootstrap over patients.

Lesions of one patient are alike, so patients are resampled, not images. Each resample is exact: only the
weight of an image changes, so that the sorted false positives and the finder of each lesion serve all
resamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpluld.errors import InputError
from mmpluld.evaluation.functional.froc import Matches, mean_sensitivity, sensitivity_at
from mmpluld.evaluation.functional.protocols import FROCProtocol
from mmpluld.typing import BoolArray, FloatArray

__all__ = ["Interval", "bootstrap_difference", "bootstrap_ratio", "bootstrap_sensitivity", "resample_sensitivity"]


@dataclass(frozen=True)
class Interval:
    """A value per level with its percentile interval.

    Attributes:
        value: (L,) sensitivity at the protocol's levels, or difference of two.
        low: (L,) lower end.
        high: (L,) upper end.
        average: Headline average of the value.
        average_low: Lower end for the average.
        average_high: Upper end for the average.
        p_value: Two-sided, that the difference of averages is zero; None for a single detector.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    average: float
    average_low: float
    average_high: float
    p_value: float | None = None


def bootstrap_sensitivity(
    matches: Matches,
    patients: Sequence[Hashable],
    protocol: FROCProtocol,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of the sensitivity when patients are drawn with replacement.

    Args:
        matches: Result of ``match_detections``.
        patients: (num_images,) whose image each one is.
        protocol: Gives the levels and the headline levels.
        resamples: Draws, at least 1. Draws without any lesion are left out.
        seed: Seed of the draws; the same seed gives the same interval.
        confidence: Share of draws inside the interval, in (0, 1).

    Raises:
        InputError: If an argument is out of range or ``patients`` does not name every image.
    """
    drawn = resample_sensitivity(matches, patients, protocol, resamples, seed)
    return _interval(sensitivity_at(matches, protocol.levels), drawn, protocol, confidence)


def bootstrap_difference(
    first: Matches,
    second: Matches,
    patients: Sequence[Hashable],
    protocol: FROCProtocol,
    *,
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of sensitivity(first) - sensitivity(second); both see the same draws of patients.

    Args:
        first: Result of ``match_detections`` for one detector.
        second: The same for another detector on the same images and lesions.
        patients: As for ``bootstrap_sensitivity``, like the other arguments.
        protocol: Gives the levels and the headline levels.
        resamples: Draws, at least 1.
        seed: Seed of the draws.
        confidence: Share of draws inside the interval, in (0, 1).

    Raises:
        InputError: As ``bootstrap_sensitivity``, and if the two were not matched against the same lesions.
    """
    if first.num_images != second.num_images or not np.array_equal(first.lesion_image, second.lesion_image):
        raise InputError(
            f"the detectors saw {first.num_images} images with {len(first.lesion_image)} lesions "
            f"and {second.num_images} with {len(second.lesion_image)}: match both against the same lesions"
        )
    drawn = resample_sensitivity(first, patients, protocol, resamples, seed)
    drawn -= resample_sensitivity(second, patients, protocol, resamples, seed)
    value = sensitivity_at(first, protocol.levels) - sensitivity_at(second, protocol.levels)
    averages = mean_sensitivity(drawn, protocol)
    averages = averages[np.isfinite(averages)]
    # The +1 counts the observed data as one draw, so that the value is never an impossible 0.
    tail = min(np.count_nonzero(averages <= 0), np.count_nonzero(averages >= 0))
    p_value = min(1.0, 2 * (tail + 1) / (len(averages) + 1))
    return _interval(value, drawn, protocol, confidence, p_value)


def resample_sensitivity(
    matches: Matches,
    patients: Sequence[Hashable],
    protocol: FROCProtocol,
    resamples: int,
    seed: int,
    *,
    groups: ArrayLike | None = None,
) -> FloatArray:
    """Sensitivities when patients are drawn with replacement; equal seeds draw equal patients, so that rows pair.

    Args:
        matches: Result of ``match_detections``.
        patients: (num_images,) whose image each one is.
        protocol: Gives the levels.
        resamples: Draws, at least 1.
        seed: Seed of the draws.
        groups: (G, m) True for the lesions that count in each of several groups; all lesions if None. False
            positives remain those of all lesions, as in ``sensitivity_at``.

    Returns:
        (resamples, L), with groups (resamples, G, L); NaN for a draw without lesions that count.

    Raises:
        InputError: If there is no resample or ``patients`` does not name every image.
    """
    chosen = np.ones((1, len(matches.found_by)), dtype=np.bool_) if groups is None else np.asarray(groups, np.bool_)
    drawn = np.array(list(_resampled(matches, patients, protocol, resamples, seed, chosen)))
    return drawn[:, 0] if groups is None else drawn


def _resampled(
    matches: Matches,
    patients: Sequence[Hashable],
    protocol: FROCProtocol,
    resamples: int,
    seed: int,
    groups: BoolArray,
) -> Iterator[FloatArray]:
    """Yield the (G, L) rows of ``resample_sensitivity``."""
    if len(patients) != matches.num_images:
        raise InputError(f"{len(patients)} patients for {matches.num_images} images: name the patient of each image")
    if resamples < 1:
        raise InputError(f"{resamples} bootstrap resamples; at least 1 is needed, 1000 is usual")
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    owner = np.array([numbers[patient] for patient in patients], dtype=np.intp)
    levels = np.asarray(protocol.levels)
    reader = _WeightedReader(matches, levels, groups)
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        draws = np.bincount(rng.integers(len(numbers), size=len(numbers)), minlength=len(numbers))
        yield reader.read(draws[owner]) if len(owner) else np.full((len(groups), len(levels)), np.nan)


def bootstrap_ratio(
    hits: ArrayLike, totals: ArrayLike, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float, float]:
    """A share of all patients together, and its percentile interval when patients are drawn with replacement.

    Args:
        hits: (P,) counts of each patient.
        totals: (P,) what they are counts out of.
        resamples: Draws, at least 1. Draws that count out of nothing are left out.
        seed: Seed of the draws.
        confidence: Share of draws inside the interval, in (0, 1).

    Returns:
        Share, lower and upper end; NaN where all totals are 0.

    Raises:
        InputError: If an argument is out of range.
    """
    counts = np.stack([np.asarray(hits, np.float64), np.asarray(totals, np.float64)])
    if resamples < 1:
        raise InputError(f"{resamples} bootstrap resamples; at least 1 is needed, 1000 is usual")
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; it must lie in (0, 1), 0.95 is usual")
    if not counts[1].sum() > 0:
        return float("nan"), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    number = counts.shape[1]
    sums = np.array([counts[:, rng.integers(number, size=number)].sum(axis=1) for _ in range(resamples)])
    sums = sums[sums[:, 1] > 0]
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(counts[0].sum() / counts[1].sum()), float(low), float(high)


class _WeightedReader:
    """Reads weighted sensitivities off the false positives that can matter."""

    def __init__(self, matches: Matches, levels: FloatArray, groups: BoolArray) -> None:
        wrong = np.flatnonzero(matches.false_positive)
        self.levels = levels
        self.wrong_image = matches.image[wrong]
        self.ends = np.r_[matches.point[wrong], len(matches.score)]
        order = np.argsort(matches.found_by, kind="stable")
        self.found_by = matches.found_by[order]
        self.lesion_image = matches.lesion_image[order]
        self.groups = groups[:, order]
        # A draw rarely needs twice the false positives that the data itself need at the highest level.
        self.enough = min(len(wrong), int(2 * levels[-1] * matches.num_images) + 100)

    def read(self, weights: NDArray[np.intp]) -> FloatArray:
        """Sensitivity of each group at each level, (G, L), when image i counts ``weights[i]`` times."""
        lesions = np.zeros((len(self.groups), len(self.lesion_image) + 1))
        np.cumsum(weights[self.lesion_image] * self.groups, axis=1, out=lesions[:, 1:])
        total = lesions[:, -1:]
        if not total.any():
            return np.full((len(self.groups), len(self.levels)), np.nan)
        num_images = weights.sum()
        rate = np.cumsum(weights[self.wrong_image[: self.enough]]) / num_images
        if self.enough < len(self.wrong_image) and rate[-1] <= self.levels[-1]:
            rate = np.cumsum(weights[self.wrong_image]) / num_images
        position = np.searchsorted(rate, self.levels, side="right")
        position[position == len(rate)] = len(self.ends) - 1
        found = np.searchsorted(self.found_by, self.ends[position], side="left")
        return np.asarray(lesions[:, found] / np.where(total > 0, total, np.nan), dtype=np.float64)


def _interval(
    value: FloatArray,
    drawn: FloatArray,
    protocol: FROCProtocol,
    confidence: float,
    p_value: float | None = None,
) -> Interval:
    """Percentiles of (R, L) drawn values round ``value``."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; it must lie in (0, 1), 0.95 is usual")
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if not len(drawn):
        drawn = np.full((1, len(value)), np.nan)
    low, high = np.quantile(drawn, tails, axis=0)
    average_low, average_high = np.quantile(mean_sensitivity(drawn, protocol), tails)
    average = float(mean_sensitivity(value, protocol))
    return Interval(value, low, high, average, float(average_low), float(average_high), p_value)
