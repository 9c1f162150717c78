"""Evaluate a detection file against a truth file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmpluld.errors import InputError, alike, counted, suggest
from mmpluld.evaluation.frames import fits
from mmpluld.evaluation.functional import (
    FROCProtocol,
    Interval,
    Matches,
    bootstrap_difference,
    bootstrap_sensitivity,
    get_protocol,
    match_detections,
    mean_sensitivity,
    sensitivity_at,
    threshold_at,
)
from mmpluld.evaluation.pairing import Pairing, Truth, load_truth, pair_images
from mmpluld.evaluation.strata import Others, stratify
from mmpluld.structures.records import DetectionSet
from mmpluld.typing import StrPath

__all__ = [
    "MatchedFiles",
    "compare_files",
    "evaluate_files",
    "evaluate_matched",
    "match_files",
    "plain",
]

# Measures that strict results report beside the protocol's own: IoBB alone rewards shrunken boxes.
_OTHER_MEASURES: tuple[dict[str, Any], ...] = (
    {"overlap": "iou", "threshold": 0.1, "min_iogt": 0.0},
    {"overlap": "iou", "threshold": 0.3, "min_iogt": 0.0},
    {"overlap": "iou", "threshold": 0.5, "min_iogt": 0.0},
    {"overlap": "iobb", "threshold": 0.3, "min_iogt": 0.3},
)
ONE_UNIT = "1 {0}, and a bootstrap over {0}s needs at least 2"
"""Why a result has no interval; of one patient every draw is the same data."""


@dataclass(frozen=True)
class MatchedFiles:
    """What the detections of a record find of a truth, read and matched once for all that is measured of it.

    Attributes:
        source: The record's file, for messages.
        detections: The record, its volumes under the names that the truth gives them.
        truth: What there is to find.
        pairing: Detections and truth by image.
        matches: What finds what.
        protocol: The rules.
        strict: Whether they are the strict ones.
    """

    source: StrPath
    detections: DetectionSet
    truth: Truth
    pairing: Pairing
    matches: Matches
    protocol: FROCProtocol
    strict: bool


def evaluate_files(
    pred_path: StrPath,
    gt_path: StrPath,
    protocol: str | FROCProtocol,
    strict: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    strata: Sequence[str] | None = None,
    others: Others = "ignored",
    same: Sequence[tuple[str, str]] = (),
    first_slice: int | None = None,
) -> dict[str, Any]:
    """FROC of a detection record against annotations, or against a detection record as truth.

    Lesions marked ``ignore`` are not counted; detections on them are neither hits nor false positives.
    Volumes without an entry in ``pred_path`` count as without detections, volumes that the truth does not
    know are left out; both are listed. ``strict`` refuses both, refuses invalid boxes, reads equal scores as
    one operating point, and adds results for other overlap measures. Detections are brought into the voxels of the
    truth, see :func:`~mmpluld.evaluation.frames.place`.

    Args:
        pred_path: Detection record with scores.
        gt_path: Annotation file or detection record; see ``load_truth`` for the images that it makes.
        protocol: Name or value of the rules.
        strict: Use the strict rules instead of those of the published evaluations.
        bootstrap: Resamples of patients for a 95 % interval; 0 for none. Of one patient there is none either, and
            ``no_interval`` says so.
        seed: Seed of the bootstrap.
        strata: Sub-groups to add: any of ``type``, ``size`` (long diameter), ``interval`` (between slices).
        others: What a detection on a lesion of another type or size is to a sub-group, see ``stratify``.
        same: Pairs of a volume of ``pred_path`` and the volume of ``gt_path`` that it is, where ids differ.
        first_slice: Which slice of its series the first slice of the one scan is, where the truth counts these.

    Returns:
        Plain values that fit into JSON. ``sensitivity``, ``threshold_at_level`` (lowest accepted score; None
        where no detection may be accepted) and the intervals follow ``levels``; ``average`` is over
        ``headline_levels``.

    Raises:
        InputError: If a file is unusable, there is no lesion to find, or strict rules are broken.
    """
    found = match_files(pred_path, gt_path, protocol, strict, same, first_slice)
    return evaluate_matched(found, bootstrap, seed, strata, others)


def evaluate_matched(
    found: MatchedFiles,
    bootstrap: int = 0,
    seed: int = 0,
    strata: Sequence[str] | None = None,
    others: Others = "ignored",
) -> dict[str, Any]:
    """FROC of matched files; arguments, result and errors are those of :func:`evaluate_files`."""
    pairing, matches, rules, strict = found.pairing, found.matches, found.protocol, found.strict
    result = _summary(matches, pairing, rules, strict)
    if bootstrap and len(set(pairing.patients)) < 2:
        result["no_interval"] = ONE_UNIT.format("patient")
    elif bootstrap:
        interval = bootstrap_sensitivity(matches, pairing.patients, rules, resamples=bootstrap, seed=seed)
        result["interval"] = _interval_values(interval, pairing, bootstrap, seed)
    if strata:
        result["strata"] = stratify(strata, matches, pairing, found.truth, rules, others=others, strict=strict)
        result["strata_others"] = others
    if strict:
        result["other_measures"] = [_other_measure(pairing, replace(rules, **other)) for other in _OTHER_MEASURES]
    return result


def match_files(
    pred_path: StrPath,
    gt_path: StrPath,
    protocol: str | FROCProtocol,
    strict: bool = False,
    same: Sequence[tuple[str, str]] = (),
    first_slice: int | None = None,
) -> MatchedFiles:
    """What the detections of a record find of a truth; arguments and errors are those of :func:`evaluate_files`."""
    rules = get_protocol(protocol)
    detections = _named_alike(pred_path, _load_detections(pred_path), same)
    truth = load_truth(gt_path, rules, like=detections)
    for _, name in same:
        if not any(name == volume for volume, _ in truth.images):
            names = list(dict.fromkeys(volume for volume, _ in truth.images))
            raise InputError(
                f"{gt_path}: no volume '{name}' to evaluate; {suggest(alike(name, names), _listing(names))}"
            )
    pairing, matches = _match(pred_path, detections, truth, rules, strict, first_slice)
    return MatchedFiles(pred_path, detections, truth, pairing, matches, rules, strict)


def compare_files(
    pred_path: StrPath,
    other_path: StrPath,
    gt_path: StrPath,
    protocol: str | FROCProtocol,
    strict: bool = False,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Difference in sensitivity of two detectors on the same truth, with a paired bootstrap over patients.

    Args:
        pred_path: Detection record of the first detector.
        other_path: That of the second.
        gt_path: As for ``evaluate_files``, like the other arguments.
        protocol: Name or value of the rules.
        strict: Use the strict rules.
        bootstrap: Resamples of patients, at least 1.
        seed: Seed of the bootstrap.

    Returns:
        Plain values: ``first`` and ``second`` (average each), ``difference`` and ``average_difference``
        (first - second), ``interval`` with ``p_value``, and in ``volumes`` those of the truth that each record has
        not, and those that it has beyond.

    Raises:
        InputError: As ``evaluate_files``.
    """
    rules = get_protocol(protocol)
    detections = _load_detections(pred_path)
    truth = load_truth(gt_path, rules, like=detections)
    pairing, first = _match(pred_path, detections, truth, rules, strict)
    others, second = _match(other_path, _load_detections(other_path), truth, rules, strict)
    if len(set(pairing.patients)) < 2:
        raise InputError(f"{gt_path}: {ONE_UNIT.format('patient')}; give a truth of several, or mend 'patient'")
    interval = bootstrap_difference(first, second, pairing.patients, rules, resamples=bootstrap, seed=seed)
    averages = [float(mean_sensitivity(sensitivity_at(matches, rules.levels), rules)) for matches in (first, second)]
    return {
        "protocol": rules.name,
        "mode": "strict" if strict else "compat",
        "per": rules.per,
        "levels": list(rules.levels),
        "volumes": {
            name: {"missing_volumes": part.missing, "extra_volumes": part.extra}
            for name, part in (("first", pairing), ("second", others))
        },
        "first": averages[0],
        "second": averages[1],
        "difference": interval.value.tolist(),
        "average_difference": interval.average,
        "interval": _interval_values(interval, pairing, bootstrap, seed) | {"p_value": interval.p_value},
    }


