"""Operating points: which score threshold gives how many false positives, and how often a score is right.

Both are read off validation patients, whom the model has not been trained on, and hold for scans like theirs.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from mmpluld.atomic import atomic_write_text
from mmpluld.errors import InputError, counted
from mmpluld.evaluation.evaluate import MatchedFiles, match_files
from mmpluld.evaluation.functional import FROCProtocol, Matches, bootstrap_ratio, froc_curve
from mmpluld.structures import DetectionSet
from mmpluld.structures.model_line import LinkingLine, ModelLine, RescoringLine
from mmpluld.structures.text_files import read_json
from mmpluld.typing import FloatArray, StrPath

__all__ = [
    "CalibrationBin",
    "OperatingPoint",
    "OperatingPoints",
    "calibration_table",
    "matched_operating_points",
    "measure_operating_points",
]

_SCHEMA = "mmpluld.operating-points/1"
_WANTED = "what `mmpluld evaluate --operating-points` wrote"
_MOST_POINTS = 1000  # of a curve; beyond, some between are left out
_NUM_BINS = 10
_RESAMPLES = 1000
_MODEL = ("model", "weights", "config", "linking", "fpr", "fpr_network")  # fields that are written where they are known


@dataclass(frozen=True)
class OperatingPoint:
    """One point of a validation FROC curve.

    Attributes:
        score_thr: Findings from this score on are shown.
        rate: False positives per ``per`` that this gave, at most those asked for.
        asked: Those asked for.
        sensitivity: Share of the lesions found.
        per: ``volume`` or ``image``.
        num_images: Validation volumes, or images.
        protocol: Rules by which it was measured.
    """

    score_thr: float
    rate: float
    asked: float
    sensitivity: float
    per: str
    num_images: int
    protocol: str

    def describe(self) -> str:
        """The point in words, for records."""
        gave, asked = f"{self.rate:.3g}", f"{self.asked:g}"
        what = f"false positive{'' if gave == '1' else 's'} per {self.per}"
        return (
            f"score threshold {self.score_thr:.4g}: gave {gave} {what}"
            f"{'' if gave == asked else f' (asked for: {asked})'} and sensitivity {self.sensitivity:.2f} on "
            f"{counted(self.num_images, f'validation {self.per}')} ({self.protocol})"
        )


@dataclass(frozen=True)
class CalibrationBin:
    """Findings of a range of scores.

    Attributes:
        low, high: Scores from ``low`` to below ``high``; the last range has its end.
        count: Findings that are a lesion or none; those on an ignored lesion or again on one are left out.
        hits: Those that find a lesion.
        mean_score: Of the findings; None without any.
        precision: hits / count; None without any.
        interval: 95 % of it, patients drawn with replacement; None of fewer than two patients.
    """

    low: float
    high: float
    count: int
    hits: int
    mean_score: float | None
    precision: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class OperatingPoints:
    """A validation FROC curve with the thresholds of its points, and the calibration of scores.

    Attributes:
        protocol: Rules of the evaluation.
        per: What false positives are counted per: ``volume`` or ``image``.
        num_images: Volumes or images evaluated.
        num_patients: Patients of these.
        num_lesions: Lesions to find.
        curve: (score threshold, false positives per ``per``, sensitivity), thresholds falling.
        calibration: By score, ascending.
        default_rate: Rate that detection takes where no threshold is asked for; None: none.
        model: Name of the model whose scores these are; None where the detections do not tell.
        weights: First digits of the SHA-256 of its weights, see :class:`~mmpluld.structures.model_line.ModelLine`; None
            where the detections do not tell.
        config: First digits of the SHA-256 of what decides in its config what is found; None where that is not told.
        linking: Rules in words by which 2D boxes were linked; None where the detections do not tell.
        fpr: ``none``: scores are the model's own; else how false-positive reduction took part in them, ``average`` or
            ``alone``; None where the detections do not tell.
        fpr_network: Which false-positive reduction that was, in words; None without.
    """

    protocol: str
    per: Literal["image", "volume"]
    num_images: int
    num_patients: int
    num_lesions: int
    curve: tuple[tuple[float, float, float], ...]
    calibration: tuple[CalibrationBin, ...]
    default_rate: float | None = None
    model: str | None = None
    weights: str | None = None
    config: str | None = None
    linking: str | None = None
    fpr: Literal["none", "average", "alone"] | None = None
    fpr_network: str | None = None

    def at(self, rate: float) -> OperatingPoint:
        """The lowest threshold that gave at most so many false positives.

        Args:
            rate: False positives per ``per``.

        Raises:
            InputError: The rate lies outside what was measured; the message tells the range.
        """
        least, most = max(1 / self.num_images, self.curve[0][1]), self.curve[-1][1]
        if most < least:
            raise InputError(
                f"--fp-rate {rate:g}: {counted(self.num_images, f'validation {self.per}')} gave less than one false "
                f"positive in all, so that no rate was measured ({self.protocol}); use --score-thr"
            )
        if not least <= rate <= most:
            raise InputError(
                f"--fp-rate {rate:g}: allowed are {_rounded(least, up=True)} to {_rounded(most, up=False)} false "
                f"positives per {self.per}, which {counted(self.num_images, f'validation {self.per}')} measured "
                f"({self.protocol}); choose among these, or use --score-thr"
            )
        threshold, found, sensitivity = [point for point in self.curve if point[1] <= rate][-1]
        return OperatingPoint(threshold, found, rate, sensitivity, self.per, self.num_images, self.protocol)

    def to_json(self) -> str:
        """The file's text."""
        told = {key: value for key, value in asdict(self).items() if key not in _MODEL or value is not None}
        return json.dumps({"schema": _SCHEMA, **told}, indent=1) + "\n"

    def save(self, path: StrPath) -> None:
        """Write the file."""
        atomic_write_text(path, self.to_json())

    @classmethod
    def load(cls, path: StrPath) -> OperatingPoints:
        """Read the file.

        Raises:
            InputError: It cannot be read, or holds something else.
        """
        return cls.parse(read_json(path, _WANTED), path)

    @classmethod
    def parse(cls, data: Any, path: StrPath) -> OperatingPoints:
        """Operating points from plain values; ``path`` is their place for messages.

        Raises:
            InputError: They are something else.
        """
        if not (isinstance(data, dict) and data.get("schema") == _SCHEMA):
            raise InputError(f"{path}: holds no operating points ({_SCHEMA}); give {_WANTED}")
        try:
            points = cls(
                **{
                    **{key: value for key, value in data.items() if key != "schema"},
                    "curve": tuple((float(a), float(b), float(c)) for a, b, c in data["curve"]),
                    "calibration": tuple(_parsed_bin(item) for item in data["calibration"]),
                }
            )
            curve = np.array(points.curve).reshape(-1, 3)
            counts = (points.num_images, points.num_patients, points.num_lesions)
            valid = (
                len(curve) > 0
                and bool(np.isfinite(curve).all() and (curve >= 0).all() and (curve[:, [0, 2]] <= 1).all())
                and bool((np.diff(curve[:, 0]) < 0).all() and (np.diff(curve[:, 1]) >= 0).all())
                and all(type(count) is int and count > 0 for count in counts)
                and points.per in ("image", "volume")
                and isinstance(points.protocol, str)
                and (points.default_rate is None or points.default_rate > 0)
                and all(getattr(points, name) is None or isinstance(getattr(points, name), str) for name in _MODEL)
                and points.fpr in (None, "none", "average", "alone")
            )
        except (TypeError, ValueError, LookupError) as error:
            raise InputError(f"{path}: operating points are not as they should be ({error}); give {_WANTED}") from None
        if not valid:
            raise InputError(
                f"{path}: operating points are not as they should be (thresholds in 0 to 1 that fall, rates that never "
                f"fall, counts above 0); give {_WANTED}"
            )
        return points


