"""Strategies with perfect precision and recall, from the complete truth: the most that mining could be worth."""

from __future__ import annotations

from collections.abc import Collection

from mmpluld.mining.lesions import SliceIndex, extended, is_annotation, new_lesion, patients_of, with_lesions
from mmpluld.mining.truth import BY_TRUTH, CompleteTruth, lies_on
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

__all__ = ["across_slices", "on_labelled_slices", "on_unlabelled_slices", "within_patients"]


def across_slices(annotations: AnnotationSet, truth: CompleteTruth) -> AnnotationSet:
    """Every annotated lesion gets its true boxes on its other slices."""
    changed = {}
    for lesion in annotations.lesions:
        found = truth.of(lesion) if is_annotation(lesion) else None
        if found is not None:
            changed[lesion.id] = extended(lesion, found.boxes, "propagated", SliceIndex(), conflict_share=1)
    return with_lesions(annotations, changed, [])


def within_patients(annotations: AnnotationSet, truth: CompleteTruth) -> AnnotationSet:
    """Every lesion that is annotated in a volume is one in the patient's other volumes that show it."""
    by_volume = annotations.lesions_by_volume()
    changed: dict[int, LesionRecord] = {}
    fresh: list[LesionRecord] = []
    for volumes in patients_of(annotations).values():
        marked: dict[int, list[LesionRecord]] = {}
        for volume in volumes:
            for lesion in sorted(filter(is_annotation, by_volume[volume.id]), key=lambda item: item.id):
                found = truth.of(lesion)
                if found is not None:
                    marked.setdefault(found.identity, []).append(lesion)
        for volume in volumes:
            joined, new = _matched(volume, by_volume[volume.id], marked, truth)
            changed |= joined
            fresh += new
    return with_lesions(annotations, changed, fresh)


def _matched(
    volume: VolumeRecord, lesions: list[LesionRecord], marked: dict[int, list[LesionRecord]], truth: CompleteTruth
) -> tuple[dict[int, LesionRecord], list[LesionRecord]]:
    """The lesions of a volume that got boxes because of marks in other volumes, by id, and the new ones."""
    own: dict[int, LesionRecord] = {}
    for lesion in sorted((item for item in lesions if not item.ignore), key=lambda item: item.id):
        known = truth.of(lesion)
        if known is not None:
            own.setdefault(known.identity, lesion)
    joined, fresh = {}, []
    for found in truth.lesions(volume.id):
        marks = [lesion for lesion in marked.get(found.identity, []) if lesion.volume != volume.id]
        if not marks or not found.boxes:
            continue
        if found.identity in own:
            lesion = own[found.identity]
            joined[lesion.id] = extended(lesion, found.boxes, "matched", SliceIndex(), conflict_share=1)
            continue
        attributes = {"matched_lesion": marks[0].id, "distance": 0.0}
        record = LesionRecord(
            -1, volume.id, (0.0,) * 6, type=marks[0].type, origin="matched", score=1.0, attributes=attributes
        )
        fresh.append(new_lesion(record, found.boxes))
    return joined, fresh


def on_labelled_slices(annotations: AnnotationSet, truth: CompleteTruth, types: Collection[str] = ()) -> AnnotationSet:
    """Every true box without label is uncertain, on slices with a certain lesion.

    So are cross-sections too small to have a box, with that of the lesion's nearest slice: they are no background.

    Args:
        annotations: What is known.
        truth: All lesions.
        types: Those of the lesions that may be found; none: all.
    """
    return _uncertain(annotations, truth, types, labelled=True)


def on_unlabelled_slices(
    annotations: AnnotationSet, truth: CompleteTruth, types: Collection[str] = ()
) -> AnnotationSet:
    """The same on slices without a certain lesion."""
    return _uncertain(annotations, truth, types, labelled=False)


def _uncertain(
    annotations: AnnotationSet, truth: CompleteTruth, types: Collection[str], labelled: bool
) -> AnnotationSet:
    by_volume = annotations.lesions_by_volume()
    found = []
    for volume in annotations.volumes:
        certain = SliceIndex(lesion for lesion in by_volume[volume.id] if not lesion.ignore)
        doubtful = SliceIndex(lesion for lesion in by_volume[volume.id] if lesion.ignore)
        for lesion in truth.lesions(volume.id):
            if types and lesion.type not in types:
                continue
            for number, box in lesion.every_box().items():
                known = lies_on(box, certain.on(number)) or lies_on(box, doubtful.on(number))
                if (number in certain.slices) == labelled and not known:
                    x1, y1, x2, y2 = box
                    edges = (x1, y1, float(number), x2, y2, number + 1.0)
                    record = LesionRecord(
                        0, volume.id, edges, ignore=True, origin="mined", score=1.0, attributes={"expert": BY_TRUTH}
                    )
                    found.append(record)
    return with_lesions(annotations, {}, found)
