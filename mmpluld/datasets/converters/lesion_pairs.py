"""Pairs of marks that are one lesion, as the Deep Lesion Tracker's files give them for DeepLesion.

``dls_pairs_valid.json`` and ``dls_pairs_test.json``: by number an entry with ``source`` and ``target``, names of
sub-volumes (``000004_02_01_007-019.nii.gz``: the slices of a series from 7 to 19), and for each of the two ``recist
slice`` (``000004_02_01/013.png``), ``recist box`` (x, y, width, height in the pixels of ``DL_info.csv``) and ``center``
(x, y, z; z counts the slices of the sub-volume from 0). Each pair is there in both directions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmpluld.errors import InputError
from mmpluld.structures import AnnotationSet, LesionRecord, pairwise_overlap
from mmpluld.structures.text_files import read_json
from mmpluld.typing import StrPath

__all__ = ["PairedMark", "number_lesions", "read_lesion_pairs"]

_VOLUME = re.compile(r"((\d+)_\d+_\d+)_(\d+)-(\d+)\.nii\.gz", re.ASCII)
_SLICE = re.compile(r"(\d+_\d+_\d+)/(\d+)\.png", re.ASCII)
_WANTED = "dls_pairs_valid.json or dls_pairs_test.json of the Deep Lesion Tracker"
_SAME_IOU = 0.5


@dataclass(frozen=True, order=True)
class PairedMark:
    """A mark of DeepLesion.

    Attributes:
        volume: Series, PATIENT_STUDY_SERIES.
        slice: Number of its key slice.
        box: x1, y1, x2, y2 in pixel edges.
    """

    volume: str
    slice: int
    box: tuple[float, float, float, float]

    @property
    def patient(self) -> str:
        """The patient."""
        return self.volume.partition("_")[0]


def read_lesion_pairs(path: StrPath) -> list[tuple[PairedMark, PairedMark]]:
    """Read the pairs, each once, in the order of the file.

    Raises:
        InputError: The file is missing or malformed, an entry contradicts itself, or a pair joins two patients.
    """
    data = read_json(path, _WANTED)
    if not isinstance(data, dict) or not data:
        raise InputError(f"{path}: holds no entries by number; give {_WANTED}")
    pairs: dict[frozenset[PairedMark], tuple[PairedMark, PairedMark]] = {}
    for name, entry in data.items():
        try:
            source, target = (_mark(entry, side) for side in ("source", "target"))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{path}: entry {name!r}: {reason}; give {_WANTED}") from None
        if source.patient != target.patient or source == target:
            raise InputError(
                f"{path}: entry {name!r}: {source.volume} and {target.volume} are no two marks of a patient"
            )
        pairs.setdefault(frozenset((source, target)), (source, target))
    return list(pairs.values())


def number_lesions(
    annotations: AnnotationSet, pairs: Iterable[tuple[PairedMark, PairedMark]]
) -> tuple[int, list[PairedMark]]:
    """Give the marks of pairs ``attributes["lesion"]``: marks that pairs join have one number, unique in the patient.

    A mark is the annotated lesion whose box on that slice overlaps it most, by an IoU of at least 0.5.

    Returns:
        How many lesions got a number, and the marks of patients of the file that are none of its lesions.
    """
    volumes = {volume.id for volume in annotations.volumes}
    on_slice: dict[tuple[str, int | None], list[LesionRecord]] = {}
    for lesion in annotations.lesions:
        on_slice.setdefault((lesion.volume, lesion.key_slice), []).append(lesion)
    groups = _groups(pairs)
    missing: list[PairedMark] = []
    counts: dict[str, int] = {}
    numbered = 0
    for group in groups:
        found = []
        for mark in group:
            nearest = _nearest(mark, on_slice.get((mark.volume, mark.slice), ()))
            if nearest is not None:
                found.append(nearest)
            elif mark.volume in volumes:
                missing.append(mark)
        if found:
            number = counts[group[0].patient] = counts.get(group[0].patient, 0) + 1
            for lesion in found:
                lesion.attributes["lesion"] = number
            numbered += len(found)
    return numbered, missing


def _mark(entry: Mapping[str, Any], side: str) -> PairedMark:
    """One side of an entry; ValueError says what is wrong with it."""
    volume, place = (
        pattern.fullmatch(entry[key]) for pattern, key in ((_VOLUME, side), (_SLICE, f"{side} recist slice"))
    )
    if volume is None or place is None or volume[1] != place[1]:
        raise ValueError(f"{side} is {entry[side]!r} with slice {entry[f'{side} recist slice']!r}")
    number, first, last = int(place[2]), int(volume[3]), int(volume[4])
    if not first <= number <= last:
        raise ValueError(f"{side} recist slice is {number}, the sub-volume has {first} to {last}")
    z = float(entry[f"{side} center"][2])
    if abs(first + z - number) > 0.5:
        raise ValueError(f"{side} center is on slice {first + z:g}, its recist slice is {number}")
    x, y, width, height = map(float, entry[f"{side} recist box"])
    if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
        raise ValueError(f"{side} recist box is {entry[f'{side} recist box']}")
    # Their x + width is the table's far pixel; both count pixels from 1.
    return PairedMark(place[1], number, (x - 1, y - 1, x + width, y + height))


def _groups(pairs: Iterable[tuple[PairedMark, PairedMark]]) -> list[list[PairedMark]]:
    """Marks that pairs join, directly or by others, sorted."""
    groups: dict[PairedMark, set[PairedMark]] = {}
    for pair in pairs:
        joined = set(pair).union(*(groups.get(mark, ()) for mark in pair))
        groups.update(dict.fromkeys(joined, joined))
    return sorted(sorted(group) for group in {id(group): group for group in groups.values()}.values())


def _nearest(mark: PairedMark, lesions: Sequence[LesionRecord]) -> LesionRecord | None:
    if not lesions:
        return None
    boxes = np.array([(*lesion.box[:2], *lesion.box[3:5]) for lesion in lesions])
    overlaps = pairwise_overlap(np.array([mark.box]), boxes, "iou")[0]
    best = int(overlaps.argmax())
    return lesions[best] if overlaps[best] >= _SAME_IOU else None
