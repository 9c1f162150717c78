"""From the annotated slice to the lesion's other slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmpluld.mining.lesions import SliceIndex, extended, is_annotation, with_lesions
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.pool import ProposalPool
from mmpluld.postprocess.scan_tracklets import ScanTracklet, scan_tracklets, within_lesion
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, Box2D, LesionRecord, VolumeRecord, annotated_boxes, paired_overlap

__all__ = ["KeySliceTest", "adjacent_slices", "key_slice_test", "propagate_across_slices"]

# Of a tracklet: the lesions that pass the test, by id, with their best overlap.
KeySliceTest = dict[int, float]


def propagate_across_slices(
    annotations: AnnotationSet, proposals: ProposalPool, options: MiningOptions
) -> AnnotationSet:
    """Give each annotated lesion the boxes of its tracklet on its other slices, with origin ``propagated``.

    A tracklet is a lesion's if one of its boxes overlaps the annotation on that slice by more than ``theta``, as far as
    ``depth`` reaches and ``centre_iou`` holds. The lesion stays one record, and the annotated boxes as they are.

    Source: LENS, Sec. V-A ("cross-slice propagation").
    """
    changed: dict[int, LesionRecord] = {}
    for volume, known, taken, tracklets in _annotated_volumes(annotations, proposals, options, "cross-slice"):
        marks = {number: annotated_boxes(lesion) for number, lesion in known.items()}
        passed = [(tracklet, key_slice_test(tracklet, marks, options.theta)) for tracklet in tracklets]
        # Where several tracklets are one lesion's, the one with the best overlap gives its boxes first.
        for tracklet, overlaps in sorted((item for item in passed if item[1]), key=lambda item: -max(item[1].values())):
            for number, shared in _shared_out(tracklet, overlaps, marks, options).items():
                boxes = within_lesion(shared, marks[number], volume.spacing_mm, options.depth, options.centre_iou)
                known[number] = extended(known[number], boxes, "propagated", taken, options.conflict_share)
        changed |= known
    return with_lesions(annotations, changed, [])


def _annotated_volumes(
    annotations: AnnotationSet, proposals: ProposalPool, options: MiningOptions, strategy: str
) -> Iterator[tuple[VolumeRecord, dict[int, LesionRecord], SliceIndex, list[ScanTracklet]]]:
    """Each volume with an annotation: its annotated lesions by id, the boxes of all certain ones, its tracklets."""
    proposals.refuse_views(strategy)
    experts = options.tracklet_numbers(proposals.experts)
    by_volume = annotations.lesions_by_volume()
    for volume in track(proposals.volumes_of(annotations.volumes), strategy):
        lesions = sorted((lesion for lesion in by_volume[volume.id] if not lesion.ignore), key=lambda item: item.id)
        known = {lesion.id: lesion for lesion in lesions if is_annotation(lesion)}
        if known:
            tracklets = scan_tracklets(proposals.load(volume.id), experts, options.box_score)
            yield volume, known, SliceIndex(lesions), tracklets


def key_slice_test(tracklet: ScanTracklet, marks: Mapping[int, Mapping[int, Box2D]], theta: float) -> KeySliceTest:
    """The lesions of which an annotated box overlaps the tracklet's box on its slice by more than ``theta``.

    Args:
        tracklet: The tracklet.
        marks: Annotated boxes by slice, of each lesion by id.
        theta: The IoU that must be exceeded.
    """
    pairs = [
        (lesion, tracklet.boxes[number], box)
        for lesion, boxes in marks.items()
        for number, box in boxes.items()
        if number in tracklet.boxes
    ]
    best: KeySliceTest = {}
    if pairs:
        lesions, found, marked = zip(*pairs, strict=True)
        overlaps = np.nan_to_num(paired_overlap(np.array(found), np.array(marked)))
        for lesion, overlap in zip(lesions, overlaps.tolist(), strict=True):
            if overlap > max(theta, best.get(lesion, 0.0)):
                best[lesion] = overlap
    return best


def _shared_out(
    tracklet: ScanTracklet,
    overlaps: KeySliceTest,
    marks: Mapping[int, Mapping[int, Box2D]],
    options: MiningOptions,
) -> dict[int, dict[int, Box2D]]:
    """Which boxes of a tracklet go to which of the lesions that pass the test with it."""
    ranked = sorted(overlaps, key=lambda lesion: (-overlaps[lesion], lesion))
    if options.several == "best" or len(ranked) == 1:
        return {ranked[0]: tracklet.boxes}
    shares: dict[int, dict[int, Box2D]] = {}
    for number, box in tracklet.boxes.items():
        nearest = min(ranked, key=lambda lesion: min(abs(number - other) for other in marks[lesion]))
        shares.setdefault(nearest, {})[number] = box
    return shares


def adjacent_slices(annotations: AnnotationSet, proposals: ProposalPool, options: MiningOptions) -> AnnotationSet:
    """Copy annotated boxes to the adjacent slices where detections continue over several slices.

    An annotation is copied to the slices up to ``reach`` before and after its own if a tracklet of at least
    ``continuity`` slices passes the key-slice test with it, and only to slices on which the tracklet's box overlaps the
    copy by more than ``theta``.

    Source: after Wang et al., PRCV 2019, of which LENS reports a re-implementation with about one slice to either side
    of each annotation; the paper itself was not at hand, so the rule is ours.
    """
    changed: dict[int, LesionRecord] = {}
    for _, known, taken, tracklets in _annotated_volumes(annotations, proposals, options, "adjacent-slices"):
        long = [tracklet for tracklet in tracklets if len(tracklet.boxes) >= options.continuity]
        for number, lesion in known.items():
            copies = _copies(annotated_boxes(lesion), long, options)
            known[number] = extended(lesion, copies, "propagated", taken, options.conflict_share)
        changed |= known
    return with_lesions(annotations, changed, [])


def _copies(marks: Mapping[int, Box2D], tracklets: Sequence[ScanTracklet], options: MiningOptions) -> dict[int, Box2D]:
    """The copies of a lesion's annotated boxes that tracklets bear out, the nearest annotation's first."""
    copies: dict[int, Box2D] = {}
    for step in range(1, options.reach + 1):
        for number, box in sorted(marks.items()):
            for tracklet in tracklets:
                if not key_slice_test(tracklet, {0: {number: box}}, options.theta):
                    continue
                for place in (number - step, number + step):
                    if place not in copies and key_slice_test(tracklet, {0: {place: box}}, options.theta):
                        copies[place] = box
    return copies
