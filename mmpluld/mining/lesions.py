"""Lesion records with boxes on single slices, and what mining adds to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from mmpluld.structures import (
    AnnotationSet,
    Box2D,
    LesionRecord,
    VolumeRecord,
    boxes_by_slice,
    origins_by_slice,
    pairwise_overlap,
)
from mmpluld.structures.overlaps import Overlap

__all__ = ["SliceIndex", "extended", "is_annotation", "new_lesion", "patients_of", "with_lesions"]


def is_annotation(lesion: LesionRecord) -> bool:
    """Whether a lesion is certain and a person's."""
    return lesion.origin == "annotated" and not lesion.ignore


class SliceIndex:
    """The 2D boxes on the slices of one volume, each with the id of its lesion."""

    def __init__(self, lesions: Iterable[LesionRecord] = ()) -> None:
        self._rows: dict[int, list[tuple[int, Box2D]]] = {}
        for lesion in lesions:
            for number, box in boxes_by_slice(lesion).items():
                self.add(number, lesion.id, box)

    def add(self, number: int, lesion: int, box: Box2D) -> None:
        """Note a box of a lesion on a slice."""
        self._rows.setdefault(number, []).append((lesion, box))

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def on(self, number: int) -> list[Box2D]:
        """The boxes on a slice."""
        return [box for _, box in self._rows.get(number, ())]

    @property
    def slices(self) -> set[int]:
        """Slices with a box."""
        return set(self._rows)

    def overlap(self, number: int, box: Box2D, but: int | None = None, kind: Overlap = "iou") -> float:
        """The largest overlap of a box with those on its slice, leaving out one lesion; 0 where there are none."""
        others = [other for lesion, other in self._rows.get(number, ()) if lesion != but]
        if not others:
            return 0.0
        return float(np.nan_to_num(pairwise_overlap(np.array([box]), np.array(others), kind)).max())

    def shared(self, number: int, box: Box2D, but: int | None = None) -> float:
        """As :meth:`overlap`, in shares of the smaller of both boxes: 1 where one lies within the other."""
        return self.overlap(number, box, but, "iobbgt")


def extended(
    lesion: LesionRecord, boxes: Mapping[int, Box2D], origin: str, taken: SliceIndex, conflict_share: float
) -> LesionRecord:
    """The lesion with boxes on slices on which it had none; what it had stays as it was.

    Args:
        lesion: The lesion.
        boxes: Boxes by slice.
        origin: Where they come from.
        taken: Positive boxes of the volume; those added are noted in it.
        conflict_share: A box is dropped that shares more than this part of the smaller of both with one of another
            lesion.
    """
    own, origins = boxes_by_slice(lesion), origins_by_slice(lesion)
    added = {
        number: box
        for number, box in boxes.items()
        if number not in own and taken.shared(number, box, but=lesion.id) <= conflict_share
    }
    if not added:
        return lesion
    for number, box in added.items():
        taken.add(number, lesion.id, box)
    return _with_boxes(lesion, {**own, **added}, {**origins, **dict.fromkeys(added, origin)})


def new_lesion(record: LesionRecord, boxes: Mapping[int, Box2D]) -> LesionRecord:
    """A mined lesion with its boxes by slice, at least one; ``record`` says the rest."""
    return _with_boxes(record, boxes, dict.fromkeys(boxes, record.origin))


def _with_boxes(lesion: LesionRecord, boxes: Mapping[int, Box2D], origins: Mapping[int, str]) -> LesionRecord:
    """The lesion with these boxes, in the order of the slices; ``box`` is their hull."""
    rows = sorted(boxes.items())
    edges = np.array([box for _, box in rows])
    (x1, y1), (x2, y2) = edges[:, :2].min(axis=0).tolist(), edges[:, 2:].max(axis=0).tolist()
    attributes = lesion.attributes | {
        "slice_boxes": [[number, *box] for number, box in rows],
        "slice_origins": [origins[number] for number, _ in rows],
    }
    return replace(lesion, box=(x1, y1, float(rows[0][0]), x2, y2, rows[-1][0] + 1.0), attributes=attributes)


def with_lesions(
    annotations: AnnotationSet,
    changed: Mapping[int, LesionRecord],
    found: Iterable[LesionRecord],
    keep: Callable[[LesionRecord], bool] = lambda lesion: True,
) -> AnnotationSet:
    """The annotations with some lesions changed, by id, and others found, which get ids of their own.

    Ids are given in the order of volume, slices and boxes, so that they do not depend on the order in the files.
    """
    lesions = [changed.get(lesion.id, lesion) for lesion in annotations.lesions if keep(lesion)]
    first = max((lesion.id for lesion in annotations.lesions), default=-1) + 1
    ordered = sorted(found, key=lambda lesion: (lesion.volume, lesion.box[2], lesion.box, -(lesion.score or 0)))
    lesions += [replace(lesion, id=first + index) for index, lesion in enumerate(ordered)]
    return AnnotationSet(annotations.dataset, annotations.volumes, lesions)


def patients_of(annotations: AnnotationSet) -> dict[str, list[VolumeRecord]]:
    """The volumes of every patient, both in the order of their names; where none is named, each volume is one."""
    patients: dict[str, list[VolumeRecord]] = {}
    for volume in sorted(annotations.volumes, key=lambda volume: (volume.person, volume.id)):
        patients.setdefault(volume.person, []).append(volume)
    return patients
