"""The complete truth beside a partly labelled annotation file: what mining could find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mmpluld.errors import InputError, name_some
from mmpluld.evaluation.strata import long_diameter_mm
from mmpluld.structures import (
    AnnotationSet,
    Box2D,
    LesionRecord,
    annotated_boxes,
    boxes_by_slice,
    centres_between,
    pairwise_overlap,
)
from mmpluld.typing import StrPath

__all__ = ["BY_TRUTH", "SAME", "TrueLesion", "CompleteTruth", "lies_on", "load_complete_truth"]

SAME = 0.5
"""Least IoU of a box with a true one on its slice to be on that lesion."""

BY_TRUTH = "truth"
"""``attributes["expert"]`` of uncertain boxes that come from the truth."""


@dataclass(frozen=True)
class TrueLesion:
    """One lesion in one volume.

    Attributes:
        identity: Its number in the patient, the same in all volumes that show it.
        type: In words, or ``unknown``.
        size: Its group by long diameter.
        box: 3D edges.
        boxes: 2D boxes by slice; cross-sections too small to stand for the lesion have none.
    """

    identity: int
    type: str
    size: str
    box: tuple[float, float, float, float, float, float]
    boxes: Mapping[int, Box2D]

    def every_box(self) -> dict[int, Box2D]:
        """A 2D box on each slice that the lesion reaches; where it has none, that of the nearest slice with one."""
        if not self.boxes:
            return {}
        reached = centres_between(self.box[2], self.box[5])
        return {n: self.boxes[min(self.boxes, key=lambda other: (abs(other - n), other))] for n in reached}


class CompleteTruth:
    """All lesions of some volumes.

    Args:
        complete: Annotations of all lesions, whose ``attributes["lesion"]`` is their identity in the patient.
        where: Its file, for messages.

    Raises:
        InputError: A lesion has no identity.
    """

    def __init__(self, complete: AnnotationSet, where: StrPath) -> None:
        volumes = {volume.id: volume for volume in complete.volumes}
        self._lesions: dict[str, list[TrueLesion]] = {name: [] for name in volumes}
        self._rows: dict[str, dict[int, list[tuple[TrueLesion, Box2D]]]] = {name: {} for name in volumes}
        for record in sorted(complete.lesions, key=lambda item: item.id):
            identity = record.attributes.get("lesion")
            if not isinstance(identity, int):
                raise InputError(
                    f"{where}: lesion {record.id} has no attributes.lesion, the number of the lesion in the patient; "
                    "give the truth of a phantom, truth/train.json"
                )
            if record.ignore:
                continue
            size = _size(long_diameter_mm(record, volumes[record.volume]))
            lesion = TrueLesion(identity, record.type or "unknown", size, record.box, boxes_by_slice(record))
            self._lesions[record.volume].append(lesion)
            for number, box in lesion.boxes.items():
                self._rows[record.volume].setdefault(number, []).append((lesion, box))

    @classmethod
    def load(cls, path: StrPath, annotations: AnnotationSet) -> CompleteTruth:
        """Read the truth of some annotations.

        Raises:
            InputError: It is faulty, or lacks a volume.
        """
        return cls(load_complete_truth(path, annotations), path)

    @property
    def types(self) -> set[str]:
        """Types of its lesions."""
        return {lesion.type for lesions in self._lesions.values() for lesion in lesions}

    def lesions(self, volume: str) -> list[TrueLesion]:
        """The lesions of a volume."""
        return self._lesions[volume]

    def on(self, volume: str, number: int, box: Box2D) -> TrueLesion | None:
        """The lesion on which a 2D box lies, if there is one."""
        rows = self._rows[volume].get(number, [])
        if not rows:
            return None
        overlaps = np.nan_to_num(pairwise_overlap(np.array([box]), np.array([true for _, true in rows])))[0]
        return rows[int(overlaps.argmax())][0] if overlaps.max() >= SAME else None

    def on_cap(self, volume: str, number: int, box: Box2D) -> bool:
        """Whether a 2D box lies on a lesion's cross-section that is too small to stand for it, by half or more."""
        inside = [
            [lesion.box[index] for index in (0, 1, 3, 4)]
            for lesion in self._lesions[volume]
            if lesion.box[2] <= number < lesion.box[5] and number not in lesion.boxes
        ]
        if not inside:
            return False
        return bool(np.nan_to_num(pairwise_overlap(np.array([box]), np.array(inside), "iobb")).max() >= SAME)

    def of(self, lesion: LesionRecord) -> TrueLesion | None:
        """The lesion that a record is of: that on which half or more of its boxes lie, of its annotated ones if any."""
        boxes = annotated_boxes(lesion) or boxes_by_slice(lesion)
        hits = [self.on(lesion.volume, number, box) for number, box in boxes.items()]
        counts = Counter(id(hit) for hit in hits if hit is not None)
        if not counts:
            return None
        best, count = min(counts.items(), key=lambda item: -item[1])
        return next(hit for hit in hits if id(hit) == best) if 2 * count >= len(hits) else None

    def identities(self, lesions: Iterable[LesionRecord]) -> set[int]:
        """Identities of the lesions that records are of."""
        return {found.identity for found in map(self.of, lesions) if found is not None}


def load_complete_truth(path: StrPath, annotations: AnnotationSet) -> AnnotationSet:
    """Read the complete annotations of the volumes of some others.

    Raises:
        InputError: The file is faulty, or lacks a volume.
    """
    complete = AnnotationSet.load(path)
    missing = sorted({item.id for item in annotations.volumes} - {item.id for item in complete.volumes})
    if missing:
        raise InputError(f"{path}: lacks volumes of the annotations ({name_some(missing)}); give their truth")
    return complete


def lies_on(box: Box2D, others: Iterable[Box2D]) -> bool:
    """Whether a box overlaps one of others enough to be on the same lesion."""
    rows = list(others)
    return bool(rows) and bool(np.nan_to_num(pairwise_overlap(np.array([box]), np.array(rows))).max() >= SAME)


def _size(long_mm: float) -> str:
    if np.isnan(long_mm):
        return "unknown"
    return "< 10 mm" if long_mm < 10 else "10 to 30 mm" if long_mm <= 30 else "> 30 mm"
