"""Pseudo-boxes of a detector's own tests as truth (data distillation)."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from mmpluld.errors import InputError
from mmpluld.io.proposals import VolumeProposals
from mmpluld.mining.lesions import SliceIndex, with_lesions
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.pool import ProposalPool
from mmpluld.mining.strategies.uncertain import boxes_on_scan, scan_slices
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, Box2D, LesionRecord
from mmpluld.typing import FloatArray

__all__ = ["distil"]


def distil(annotations: AnnotationSet, proposals: ProposalPool, options: MiningOptions) -> AnnotationSet:
    """Make lesions of the best boxes on unlabelled slices, as many a slice as labelled ones have; origin ``distilled``.

    Labelled slices are those with a certain lesion. The boxes are those of the annotated dataset's expert, or of the
    only one, on the slices of the scan nearest to the grid's; not those that share more than ``conflict_share`` of the
    smaller with a lesion that a person left open (``ignore``). The score above which they count is that at which the
    mean number of boxes of an unlabelled slice is that of a labelled one; boxes of the same score at the threshold are
    left out together. Each box is a record of its own.

    Source: Radosavovic et al., "Data Distillation: Towards Omni-Supervised Learning", as LENS (Table IV) uses it.

    Raises:
        InputError: No lesion is certain, or no expert is the annotated dataset's.
    """
    expert = _expert(proposals.experts, str(annotations.dataset["name"]))
    by_volume = annotations.lesions_by_volume()
    volumes = proposals.volumes_of(annotations.volumes)
    certain = {volume.id: SliceIndex(item for item in by_volume[volume.id] if not item.ignore) for volume in volumes}
    left_open = {
        volume.id: SliceIndex(item for item in by_volume[volume.id] if item.ignore and item.origin == "annotated")
        for volume in volumes
    }
    labelled = sum(len(index.slices) for index in certain.values())
    if not labelled:
        raise InputError("distillation: no slice has a lesion; its number of boxes cannot be matched")
    boxes = sum(len(index) for index in certain.values())
    # No more than could be taken if every slice were unlabelled: memory of the result, not of all boxes.
    best = _Best(int(boxes / labelled * sum(volume.num_slices for volume in volumes)) + 1)
    unlabelled = 0
    for volume in track(volumes, "distillation: scores"):
        shard = proposals.load(volume.id, expert)
        slices = set(scan_slices(shard)) - certain[volume.id].slices
        unlabelled += len(slices)
        best.add([score for _, _, score in _boxes(shard, slices, expert, 0.0, left_open[volume.id], options)])
    threshold = best.next_to(round(boxes / labelled * unlabelled))
    found = []
    for volume in track(volumes, "distillation"):
        shard = proposals.load(volume.id, expert)
        slices = set(scan_slices(shard)) - certain[volume.id].slices
        for number, (x1, y1, x2, y2), score in _boxes(shard, slices, expert, threshold, left_open[volume.id], options):
            box = (x1, y1, float(number), x2, y2, number + 1.0)
            found.append(LesionRecord(0, volume.id, box, origin="distilled", score=score))
    return with_lesions(annotations, {}, found)


def _boxes(
    shard: VolumeProposals,
    slices: Collection[int],
    expert: int,
    above: float,
    left_open: SliceIndex,
    options: MiningOptions,
) -> Iterator[tuple[int, Box2D, float]]:
    """Slice, box and score of what may become a lesion."""
    for number, box, score, _ in boxes_on_scan(shard, slices, [expert], above):
        if left_open.shared(number, box) <= options.conflict_share:
            yield number, box, score


class _Best:
    """The ``limit`` largest of many scores, of which a few times as many are held."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: FloatArray = np.empty(0)
        self._new: list[float] = []

    def add(self, scores: list[float]) -> None:
        self._new += scores
        if len(self._new) > self._limit:
            self._sort()

    def _sort(self) -> None:
        self._kept = np.sort(np.concatenate([self._kept, self._new]))[::-1][: self._limit]
        self._new = []

    def next_to(self, count: int) -> float:
        """The score above which there are ``count``, fewer where scores are equal; 0 if there are no more than that."""
        self._sort()
        return float(self._kept[count]) if count < len(self._kept) else 0.0


def _expert(experts: tuple[str, ...], dataset: str) -> int:
    if dataset in experts:
        return experts.index(dataset)
    if len(experts) == 1:
        return 0
    raise InputError(
        f"distillation: the proposals are of {', '.join(experts)}, none of which is the annotated {dataset}; propose "
        "with a detector of that dataset"
    )
