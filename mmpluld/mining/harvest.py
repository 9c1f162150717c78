"""From proposals and annotations to candidates of false-positive reduction: which proposals are lesions, which none.

Source: LENS, sec. VI-B.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mmpluld.errors import InputError
from mmpluld.io.proposals import ProposalStore, VolumeProposals
from mmpluld.mining.lesions import SliceIndex
from mmpluld.postprocess import Box3D, GridMap, Tracklet, chain_on_slices, tracklet_to_box3d
from mmpluld.structures import AnnotationSet, Box2D, LesionRecord, boxes_by_slice, pairwise_overlap
from mmpluld.structures.candidates import Candidate, CandidateSet

__all__ = ["HarvestRules", "Proposal3D", "harvest", "proposals_3d"]


@dataclass(frozen=True)
class HarvestRules:
    """Which proposals count.

    Attributes:
        theta: A proposal is a lesion if it overlaps the lesion on its key slice by more (IoU).
        theta_fp: It is a false positive if it overlaps every lesion, uncertain ones too, by less, on every slice.

    Raises:
        InputError: If a value is not allowed.
    """

    theta: float = 0.5
    theta_fp: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.theta_fp <= self.theta < 1:
            raise InputError(f"theta is {self.theta}, theta_fp {self.theta_fp}; allowed is 0 < theta_fp <= theta < 1")


@dataclass(frozen=True)
class Proposal3D:
    """One tracklet of a volume.

    Attributes:
        found: Its 3D box, best score and key slice in slice numbers of the series.
        boxes: Its 2D box on each slice of the series that it covers.
    """

    found: Box3D
    boxes: dict[int, Box2D]


def proposals_3d(proposals: VolumeProposals) -> Iterator[Proposal3D]:
    """The tracklets of a volume, by their number."""
    linked = np.flatnonzero(proposals.tracklet >= 0)
    order = linked[np.lexsort((proposals.grid[linked], proposals.tracklet[linked]))]
    numbers = proposals.tracklet[order]
    for rows in np.split(order, np.flatnonzero(np.diff(numbers)) + 1) if len(order) else ():
        first, count = proposals.runs[proposals.run[rows[0]]].tolist()
        grid = GridMap(count, proposals.interval_mm, proposals.gap_mm)
        chain = Tracklet(proposals.grid[rows], proposals.boxes[rows], proposals.scores[rows])
        merged = tracklet_to_box3d(chain)
        slices, boxes = chain_on_slices(grid, chain.slices, chain.boxes)
        # The slice nearest to the best grid slice can lie just outside those that are covered.
        key_slice = int(np.clip(grid.slices_to_scan(merged.key_slice), slices[0], slices[-1])) + first
        box = np.array([*merged.box[:2], slices[0] + first, *merged.box[3:5], slices[-1] + first + 1])
        rows_2d = {int(index) + first: _box2d(row.tolist()) for index, row in zip(slices, boxes, strict=True)}
        yield Proposal3D(Box3D(box, merged.score, key_slice, merged.key_box), rows_2d)


def harvest(
    annotations: AnnotationSet, stores: Sequence[ProposalStore], rules: HarvestRules | None = None
) -> CandidateSet:
    """Sort the 3D proposals of some stores into lesions, false positives and what is neither.

    A proposal is a lesion if it overlaps one that counts, annotated or mined, by more than ``theta`` on the lesion's
    key slice; of a mined lesion without one, on the proposal's own. It is a false positive if on every slice that it
    covers it overlaps every lesion there, also one to be ignored, by less than ``theta_fp``. Others are dropped.

    Args:
        annotations: Annotated and mined lesions, with the volumes of all stores.
        stores: Proposals of detectors that were not trained on these volumes, such as those of one fold each.
        rules: None takes the paper's thresholds.

    Raises:
        InputError: If a volume is in two stores, or not in the annotations, or no store has one.
    """
    rules = HarvestRules() if rules is None else rules
    lesions = annotations.lesions_by_volume()
    places: dict[str, int] = {}
    for number, store in enumerate(stores):
        for name in store.volumes:
            if name in places:
                raise InputError(
                    f"{store.folder}: volume '{name}' is in {stores[places[name]].folder} too; give each volume's "
                    "proposals once, by a detector that was not trained on it"
                )
            if name not in lesions:
                raise InputError(
                    f"{store.folder}: volume '{name}' is not in the annotations; give the file that it was proposed "
                    "for, or one mined from that"
                )
            places[name] = number
    if not places:
        raise InputError(f"{', '.join(str(store.folder) for store in stores)}: no volumes; run `mmpluld propose` first")
    volumes = [volume for volume in annotations.volumes if volume.id in places]
    candidates: list[Candidate] = []
    for volume in volumes:
        store = stores[places[volume.id]]
        candidates += _of_volume(store.load(volume.id), lesions[volume.id], rules, places[volume.id])
    headers = [{"folder": Path(store.folder).name, **store.header.plain()} for store in stores]
    return CandidateSet(dict(annotations.dataset), volumes, candidates, headers, asdict(rules))


def _of_volume(
    proposals: VolumeProposals, lesions: Sequence[LesionRecord], rules: HarvestRules, store: int
) -> Iterator[Candidate]:
    everything = SliceIndex(lesions)
    certain = [(lesion, boxes_by_slice(lesion)) for lesion in lesions if not lesion.ignore]
    for item in proposals_3d(proposals):
        lesion = _found(item, certain, rules.theta)
        overlaps = (everything.overlap(index, box) for index, box in item.boxes.items())
        if lesion is not None or all(overlap < rules.theta_fp for overlap in overlaps):
            x1, y1, z1, x2, y2, z2 = item.found.box.tolist()
            yield Candidate(proposals.volume, (x1, y1, z1, x2, y2, z2), item.found.score, lesion, store)


def _found(item: Proposal3D, lesions: Sequence[tuple[LesionRecord, dict[int, Box2D]]], theta: float) -> int | None:
    """Id of the lesion that a proposal overlaps most on a key slice, if by more than ``theta``."""
    best, found = theta, None
    for lesion, boxes in lesions:
        index = item.found.key_slice if lesion.key_slice is None else lesion.key_slice
        if index in boxes and index in item.boxes:
            overlap = float(pairwise_overlap(np.array([item.boxes[index]]), np.array([boxes[index]]))[0, 0])
            if overlap > best:
                best, found = overlap, lesion.id
    return found


def _box2d(values: list[float]) -> Box2D:
    x1, y1, x2, y2 = values
    return (x1, y1, x2, y2)
