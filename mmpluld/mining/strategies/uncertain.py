"""Boxes of single-type experts that are neither lesion nor background: uncertain lesions, to be ignored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from mmpluld.io.proposals import VolumeProposals
from mmpluld.mining.lesions import SliceIndex, with_lesions
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.pool import ProposalPool
from mmpluld.mining.truth import BY_TRUTH, SAME
from mmpluld.postprocess import GridMap
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, Box2D, LesionRecord, boxes_by_slice

__all__ = ["boxes_on_scan", "cross_dataset", "scan_slices", "unlabeled_slices", "without_found"]


def cross_dataset(annotations: AnnotationSet, proposals: ProposalPool, options: MiningOptions) -> AnnotationSet:
    """Add uncertain boxes on slices with a certain lesion, annotated or mined.

    A box of a single-type expert is uncertain if it scores more than ``sigma`` and overlaps no certain lesion on its
    slice by more than ``uncertain_iou``. On a slice of the scan count the boxes of the nearest grid slice. Each is a
    record with origin ``mined``, ``ignore``, its score, and ``attributes["expert"]``. Of uncertain boxes of one slice
    that overlap by more than ``conflict_iou`` the best counts.

    Source: LENS, Sec. V-B ("cross-dataset lesion mining").
    """
    return _with_uncertain(annotations, proposals, options, labelled=True)


def unlabeled_slices(annotations: AnnotationSet, proposals: ProposalPool, options: MiningOptions) -> AnnotationSet:
    """The same on slices without a certain lesion, so that these can be negatives whose uncertain boxes are ignored.

    Training takes these slices where the dataset's policy is ``all_slices``.

    Source: LENS, Sec. V-C ("unlabeled slices").
    """
    return _with_uncertain(annotations, proposals, options, labelled=False)


def _with_uncertain(
    annotations: AnnotationSet, proposals: ProposalPool, options: MiningOptions, labelled: bool
) -> AnnotationSet:
    experts = options.single_type_numbers(proposals.experts, str(annotations.dataset["name"]))
    dropped = _found(annotations, options.uncertain_iou)
    by_volume = annotations.lesions_by_volume()
    found: list[LesionRecord] = []
    for volume in track(proposals.volumes_of(annotations.volumes), "cross-dataset" if labelled else "unlabeled"):
        shard = proposals.load(volume.id)
        lesions = [lesion for lesion in by_volume[volume.id] if lesion.id not in dropped]
        certain = SliceIndex(lesion for lesion in lesions if not lesion.ignore)
        slices = certain.slices if labelled else set(scan_slices(shard)) - certain.slices
        taken = SliceIndex(lesion for lesion in lesions if lesion.ignore)
        for number, box, score, expert in boxes_on_scan(shard, slices, experts, options.sigma):
            if (
                certain.overlap(number, box) <= options.uncertain_iou
                and taken.overlap(number, box) <= options.conflict_iou
            ):
                taken.add(number, -1, box)
                found.append(_record(volume.id, number, box, score, proposals.experts[expert]))
    # In one step, so that a new lesion never gets the id of a dropped one.
    return with_lesions(annotations, {}, found, keep=lambda lesion: lesion.id not in dropped)


def without_found(annotations: AnnotationSet, iou: float) -> AnnotationSet:
    """Drop mined uncertain boxes that have become a lesion: that a certain one overlaps by more than ``iou``.

    A box that comes from the truth is a lesion of its own beside those that it touches, so it becomes another only if
    both would be the same lesion (:data:`~mmpluld.mining.truth.SAME`).
    """
    dropped = _found(annotations, iou)
    return with_lesions(annotations, {}, (), keep=lambda lesion: lesion.id not in dropped) if dropped else annotations


def _found(annotations: AnnotationSet, iou: float) -> set[int]:
    """Ids of what :func:`without_found` drops."""
    dropped: set[int] = set()
    for lesions in annotations.lesions_by_volume().values():
        mined = [lesion for lesion in lesions if lesion.ignore and lesion.origin == "mined"]
        if mined:
            certain = SliceIndex(lesion for lesion in lesions if not lesion.ignore)
            dropped |= {lesion.id for lesion in mined if _overlaps(lesion, certain, iou)}
    return dropped


def _overlaps(lesion: LesionRecord, certain: SliceIndex, iou: float) -> bool:
    if lesion.attributes.get("expert") == BY_TRUTH:
        iou = SAME
    return any(certain.overlap(number, box) > iou for number, box in boxes_by_slice(lesion).items())


def _record(volume: str, number: int, box: Box2D, score: float, expert: str) -> LesionRecord:
    x1, y1, x2, y2 = box
    return LesionRecord(
        0, volume, (x1, y1, float(number), x2, y2, number + 1.0), ignore=True, origin="mined", score=score,
        attributes={"expert": expert},
    )  # fmt: skip


def scan_slices(proposals: VolumeProposals) -> Iterator[int]:
    """The slices of the scan that were examined, ascending within each run."""
    for first, count in proposals.runs.tolist():
        yield from range(first, first + count)


def boxes_on_scan(
    proposals: VolumeProposals, slices: Collection[int], experts: Sequence[int], above: float
) -> list[tuple[int, Box2D, float, int]]:
    """The boxes on some slices of the scan: those of the nearest grid slice.

    Args:
        proposals: Of the volume.
        slices: Numbers of slices.
        experts: Numbers of the experts whose boxes are taken.
        above: They score more than this.

    Returns:
        Slice, box, score and expert of each, by slice, then best score first; boxes without area are left out.
    """
    boxes = proposals.boxes
    good = np.isin(proposals.expert, experts) & (proposals.scores > above) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    rows = np.flatnonzero(good)
    rows = rows[np.lexsort((proposals.expert[rows], *boxes[rows].T[::-1], -proposals.scores[rows]))]
    found: dict[int, list[tuple[int, Box2D, float, int]]] = {}
    grids = [GridMap(int(count), proposals.interval_mm, proposals.gap_mm) for _, count in proposals.runs.tolist()]
    places: dict[tuple[int, int], list[int]] = {}
    for run, grid in enumerate(grids):
        first = int(proposals.runs[run, 0])
        for index, place in enumerate(grid.scan_to_grid(np.arange(grid.num_slices)).tolist()):
            if first + index in slices:
                places.setdefault((run, place), []).append(first + index)
    for row in rows.tolist():
        for number in places.get((int(proposals.run[row]), int(proposals.grid[row])), ()):
            x1, y1, x2, y2 = boxes[row].tolist()
            entry = (number, (x1, y1, x2, y2), float(proposals.scores[row]), int(proposals.expert[row]))
            found.setdefault(number, []).append(entry)
    return [entry for number in sorted(found) for entry in found[number]]
