"""Parts of the phantom's series around a marked lesion, as DeepLesion's fully annotated sub-volumes are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mmpluld.structures import SERIES_SLICES, AnnotationSet, LesionRecord, VolumeRecord

__all__ = ["cut_subvolumes"]

# Along z, half to either side of a key slice: what DeepLesion publishes of most series.
_LENGTH_MM = 60.0


def cut_subvolumes(truth: AnnotationSet) -> AnnotationSet:
    """Cut one sub-volume out of every series, around the middle one of its marked lesions.

    Boxes are cut at its ends, as those of DeepLesion's test are, and have no boxes of single slices; a lesion of which
    less than half of the slices is left is to be ignored.

    Args:
        truth: All lesions of whole series, in 3D, with ``attributes["marked"]`` and key slices.

    Returns:
        The sub-volumes, named ``<series>_<first>-<last>`` with slice numbers, and their lesions; series without marked
        lesions are left out.
    """
    by_volume = truth.lesions_by_volume()
    volumes: list[VolumeRecord] = []
    lesions: list[LesionRecord] = []
    for series in truth.volumes:
        keys = sorted(
            lesion.key_slice
            for lesion in by_volume[series.id]
            if lesion.attributes.get("marked") and lesion.key_slice is not None
        )
        if keys:
            part = _part(series, keys[len(keys) // 2])
            volumes.append(part)
            lesions += _lesions(part, by_volume[series.id], len(lesions))
    return AnnotationSet(truth.dataset, volumes, lesions)


def _part(series: VolumeRecord, key: int) -> VolumeRecord:
    """The slices up to half of ``_LENGTH_MM`` from slice ``key``."""
    reach = math.floor(_LENGTH_MM / 2 / series.spacing_mm[0])
    first = max(series.first_slice, key - reach)
    last = min(series.first_slice + series.num_slices - 1, key + reach)
    name, count = f"{series.id}_{first:03d}-{last:03d}", last - first + 1
    return replace(series, id=name, first_slice=first, num_slices=count, frame=SERIES_SLICES, affine_lps=None)


def _lesions(part: VolumeRecord, lesions: Sequence[LesionRecord], count: int) -> list[LesionRecord]:
    """What of the lesions of a series lies in a part of it; numbers go on from ``count``."""
    low, high = float(part.first_slice), float(part.first_slice + part.num_slices)
    found: list[LesionRecord] = []
    for lesion in lesions:
        x1, y1, z1, x2, y2, z2 = lesion.box
        bottom, top = max(z1, low), min(z2, high)
        if top <= bottom:
            continue
        key = lesion.key_slice if lesion.key_slice is not None and low <= lesion.key_slice < high else None
        found.append(
            replace(
                lesion,
                id=count + len(found),
                volume=part.id,
                box=(x1, y1, bottom, x2, y2, top),
                key_slice=key,
                recist=lesion.recist if key is not None else None,
                mask=lesion.mask if key is not None else None,
                attributes={name: value for name, value in lesion.attributes.items() if name != "slice_boxes"},
                ignore=lesion.ignore or 2 * (top - bottom) < z2 - z1,
            )
        )
    return found
