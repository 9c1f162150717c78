"""Sub-groups of lesions and of images by which results are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from mmpluld.errors import InputError, did_you_mean
from mmpluld.evaluation.functional import (
    FROCProtocol,
    Matches,
    match_detections,
    mean_sensitivity,
    sensitivity_at,
)
from mmpluld.evaluation.pairing import Pairing, Truth
from mmpluld.structures.records import LesionRecord, VolumeRecord
from mmpluld.typing import BoolArray

__all__ = ["STRATA", "Others", "long_diameter_mm", "stratify"]

Others = Literal["ignored", "fp"]

# The distance of oblique slices is a square root of rounded numbers: 5 mm comes out as 5.0000002 or 4.9998.
_INTERVAL_DIGITS = 2


def stratify(
    kinds: Sequence[str],
    matches: Matches,
    pairing: Pairing,
    truth: Truth,
    protocol: FROCProtocol,
    *,
    others: Others = "ignored",
    strict: bool = False,
) -> list[dict[str, object]]:
    """Results by sub-group, a row each.

    ``interval`` selects images by their slice interval: false positives, lesions and the number of images are
    counted anew in each group, as published tests do for thin slices.

    ``type`` and ``size`` select lesions, and all images remain. A detector does not know which group is asked for,
    so what its detections on the other groups' lesions are must be said. With ``others="ignored"`` they count neither
    for nor against: false positives and operating points remain those of the whole evaluation, and the groups'
    sensitivities, weighted by their lesions, average to its sensitivity. With ``"fp"``, as the author of DeepLesion
    evaluates, the other lesions are taken out of the truth and the detections on them are false positives, which
    lowers the more the rarer a group is.

    Args:
        kinds: Any of ``STRATA``.
        matches: Result of the whole evaluation.
        pairing: What it was computed from.
        truth: Gives spacing to sizes and intervals.
        protocol: The rules.
        others: The choice above.
        strict: Whether the whole evaluation was strict.

    Raises:
        InputError: If a kind or ``others`` is unknown.
    """
    if others not in ("ignored", "fp"):
        raise InputError(f"others is {others!r}; allowed are 'ignored' and 'fp'")
    rows: list[dict[str, object]] = []
    for kind in kinds:
        if kind not in STRATA:
            raise InputError(f"stratum '{kind}' is not one of {', '.join(STRATA)}{did_you_mean(kind, STRATA)}")
        for group, images, lesions in STRATA[kind](pairing, truth):
            counted = lesions & images[matches.lesion_image]
            if not counted.any():
                continue
            if others == "fp" and not lesions.all():
                alone = _match_alone(pairing, matches, lesions, protocol, strict)
                sensitivity = sensitivity_at(alone, protocol.levels)
            else:
                sensitivity = sensitivity_at(matches, protocol.levels, weights=images, lesions=lesions)
            rows.append(
                {
                    "stratum": kind,
                    "group": group,
                    "num_images": int(images.sum()),
                    "num_lesions": int(counted.sum()),
                    "sensitivity": sensitivity.tolist(),
                    "average": float(mean_sensitivity(sensitivity, protocol)),
                }
            )
    return rows


def _match_alone(
    pairing: Pairing, matches: Matches, lesions: BoolArray, protocol: FROCProtocol, strict: bool
) -> Matches:
    """Match against the chosen lesions as if there were no others."""
    ends = np.bincount(matches.lesion_image, minlength=matches.num_images).cumsum()
    chosen = np.split(lesions, ends[:-1])
    return match_detections(
        pairing.detections,
        pairing.scores,
        [boxes[keep] for boxes, keep in zip(pairing.truth, chosen, strict=True)],
        protocol,
        ignored=pairing.ignored,
        strict=strict,
    )


def long_diameter_mm(lesion: LesionRecord, volume: VolumeRecord | None) -> float:
    """Length of the RECIST long axis, else of the longer in-plane side of the box; NaN without spacing.

    DeepLesion boxes are 5 pixels wider than the mark on each side, so the fall-back reads large there.
    """
    if volume is None:
        return float("nan")
    _, step_y, step_x = volume.spacing_mm
    if lesion.recist is not None:
        x1, y1, x2, y2 = lesion.recist[:4]
        return float(np.hypot((x2 - x1) * step_x, (y2 - y1) * step_y))
    x1, y1, _, x2, y2, _ = lesion.box
    return float(max((x2 - x1) * step_x, (y2 - y1) * step_y))


Groups = Iterator[tuple[str, BoolArray, BoolArray]]


def _by_type(pairing: Pairing, truth: Truth) -> Groups:
    names = np.array([lesion.type or "unknown" for lesion in pairing.lesions], dtype=object)
    for name in sorted(set(names)):
        yield name, np.ones(len(pairing.truth), dtype=np.bool_), np.asarray(names == name, dtype=np.bool_)


def _by_size(pairing: Pairing, truth: Truth) -> Groups:
    sizes = np.array([long_diameter_mm(item, truth.volumes.get(item.volume)) for item in pairing.lesions])
    groups = (
        ("< 10 mm", sizes < 10),
        ("10 to 30 mm", (sizes >= 10) & (sizes <= 30)),
        ("> 30 mm", sizes > 30),
        ("unknown", np.isnan(sizes)),
    )
    for name, chosen in groups:
        yield name, np.ones(len(pairing.truth), dtype=np.bool_), chosen


def _by_interval(pairing: Pairing, truth: Truth) -> Groups:
    interval = np.array(
        [truth.volumes[volume].spacing_mm[0] if volume in truth.volumes else np.nan for volume in pairing.image_volumes]
    )
    interval = np.round(interval, _INTERVAL_DIGITS)
    groups = (
        ("<= 2 mm", interval <= 2),
        ("> 2, < 5 mm", (interval > 2) & (interval < 5)),
        ("5 mm", interval == 5),
        ("> 5 mm", interval > 5),
        ("unknown", np.isnan(interval)),
    )
    for name, chosen in groups:
        yield name, chosen, np.ones(len(pairing.lesions), dtype=np.bool_)


STRATA: dict[str, Callable[[Pairing, Truth], Groups]] = {
    "type": _by_type,
    "size": _by_size,
    "interval": _by_interval,
}
