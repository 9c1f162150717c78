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
from mmpluld.mining.pool import refuse_left_out, refuse_other_annotations
from mmpluld.mining.rounds import mined_from
from mmpluld.postprocess.scan_tracklets import ScanTracklet, scan_tracklets
from mmpluld.structures import AnnotationSet, Box2D, LesionRecord, boxes_between, boxes_by_slice, pairwise_overlap
from mmpluld.structures.candidates import Candidate, CandidateSet
from mmpluld.typing import StrPath

__all__ = ["HarvestRules", "harvest", "harvest_files"]


@dataclass(frozen=True)
class HarvestRules:
    """Which proposals count.

    Attributes:
        theta: A proposal is a lesion if it overlaps the lesion on its key slice by more (IoU).
        theta_fp: It is a false positive if it overlaps every lesion, uncertain ones too, by less, on every slice.
        min_score: Proposals that score less are left out, in [0, 1]. Most false positives score little and are easily
            told; with all of them an epoch shows few of those that matter at low false-positive rates.

    Raises:
        InputError: If a value is not allowed.
    """

    theta: float = 0.5
    theta_fp: float = 0.3
    min_score: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.theta_fp <= self.theta < 1:
            raise InputError(f"theta is {self.theta}, theta_fp {self.theta_fp}; allowed is 0 < theta_fp <= theta < 1")
        if not 0 <= self.min_score <= 1:
            raise InputError(f"min_score is {self.min_score}; allowed is 0 to 1")


def harvest_files(
    annotation_file: StrPath, proposal_folders: Sequence[StrPath], rules: HarvestRules | None = None
) -> CandidateSet:
    """As :func:`harvest`, from files.

    Args:
        annotation_file: The file that was proposed on, or one mined from that.
        proposal_folders: Stores that ``mmpluld propose`` made.
        rules: None takes the paper's thresholds.

    Raises:
        InputError: As :func:`harvest`, or proposals are of other annotations or not of all their volumes, or there is
            no candidate.
    """
    rules = HarvestRules() if rules is None else rules
    annotations = AnnotationSet.load(annotation_file)
    stores = [ProposalStore(folder) for folder in proposal_folders]
    refuse_other_annotations(stores, mined_from(annotations, annotation_file), annotation_file)
    refuse_left_out(stores, annotations, annotation_file)
    found = harvest(annotations, stores, rules)
    if not found.candidates:
        raise InputError(
            f"{', '.join(map(str, proposal_folders))}: of the 3D proposals that score {rules.min_score:g} or more "
            "none is a lesion or a false positive, so there is nothing to learn from; give a lower min_score, or "
            "propose with a detector that finds something"
        )
    return found


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
    for lesion in lesions:  # it is there between its marks, too
        for number, box in boxes_between(boxes_by_slice(lesion)).items():
            everything.add(number, lesion.id, box)
    certain = [(lesion, boxes_by_slice(lesion)) for lesion in lesions if not lesion.ignore]
    for item in scan_tracklets(proposals):
        if item.score < rules.min_score:
            continue
        found = _found(item, certain, rules.theta)
        overlaps = (everything.overlap(index, box) for index, box in item.boxes.items())
        if found is not None or all(overlap < rules.theta_fp for overlap in overlaps):
            yield Candidate(proposals.volume, item.box, item.score, found, store)


def _found(item: ScanTracklet, lesions: Sequence[tuple[LesionRecord, dict[int, Box2D]]], theta: float) -> int | None:
    """Id of the lesion that a proposal overlaps most on a key slice, if by more than ``theta``."""
    best, found = theta, None
    for lesion, boxes in lesions:
        index = item.key_slice if lesion.key_slice is None else lesion.key_slice
        if index in boxes and index in item.boxes:
            overlap = float(pairwise_overlap(np.array([item.boxes[index]]), np.array([boxes[index]]))[0, 0])
            if overlap > best:
                best, found = overlap, lesion.id
    return found