def plain(values: ArrayLike) -> list[float | None]:
    """Values for JSON, which knows neither NaN nor infinity."""
    return [float(value) if np.isfinite(value) else None for value in np.asarray(values)]


def _load_detections(path: StrPath) -> DetectionSet:
    """Read a detection record; of a table of findings, say where the record lies."""
    file = Path(path)
    if file.suffix.lower() == ".csv" and file.is_file():
        record = file.with_name("detections.json")
        give = f"{record}, which is beside it" if record.is_file() else "the detections.json of `mmpluld detect`"
        raise InputError(f"{path}: is a CSV, but evaluated are detection records; give {give} (CSV: luna16 alone)")
    return DetectionSet.load(path)


def _named_alike(path: StrPath, detections: DetectionSet, same: Sequence[tuple[str, str]]) -> DetectionSet:
    """Detections under the names that the truth gives their volumes."""
    names = dict(same)
    if len(names) < len(same):
        raise InputError(f"{path}: a volume is said to be two volumes of the truth (--same); say each once")
    for name in names:
        if name not in detections.volumes:
            known = list(detections.volumes)
            raise InputError(f"{path}: no volume '{name}'; {suggest(alike(name, known), _listing(known))}")
    renamed = [names.get(name, name) for name in detections.volumes]
    if len(set(renamed)) < len(renamed):
        twice = next(name for name in renamed if renamed.count(name) > 1)
        raise InputError(f"{path}: two volumes would be '{twice}' of the truth (--same); say each once")
    return DetectionSet(dict(zip(renamed, detections.volumes.values(), strict=True)))


