"""From an annotated lesion to the same lesion in the patient's other volumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from mmpluld.errors import InputError
from mmpluld.mining.lesions import SliceIndex, extended, is_annotation, new_lesion, patients_of, with_lesions
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.places import LesionPlaces
from mmpluld.mining.pool import ProposalPool
from mmpluld.mining.strategies.cross_slice import key_slice_test
from mmpluld.postprocess.scan_tracklets import ScanTracklet, scan_tracklets, within_lesion
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, Box2D, LesionRecord, VolumeRecord, annotated_boxes, boxes_by_slice
from mmpluld.typing import FloatArray

__all__ = ["match_within_patients"]


@dataclass(frozen=True)
class _Pair:
    """A tracklet and the annotated lesion that is nearest to it."""

    tracklet: ScanTracklet
    lesion: LesionRecord
    distance: float


def match_within_patients(
    annotations: AnnotationSet, proposals: ProposalPool, options: MiningOptions, places: LesionPlaces | None = None
) -> AnnotationSet:
    """Make lesions of tracklets near an annotated one of the patient's other volumes, with origin ``matched``.

    All of a tracklet is mined if the distance to an annotation is less than ``delta``. A tracklet that overlaps a
    certain lesion of its own volume by more than ``theta`` on a slice is that lesion: its boxes join that record, on
    slices on which it has none. Any other becomes a record of its own, without boxes that share more than
    ``conflict_share`` of the smaller with another certain lesion's, and says in ``attributes`` which annotation it was
    matched with (``matched_lesion``), how near (``distance``), and where the tracklet is best (``best_slice``).

    Args:
        annotations: What is known.
        proposals: Tracklets of all volumes.
        options: The rules.
        places: Where lesions and tracklets lie in the space of distances; None takes that of ``options.match``, if
            that is ``position``.

    Raises:
        InputError: Embeddings are needed and not given, or lack a lesion or tracklet.

    Source: LENS, Sec. V-A ("intra-patient matching").
    """
    if places is None:
        if options.match == "embedding":
            raise InputError(
                "intra-patient: matching needs embeddings; make them with `mmpluld embed`, or match by position"
            )
        places = LesionPlaces()
    proposals.refuse_views("intra-patient")
    experts = options.tracklet_numbers(proposals.experts)
    by_volume = annotations.lesions_by_volume()
    changed: dict[int, LesionRecord] = {}
    found: list[LesionRecord] = []
    patients = patients_of(annotations)
    for volumes in track(patients.values(), "intra-patient"):
        known = {volume.id: [item for item in by_volume[volume.id] if is_annotation(item)] for volume in volumes}
        if len(volumes) < 2 or not any(known.values()):
            continue
        anchors = {volume.id: _anchors(volume, known[volume.id], places) for volume in volumes if known[volume.id]}
        for volume in proposals.volumes_of(volumes):
            others = [anchors[name] for name in anchors if name != volume.id]
            if not others:
                continue
            tracklets = scan_tracklets(proposals.load(volume.id), experts, options.box_score)
            if not tracklets:
                continue
            points = places.tracklets(volume, tracklets, proposals)
            pairs = _pairs(others, tracklets, points, options)
            joined, fresh = _entered(volume, by_volume[volume.id], pairs, options)
            changed |= joined
            found += fresh
    return with_lesions(annotations, changed, found)


def _anchors(
    volume: VolumeRecord, lesions: Sequence[LesionRecord], places: LesionPlaces
) -> tuple[list[LesionRecord], FloatArray]:
    """Annotated lesions of a volume in the order of their ids, and their points."""
    ordered = sorted(lesions, key=lambda item: item.id)
    return ordered, places.lesions(volume, ordered)


def _pairs(
    anchors: Sequence[tuple[list[LesionRecord], FloatArray]],
    tracklets: Sequence[ScanTracklet],
    points: FloatArray,
    options: MiningOptions,
) -> list[_Pair]:
    """The tracklets within ``delta`` of an annotation, the nearest pair first."""
    nearest: dict[int, _Pair] = {}
    for lesions, known in anchors:
        distances = cdist(known, points)
        for lesion, row in zip(lesions, distances, strict=True):
            near = np.flatnonzero(row < options.delta)
            for index in near[np.argsort(row[near], kind="stable")][: options.max_pairs].tolist():
                pair = _Pair(tracklets[index], lesion, float(row[index]))
                old = nearest.get(index)
                if old is None or (pair.distance, lesion.id) < (old.distance, old.lesion.id):
                    nearest[index] = pair
    order = sorted(nearest, key=lambda index: (nearest[index].distance, index))
    return [nearest[index] for index in order]


def _entered(
    volume: VolumeRecord, own: Sequence[LesionRecord], pairs: Sequence[_Pair], options: MiningOptions
) -> tuple[dict[int, LesionRecord], list[LesionRecord]]:
    """The lesions of a volume that tracklets joined, by id, and the new ones."""
    records = {lesion.id: lesion for lesion in sorted(own, key=lambda item: item.id) if not lesion.ignore}
    marks = {key: boxes_by_slice(lesion) for key, lesion in records.items()}
    # What a person left open is not decided by mining.
    taken = SliceIndex(lesion for lesion in own if not lesion.ignore or lesion.origin == "annotated")
    # How many lesions of this volume are matched with an annotation, by earlier rounds too.
    matches = Counter(lesion.attributes.get("matched_lesion") for lesion in own)
    lowest = min([0, *records])  # below it the ids of new records, until they get their own
    joined: set[int] = set()
    fresh: list[LesionRecord] = []
    for pair in pairs:
        owners = key_slice_test(pair.tracklet, marks, options.theta)
        if owners:
            owner = min(owners, key=lambda key: (-owners[key], key))
            # As far as the lesion reaches from a mark of a person, or from its best mined box; with all it would grow.
            middle = annotated_boxes(records[owner]) or _best_box(records[owner]) or marks[owner]
            near = within_lesion(pair.tracklet.boxes, middle, volume.spacing_mm, options.depth, options.centre_iou)
            records[owner] = extended(records[owner], near, "matched", taken, options.conflict_share)
            marks[owner] = boxes_by_slice(records[owner])
            joined.add(owner)
            continue
        if options.max_pairs is not None and matches[pair.lesion.id] >= options.max_pairs:
            continue
        record = _matched(volume, pair, lowest - 1 - len(fresh))
        best = {pair.tracklet.key_slice: pair.tracklet.boxes[pair.tracklet.key_slice]}
        near = within_lesion(pair.tracklet.boxes, best, volume.spacing_mm, options.depth, options.centre_iou)
        boxes = {number: box for number, box in near.items() if taken.shared(number, box) <= options.conflict_share}
        if not boxes:
            continue
        matches[pair.lesion.id] += 1
        fresh.append(new_lesion(record, boxes))
        records[record.id], marks[record.id] = fresh[-1], boxes
        for number, box in boxes.items():
            taken.add(number, record.id, box)
    return {key: records[key] for key in joined if key >= lowest}, [records[item.id] for item in fresh]


def _best_box(lesion: LesionRecord) -> dict[int, Box2D]:
    """The box of a matched lesion on the slice nearest to its tracklet's best, by slice; empty for others."""
    best, boxes = lesion.attributes.get("best_slice"), boxes_by_slice(lesion)
    if best is None:
        return {}
    number = min(boxes, key=lambda number: (abs(number - best), number))
    return {number: boxes[number]}


def _matched(volume: VolumeRecord, pair: _Pair, number: int) -> LesionRecord:
    """The record of a matched tracklet, still without its boxes."""
    attributes: dict[str, int | float] = {
        "matched_lesion": pair.lesion.id, "distance": round(pair.distance, 6), "best_slice": pair.tracklet.key_slice,
    }  # fmt: skip
    return LesionRecord(
        number, volume.id, (0.0,) * 6, type=pair.lesion.type, origin="matched", score=pair.tracklet.score,
        attributes=attributes,
    )  # fmt: skip
