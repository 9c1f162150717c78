"""How well embeddings, or positions, tell which lesions of a patient are one: precision and recall over delta."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from mmpluld.errors import InputError
from mmpluld.evaluation.functional.matching import MatchingCurve, matching_curve
from mmpluld.mining.lesions import is_annotation, patients_of
from mmpluld.mining.places import LesionPlaces
from mmpluld.mining.pool import ProposalPool
from mmpluld.mining.truth import SAME
from mmpluld.postprocess.scan_tracklets import ScanTracklet, scan_tracklets
from mmpluld.structures import (
    AnnotationSet,
    Box2D,
    LesionRecord,
    VolumeRecord,
    boxes_by_slice,
    key_box,
    pairwise_overlap,
)
from mmpluld.typing import BoolArray, FloatArray, IntArray

__all__ = ["LesionPairs", "MillimetrePlaces", "evaluate_pairs", "lesion_pairs", "nearest_accuracy"]

_UNKNOWN, _NONE = -1, -2  # numbers of what may be any lesion, and of what is no lesion


@dataclass(frozen=True)
class LesionPairs:
    """Pairs of an annotated lesion and a lesion or tracklet in another volume of its patient.

    Attributes:
        distances: (P,) distance of the two.
        same: (P,) whether they are one lesion.
        one_study: (P,) whether the two volumes are of one study.
        question: (P,) number of the annotated lesion with the other volume: pairs with one number compete.
    """

    distances: FloatArray
    same: BoolArray
    one_study: BoolArray
    question: IntArray

    def part(self, rows: BoolArray) -> LesionPairs:
        """Some of the pairs."""
        return LesionPairs(self.distances[rows], self.same[rows], self.one_study[rows], self.question[rows])

    def limited(self, max_pairs: int | None) -> LesionPairs:
        """The same, but of each lesion in each other volume only the nearest candidates can be taken: the others are
        infinitely far."""
        if max_pairs is None:
            return self
        order = np.lexsort((np.arange(len(self.same)), self.distances, self.question))
        question = self.question[order]
        starts = np.flatnonzero(np.diff(question, prepend=-1) > 0)
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        distances = self.distances.copy()
        distances[order[rank >= max_pairs]] = np.inf
        return replace(self, distances=distances)


class MillimetrePlaces(LesionPlaces):
    """Places in the volume in mm from the middle of the image and the first slice: a stronger baseline."""

    def lesions(self, volume: VolumeRecord, lesions: Sequence[LesionRecord]) -> FloatArray:
        """See :class:`LesionPlaces`."""
        return _in_mm(volume, super().lesions(volume, lesions))

    def tracklets(self, volume: VolumeRecord, tracklets: Sequence[ScanTracklet], proposals: ProposalPool) -> FloatArray:
        """See :class:`LesionPlaces`."""
        return _in_mm(volume, super().tracklets(volume, tracklets, proposals))


def lesion_pairs(
    annotations: AnnotationSet,
    places: LesionPlaces,
    truth: AnnotationSet | None = None,
    proposals: ProposalPool | None = None,
    box_score: float = 0.0,
) -> LesionPairs:
    """All pairs of an annotated lesion and a candidate in another volume of the patient.

    Which lesion something is tells the number within the patient: ``attributes["lesion"]``, of an annotated lesion its
    own or, with ``truth``, that of the true lesion which overlaps its box on the slice most, by an IoU of at least 0.5;
    true lesions to be ignored are none. Annotated lesions without a number are left out, and so are those that
    ``attributes["marked"]`` says nobody marked, but as candidates.

    Args:
        annotations: What is known.
        places: Where lesions and tracklets lie in the space of distances.
        truth: All lesions with their numbers; needed for tracklets.
        proposals: Candidates are their tracklets; None takes the annotated lesions of the other volume.
        box_score: See :func:`~mmpluld.postprocess.scan_tracklets.scan_tracklets`.

    Raises:
        InputError: No lesion has a number, or a volume of several of a patient lacks proposals or embeddings.
    """
    if proposals is not None and truth is None:
        raise InputError("tracklets have no numbers of lesions; give the complete truth too")
    known: dict[str, list[LesionRecord]] = {}
    for lesion in [] if truth is None else truth.lesions:
        if not lesion.ignore:
            known.setdefault(lesion.volume, []).append(lesion)
    by_volume = annotations.lesions_by_volume()
    rows: list[tuple[FloatArray, BoolArray, bool]] = []
    for volumes in patients_of(annotations).values():
        if len(volumes) < 2:
            continue
        lesions = {volume.id: [item for item in by_volume[volume.id] if is_annotation(item)] for volume in volumes}
        if truth is not None:
            numbers = {name: _numbers(map(key_box, items), known.get(name, ())) for name, items in lesions.items()}
        else:
            numbers = {name: _own_numbers(items) for name, items in lesions.items()}
        points = {volume.id: places.lesions(volume, lesions[volume.id]) for volume in volumes}
        marked = {
            name: np.array([item.attributes.get("marked", True) for item in items], bool)
            for name, items in lesions.items()
        }
        candidates = {volume.id: (numbers[volume.id], points[volume.id]) for volume in volumes}
        if proposals is not None:
            candidates = {
                volume.id: _tracklets(volume, places, known.get(volume.id, ()), proposals, box_score)
                for volume in volumes
            }
        for one, two in permutations(volumes, 2):
            own = marked[one.id] & (numbers[one.id] >= 0)
            found = _across(numbers[one.id][own], points[one.id][own], *candidates[two.id])
            rows += [(*row, one.study == two.study) for row in found]
    return _joined(rows)


def evaluate_pairs(pairs: LesionPairs) -> MatchingCurve:
    """Precision and recall over delta.

    Raises:
        InputError: No two of the pairs are one lesion.
    """
    if not pairs.same.any():
        raise InputError(
            "no lesion with a number is there in two volumes of a patient; give an annotation file with numbers "
            "(`mmpluld convert deeplesion --lesion-pairs`), or the complete truth of a phantom"
        )
    return matching_curve(pairs.distances, pairs.same)


def nearest_accuracy(pairs: LesionPairs) -> float:
    """Share of the lesions that are there in another volume whose nearest candidate there is the lesion.

    Of candidates at one distance the first counts.
    """
    order = np.lexsort((np.arange(len(pairs.same)), pairs.distances, pairs.question))
    _, first = np.unique(pairs.question[order], return_index=True)
    there = np.zeros(int(pairs.question.max(initial=-1)) + 1, bool)
    there[pairs.question[pairs.same]] = True
    nearest = order[first]
    return float(pairs.same[nearest][there[pairs.question[nearest]]].mean()) if there.any() else 0.0


def _across(
    numbers: IntArray, points: FloatArray, others: IntArray, their_points: FloatArray
) -> Iterator[tuple[FloatArray, BoolArray]]:
    """For each lesion its distances to the candidates of another volume, and which of them are it."""
    certain = others != _UNKNOWN
    for number, point in zip(numbers.tolist(), points, strict=True):
        yield np.linalg.norm(their_points[certain] - point, axis=1), others[certain] == number


def _joined(rows: Sequence[tuple[FloatArray, BoolArray, bool]]) -> LesionPairs:
    counts = [len(distances) for distances, _, _ in rows]
    return LesionPairs(
        np.concatenate([np.zeros(0), *(distances for distances, _, _ in rows)]),
        np.concatenate([np.zeros(0, bool), *(same for _, same, _ in rows)]),
        np.repeat(np.array([one_study for _, _, one_study in rows], bool), counts),
        np.repeat(np.arange(len(rows)), counts),
    )


def _tracklets(
    volume: VolumeRecord, places: LesionPlaces, truth: Sequence[LesionRecord], proposals: ProposalPool, box_score: float
) -> tuple[IntArray, FloatArray]:
    """Numbers and points of the tracklets of a volume."""
    tracklets = scan_tracklets(proposals.load(volume.id), None, box_score)
    numbers = _numbers((tracklet.centre for tracklet in tracklets), truth)
    return numbers, places.tracklets(volume, tracklets, proposals)


def _own_numbers(lesions: Sequence[LesionRecord]) -> IntArray:
    return np.array([_own_number(lesion) for lesion in lesions], np.int64)


def _own_number(lesion: LesionRecord) -> int:
    number = lesion.attributes.get("lesion")
    return _UNKNOWN if number is None else int(number)


def _numbers(marks: Iterable[tuple[int, Box2D]], truth: Sequence[LesionRecord]) -> IntArray:
    """The number of the true lesion that each box on a slice is of, or that it is none."""
    on_slice: dict[int, list[tuple[Box2D, int]]] = {}
    for lesion in truth:
        for number, box in boxes_by_slice(lesion).items():
            on_slice.setdefault(number, []).append((box, _own_number(lesion)))
    found = []
    for place, box in marks:
        rows = on_slice.get(place, [])
        overlaps = pairwise_overlap(np.array([box]), np.array([row[0] for row in rows]).reshape(-1, 4))[0]
        best = int(overlaps.argmax()) if len(rows) else -1
        found.append(rows[best][1] if best >= 0 and overlaps[best] >= SAME else _NONE)
    return np.array(found, np.int64)


def _in_mm(volume: VolumeRecord, shares: FloatArray) -> FloatArray:
    (height, width), (z, y, x) = volume.shape_yx, volume.spacing_mm
    return (shares - (0.5, 0.5, 0.0)) * (width * x, height * y, volume.num_slices * z)