def _listing(names: Sequence[str]) -> str:
    return f"there are {len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def _match(
    path: StrPath,
    detections: DetectionSet,
    truth: Truth,
    protocol: FROCProtocol,
    strict: bool,
    first_slice: int | None = None,
) -> tuple[Pairing, Matches]:
    """Match the detections of one file."""
    try:
        pairing = pair_images(truth, detections, protocol, first_slice)
        if detections.volumes and len(pairing.extra) == len(detections.volumes):
            close = _same_hint(pairing.extra[0], detections, truth, pairing.missing)
            raise InputError(
                f"none of its volumes ({pairing.extra[0]!r}, ...) is in {truth.source} ({pairing.missing[0]!r}, ...); "
                f"give the truth of these scans, or say which is which: --same PRED_ID GT_ID{close}"
            )
        if strict:
            _refuse_mismatch(pairing, truth)
        matches = match_detections(
            pairing.detections,
            pairing.scores,
            pairing.truth,
            protocol,
            ignored=pairing.ignored,
            strict=strict,
        )
    except InputError as error:
        message = str(error)
        raise InputError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    return pairing, matches


def _same_hint(name: str, detections: DetectionSet, truth: Truth, ids: Sequence[str]) -> str:
    """Which volume of the truth an unknown one may be: the one in whose geometry it lies, else those named alike."""
    fitting = [item for item in ids if fits(name, detections.volumes[name], truth.grids[item], truth.source)]
    if len(fitting) == 1:
        return f"; --same {name} {fitting[0]} fits by its geometry"
    hint = suggest(alike(name, fitting or ids) or fitting)
    return f"; {hint}" if hint else ""


def _refuse_mismatch(pairing: Pairing, truth: Truth) -> None:
    """Raise if detections and truth are not about the same volumes."""
    for volumes, what in ((pairing.missing, "no entry for"), (pairing.extra, "unknown to the truth:")):
        if volumes:
            shown = ", ".join(volumes[:5]) + (", ..." if len(volumes) > 5 else "")
            raise InputError(
                f"{what} {counted(len(volumes), 'volume')} ({shown}); strict evaluation needs exactly the volumes of "
                f"{truth.source}, an empty entry for one without detections"
            )
    if pairing.unexamined:
        raise InputError(
            f"{counted(pairing.unexamined, 'lesion')} of {truth.source} not on slices that were examined; strict "
            "evaluation needs the whole volumes"
        )


def _summary(matches: Matches, pairing: Pairing, protocol: FROCProtocol, strict: bool) -> dict[str, Any]:
    """Everything but intervals and sub-groups."""
    sensitivity = sensitivity_at(matches, protocol.levels)
    thresholds = threshold_at(matches, protocol.levels)
    return {
        "protocol": protocol.name,
        "mode": "strict" if strict else "compat",
        "dim": protocol.dim,
        "overlap": protocol.overlap,
        "threshold": protocol.threshold,
        "per": protocol.per,
        "levels": list(protocol.levels),
        "sensitivity": sensitivity.tolist(),
        "headline_levels": list(protocol.headline_levels),
        "average": float(mean_sensitivity(sensitivity, protocol)),
        "threshold_at_level": plain(thresholds),
        "num_images": matches.num_images,
        "num_volumes": len(set(pairing.image_volumes)),
        "num_patients": len(set(pairing.patients)),
        "num_lesions": len(matches.lesion_image),
        "num_ignored_lesions": sum(map(len, pairing.ignored)),
        "num_detections": len(matches.score),
        "num_off_slice_detections": pairing.off_slice if protocol.dim == 2 else 0,
        "missing_volumes": pairing.missing,
        "extra_volumes": pairing.extra,
        "unexamined_lesions": pairing.unexamined,
    }


def _interval_values(interval: Interval, pairing: Pairing, resamples: int, seed: int) -> dict[str, Any]:
    ends = np.column_stack([interval.low, interval.high])
    return {
        "confidence": 0.95,
        "resampled": "patients",
        "num_resampled": len(set(pairing.patients)),
        "resamples": resamples,
        "seed": seed,
        "sensitivity": [plain(pair) for pair in ends],
        "average": plain([interval.average_low, interval.average_high]),
    }


def _other_measure(pairing: Pairing, protocol: FROCProtocol) -> dict[str, Any]:
    """Strict result under another overlap measure."""
    matches = match_detections(
        pairing.detections, pairing.scores, pairing.truth, protocol, ignored=pairing.ignored, strict=True
    )
    sensitivity = sensitivity_at(matches, protocol.levels)
    return {
        "overlap": protocol.overlap,
        "threshold": protocol.threshold,
        "min_iogt": protocol.min_iogt,
        "sensitivity": sensitivity.tolist(),
        "average": float(mean_sensitivity(sensitivity, protocol)),
    }
