"""Results of evaluations as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpluld.errors import counted
from mmpluld.text_table import text_table

__all__ = ["format_table"]

_OTHERS = {
    "ignored": "in a type or size, detections that find another lesion are ignored",
    "fp": "in a type or size, detections that find only other lesions are false positives",
}
_LABELS = {"iou": "IoU", "iobb": "IoBB", "iogt": "IoGT", "iobbgt": "max(IoBB, IoGT)"}


def format_table(result: Mapping[str, Any]) -> str:
    """Lay out a result of ``evaluate_files``, ``compare_files`` or ``evaluate_luna16`` for the terminal.

    Sensitivities are in per cent, one column per false-positive level, the headline average last; differences
    are in percentage points.
    """
    header = [
        f"FP per {result.get('per', 'image')}",
        *(f"{level:g}" for level in result["levels"]),
        "average",
    ]
    if "difference" in result:
        rows = [_row("difference", result["difference"], result["average_difference"])]
        rows += _interval_rows(result)
        footer = [
            f"average: first {100 * result['first']:.2f}, second {100 * result['second']:.2f}; "
            f"p = {result['interval']['p_value']:.3g} (two-sided, paired bootstrap over patients)"
        ]
        for name, volumes in result["volumes"].items():
            footer += _notes(volumes, f"{name}: ")
    else:
        rows = [_row("sensitivity %", result["sensitivity"], result["average"]), *_interval_rows(result)]
        thresholds = ["-" if value is None else f"{value:.4g}" for value in result["threshold_at_level"]]
        rows.append(["score threshold", *thresholds, ""])
        for item in result.get("strata", []):
            label = f"{item['stratum']} {item['group']} ({item['num_lesions']})"
            rows.append(_row(label, item["sensitivity"], item["average"]))
        for item in result.get("other_measures", []):
            also = f", IoGT >= {item['min_iogt']:g}" if item["min_iogt"] else ""
            label = f"{_LABELS[item['overlap']]} >= {item['threshold']:g}{also}"
            rows.append(_row(label, item["sensitivity"], item["average"]))
        footer = [f"note: {_OTHERS[result['strata_others']]}"] if "strata_others" in result else []
        footer += _counts(result)
    title = f"{result['protocol']} ({result['mode']})"
    return "\n".join([title, text_table([header, *rows]), *footer])


def _row(label: str, values: Sequence[float], average: float) -> list[str]:
    return [label, *(f"{100 * value:.2f}" for value in values), f"{100 * average:.2f}"]


def _interval_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Lower and upper end of the bootstrap interval, if there is one."""
    if "interval" not in result:
        return []
    interval = result["interval"]
    rows = []
    for end, name in enumerate(("low", "high")):
        values = [pair[end] for pair in (*interval["sensitivity"], interval["average"])]
        shown = ["-" if value is None else f"{100 * value:.2f}" for value in values]
        of = f"{interval['num_resampled']} {interval['resampled']}"
        rows.append([f"  {100 * interval['confidence']:g} % {name}, {of}", *shown])
    return rows


def _counts(result: Mapping[str, Any]) -> list[str]:
    """What was evaluated, and what was left out."""
    images = f"{counted(result['num_images'], 'key slice')} of " if result["dim"] == 2 else ""
    patients = f", {counted(result['num_patients'], 'patient')}" if result["num_patients"] is not None else ""
    hit = "a mark nearer to the centre than the radius"
    if result["overlap"] == "centre":
        hit = "a centre inside what the lesion's box encloses"
    if result["overlap"] in _LABELS:
        hit = f"{_LABELS[result['overlap']]} >= {result['threshold']:g}"
    lines = [
        f"{counted(result['num_lesions'], 'lesion')}, {counted(result['num_detections'], 'detection')}, {images}"
        f"{counted(result['num_volumes'], 'volume')}{patients}; a hit is {hit}"
    ]
    if "no_interval" in result:
        lines.append(f"note: no interval: {result['no_interval']}")
    return lines + _notes(result)


def _notes(result: Mapping[str, Any], whose: str = "") -> list[str]:
    """What was left out or counts otherwise, one line each."""
    # Number, noun, and what is said of one and of several.
    found = (
        (result.get("num_ignored_lesions"), "lesion", "marked ignore is not counted", "marked ignore are not counted"),
        (
            result.get("num_off_slice_detections"),
            "detection",
            "lies on no evaluated slice and is left out",
            "lie on no evaluated slice and are left out",
        ),
        (
            result.get("num_over_limit"),
            "mark",
            "beyond 100 in a scan, the least probable one, is left out",
            "beyond 100 in a scan, the least probable ones, are left out",
        ),
        (
            result.get("num_set_aside"),
            "mark",
            "on an excluded finding, or again on a nodule, is not counted",
            "on excluded findings, or again on a nodule, are not counted",
        ),
        (
            len(result["missing_volumes"]),
            "volume",
            "has no entry and counts as without detections",
            "have no entry and count as without detections",
        ),
        (
            result.get("unexamined_lesions"),
            "lesion",
            "lies on slices that were not examined and counts as missed",
            "lie on slices that were not examined and count as missed",
        ),
        (
            len(result["extra_volumes"]),
            "volume",
            "is unknown to the truth and left out",
            "are unknown to the truth and left out",
        ),
    )
    return [f"note: {whose}{counted(n, noun)} {one if n == 1 else several}" for n, noun, one, several in found if n]