def measure_operating_points(
    predictions: StrPath,
    truth: StrPath,
    protocol: str | FROCProtocol,
    strict: bool = False,
    same: Sequence[tuple[str, str]] = (),
    first_slice: int | None = None,
) -> OperatingPoints:
    """Operating points from detections in validation patients.

    Args:
        predictions: Detection record with scores from 0 to 1, from a test that dropped none that matters.
        truth: Annotation file, or detection record, of the same volumes.
        protocol: Name or value of the rules.
        strict, same, first_slice: As for :func:`~mmpluld.evaluation.evaluate.evaluate_files`.

    Raises:
        InputError: A file is unusable or of several models, no detection or lesion is there, or a score beyond 0 to 1.
    """
    return matched_operating_points(match_files(predictions, truth, protocol, strict, same, first_slice))


def matched_operating_points(found: MatchedFiles) -> OperatingPoints:
    """Operating points of matched files; the errors are those of :func:`measure_operating_points`."""
    predictions, rules, matches = found.source, found.protocol, found.matches
    made, linked, rescored = _model_of(predictions, found.detections)
    if not len(matches.score) or not len(matches.found_by):
        missing = "detection" if not len(matches.score) else "lesion"
        raise InputError(f"{predictions}: no {missing} to measure operating points with; give validation scans")
    if not (matches.score[-1] >= 0 and matches.score[0] <= 1):
        raise InputError(
            f"{predictions}: scores from {matches.score[-1]:g} to {matches.score[0]:g}; operating points need 0 to 1"
        )
    return OperatingPoints(
        protocol=rules.name,
        per=rules.per,
        num_images=matches.num_images,
        num_patients=len(set(found.pairing.patients)),
        num_lesions=len(matches.found_by),
        curve=_curve(matches),
        calibration=_calibration(matches, found.pairing.patients),
        model=None if made is None else made.name,
        weights=None if made is None else made.digest,
        config=None if made is None else made.config,
        linking=None if linked is None else linked.rules,
        fpr=rescored.mode if rescored else None if made is None else "none",
        fpr_network=rescored.network if rescored else None,
    )


def _model_of(
    predictions: StrPath, detections: DetectionSet
) -> tuple[ModelLine | None, LinkingLine | None, RescoringLine | None]:
    """What made the detections, if their histories tell: model, rules of linking, false-positive reduction."""
    told = [(volume.history, f"{predictions}, volume '{name}'") for name, volume in detections.volumes.items()]
    made = _only({ModelLine.find(*history) for history in told}, predictions, "models")
    linked = _only({LinkingLine.find(*history) for history in told}, predictions, "rules of linking")
    rescored = _only({RescoringLine.find(*history) for history in told}, predictions, "ways of scoring")
    return made, linked, rescored


_Line = TypeVar("_Line", ModelLine, LinkingLine, RescoringLine)


def _only(found: Set[_Line | None], predictions: StrPath, what: str) -> _Line | None:
    if len(found) > 1:
        names = ", ".join(sorted("one not named" if line is None else str(line) for line in found))
        raise InputError(
            f"{predictions}: holds detections of several {what} ({names}), whose scores cannot be joined; "
            "give those of one"
        )
    return next(iter(found), None)


def _parsed_bin(item: Mapping[str, Any]) -> CalibrationBin:
    interval = item["interval"]
    return CalibrationBin(
        **{**item, "interval": None if interval is None else (float(interval[0]), float(interval[1]))}
    )


def _curve(matches: Matches) -> tuple[tuple[float, float, float], ...]:
    """Of each score the point that accepts all of it, and of each rate the lowest score."""
    curve = froc_curve(matches)
    last_of_score = np.r_[curve.threshold[1:] < curve.threshold[:-1], True]
    rate = curve.false_positives[last_of_score]
    points = np.column_stack([curve.threshold[last_of_score], rate, curve.sensitivity[last_of_score]])
    points = points[np.r_[rate[1:] > rate[:-1], True]]
    if len(points) > _MOST_POINTS:
        points = points[np.unique(np.geomspace(1, len(points), _MOST_POINTS).round().astype(int)) - 1]
    return tuple((float(a), float(b), float(c)) for a, b, c in points)


def _calibration(matches: Matches, patients: Sequence[Hashable]) -> tuple[CalibrationBin, ...]:
    hit = np.zeros(len(matches.score), dtype=np.bool_)
    hit[matches.found_by[matches.found_by < len(hit)]] = True
    counts = hit | matches.false_positive
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    owner = np.array([numbers[patient] for patient in patients], dtype=np.intp)[matches.image]
    edges = np.arange(_NUM_BINS + 1) / _NUM_BINS  # linspace has 0.7000000000000001, and 0.7 would lie below it
    place = np.clip(np.searchsorted(edges, matches.score, side="right") - 1, 0, _NUM_BINS - 1)
    bins = []
    for number, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        inside = counts & (place == number)
        totals = np.bincount(owner[inside], minlength=len(numbers))
        hits = np.bincount(owner[inside & hit], minlength=len(numbers))
        bins.append(_bin(round(low, 6), round(high, 6), hits, totals, matches.score[inside]))
    return tuple(bins)


def _bin(low: float, high: float, hits: Any, totals: Any, scores: FloatArray) -> CalibrationBin:
    count, right = int(totals.sum()), int(hits.sum())
    if not count:
        return CalibrationBin(low, high, 0, 0, None, None, None)
    interval = None
    if len(totals) > 1:
        _, *ends = bootstrap_ratio(hits, totals, resamples=_RESAMPLES)
        interval = (round(ends[0], 4), round(ends[1], 4))
    return CalibrationBin(low, high, count, right, round(float(scores.mean()), 4), round(right / count, 4), interval)


def calibration_table(points: OperatingPoints) -> list[list[str]]:
    """Rows of the calibration as text: scores, findings, share that is a lesion, its interval; empty ones left out."""
    return [
        [
            f"{item.low:.1f} to {item.high:.1f}",
            str(item.count),
            f"{item.precision:.2f}",
            "" if item.interval is None else f"{item.interval[0]:.2f} to {item.interval[1]:.2f}",
        ]
        for item in points.calibration
        if item.precision is not None
    ]


def _rounded(value: float, up: bool) -> str:
    """Three digits of a bound, never beyond it."""
    digits = 10.0 ** (2 - int(np.floor(np.log10(value)))) if value > 0 else 1.0
    return f"{(np.ceil if up else np.floor)(round(value * digits, 6)) / digits:g}"
