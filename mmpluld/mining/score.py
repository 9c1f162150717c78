"""Precision and recall of what a strategy added, by the complete truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mmpluld.evaluation.functional import bootstrap_ratio
from mmpluld.mining.lesions import SliceIndex, is_annotation, patients_of
from mmpluld.mining.strategy_table import Strategy, Target, find_strategy
from mmpluld.mining.truth import CompleteTruth, TrueLesion, lies_on
from mmpluld.structures import AnnotationSet, Box2D, LesionRecord, boxes_by_slice

__all__ = ["score_strategy"]


class _Tally:
    """Hits and totals of each patient, by measure and sub-group."""

    def __init__(self) -> None:
        self.patient = ""
        self._counts: dict[tuple[str, str, str], dict[str, list[int]]] = {}

    def count(self, measure: str, hit: bool, groups: Iterable[tuple[str, str]]) -> None:
        """Count one thing of the patient, of all things and in its sub-groups."""
        for stratum, group in (("all", "all"), *groups):
            entry = self._counts.setdefault((measure, stratum, group), {}).setdefault(self.patient, [0, 0])
            entry[0] += hit
            entry[1] += 1

    def rows(self, strategy: str, resamples: int, seed: int) -> list[dict[str, Any]]:
        """A row of the report for each measure and sub-group."""
        rows = []
        for measure, stratum, group in sorted(self._counts):
            counts = self._counts[measure, stratum, group].values()
            hits, totals = zip(*counts, strict=True)
            value, *ends = bootstrap_ratio(hits, totals, resamples=resamples, seed=seed)
            # One patient drawn again and again has an interval without width.
            low, high = ends if len(totals) > 1 else (None, None)
            rows.append(
                {
                    "strategy": strategy, "measure": measure, "stratum": stratum, "group": group,
                    "hits": sum(hits), "total": sum(totals), "value": value, "low": low, "high": high,
                }
            )  # fmt: skip
        return rows


@dataclass(frozen=True)
class _Volume:
    """What scoring needs of one volume.

    Attributes:
        name: Its id.
        before, after: Its lesions before and after the strategy.
        known: True lesions of which a certain record was there before, by identity.
        marked: Identities that are annotated in other volumes of the patient.
    """

    name: str
    before: list[LesionRecord]
    after: list[LesionRecord]
    known: set[int]
    marked: set[int]

    def certain(self) -> SliceIndex:
        """The certain boxes that were there before."""
        return SliceIndex(lesion for lesion in self.before if not lesion.ignore)

    def added(self, ignore: bool) -> list[tuple[LesionRecord, int, Box2D]]:
        """What was not there before: record, slice and box."""
        old = {(lesion.id, number) for lesion in self.before for number in boxes_by_slice(lesion)}
        return [
            (lesion, number, box)
            for lesion in self.after
            if lesion.ignore == ignore
            for number, box in boxes_by_slice(lesion).items()
            if (lesion.id, number) not in old
        ]


def score_strategy(
    strategy: str,
    before: AnnotationSet,
    after: AnnotationSet,
    truth: CompleteTruth,
    resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Precision and recall of what a strategy added, in all and by lesion type and size, with 95 % intervals.

    ``precision_2d``: the share of added boxes that lie on a true lesion (IoU of 0.5 or more on the slice); a box that
    lies on a cross-section too small to stand for its lesion counts neither way. Boxes to be ignored must lie on a
    lesion that was without a certain box there. ``caps_2d``: the share that does lie on such a cross-section.
    ``recall_2d``: the share of true boxes without a certain box before on which an added one lies, of those that the
    strategy is after, see :attr:`~mmpluld.mining.strategy_table.Strategy.target`. Three more where these are of lesions
    of the ``patient``. ``precision_3d``: the share of new records of which half or more of the boxes lie on one true
    lesion that had no record in the volume before; of several records of one the first counts. ``precision_pair``: the
    share that lies so on the very lesion that they were matched with, however often. ``recall_3d``: the share of
    lesions annotated in another volume, and unknown in this one before, that a new lesion is.

    Sub-groups of precision are those of the true lesion of the annotation that a box comes from, or of its expert;
    those of recall of the true lesion.

    Args:
        strategy: Its name.
        before: Annotations that it was given.
        after: What it made of them.
        truth: All lesions.
        resamples: Of the patients, for the intervals.
        seed: Of the resamples.

    Returns:
        A row for each measure and sub-group: ``hits``, ``total``, ``value``, ``low``, ``high``.

    Raises:
        InputError: There is no such strategy.
    """
    chosen = find_strategy(strategy)
    tally = _Tally()
    sources = {lesion.id: truth.of(lesion) for lesion in before.lesions if is_annotation(lesion)}
    was, now = before.lesions_by_volume(), after.lesions_by_volume()
    for patient, volumes in patients_of(before).items():
        tally.patient = patient
        marked = {volume.id: _identities(filter(is_annotation, was[volume.id]), sources) for volume in volumes}
        for volume in volumes:
            others = set().union(*(marked[item.id] for item in volumes if item.id != volume.id))
            known = truth.identities(lesion for lesion in was[volume.id] if not lesion.ignore)
            part = _Volume(volume.id, was[volume.id], now[volume.id], known, others)
            _score_boxes(chosen, part, marked[volume.id], truth, sources, tally)
            if chosen.target == "patient":
                _score_matches(chosen, part, truth, sources, tally)
    return tally.rows(strategy, resamples, seed)


def _identities(lesions: Iterable[LesionRecord], sources: dict[int, TrueLesion | None]) -> set[int]:
    found = (sources[lesion.id] for lesion in lesions)
    return {lesion.identity for lesion in found if lesion is not None}


def _score_boxes(
    strategy: Strategy,
    part: _Volume,
    own: set[int],
    truth: CompleteTruth,
    sources: dict[int, TrueLesion | None],
    tally: _Tally,
) -> None:
    """Count the 2D boxes of one volume; ``own`` are the identities that are annotated in it."""
    certain = part.certain()
    added = part.added(ignore=strategy.uncertain)
    for lesion, number, box in added:
        found = truth.on(part.name, number, box)
        right = found is not None
        if found is not None and strategy.uncertain:
            right = not lies_on(found.boxes[number], certain.on(number))
        groups = _origin_groups(lesion, sources)
        cap = found is None and truth.on_cap(part.name, number, box)
        tally.count("caps_2d", cap, groups)
        if not cap:
            tally.count("precision_2d", right, groups)
    new: dict[int, list[Box2D]] = {}
    for _, number, box in added:
        new.setdefault(number, []).append(box)
    for found in truth.lesions(part.name):
        for number, box in found.boxes.items():
            wanted = _is_target(strategy.target, found, number in certain.slices, part, own)
            if wanted and not lies_on(box, certain.on(number)):
                tally.count("recall_2d", lies_on(box, new.get(number, ())), _groups(found))


def _is_target(target: Target, lesion: TrueLesion, labelled: bool, part: _Volume, own: set[int]) -> bool:
    """Whether a strategy is after the boxes of a lesion on slices with, or without, a certain box."""
    return {
        "own": lesion.identity in own,
        "patient": lesion.identity in part.marked,
        "labelled": labelled,
        "unlabelled": not labelled,
    }[target]


def _score_matches(
    strategy: Strategy, part: _Volume, truth: CompleteTruth, sources: dict[int, TrueLesion | None], tally: _Tally
) -> None:
    """Count the new lesions of one volume."""
    old = {lesion.id for lesion in part.before}
    new = [lesion for lesion in part.after if lesion.origin == strategy.origin and lesion.id not in old]
    reached: set[int] = set()
    for lesion in new:
        found, source = truth.of(lesion), sources.get(lesion.attributes["matched_lesion"])
        groups = _origin_groups(lesion, sources)
        fresh = found is not None and found.identity not in reached | part.known
        tally.count("precision_3d", fresh, groups)
        same = found is not None and source is not None and found.identity == source.identity
        tally.count("precision_pair", same, groups)
        if found is not None:
            reached.add(found.identity)
    for target in truth.lesions(part.name):
        if target.identity in part.marked - part.known and target.boxes:
            tally.count("recall_3d", target.identity in reached, _groups(target))


def _groups(lesion: TrueLesion) -> tuple[tuple[str, str], ...]:
    return ("type", lesion.type), ("size", lesion.size)


def _origin_groups(lesion: LesionRecord, sources: dict[int, TrueLesion | None]) -> tuple[tuple[str, str], ...]:
    """Sub-groups of what was mined: those of the annotation that it comes from, or its expert."""
    if "expert" in lesion.attributes:
        return (("expert", str(lesion.attributes["expert"])),)
    source = sources.get(lesion.attributes.get("matched_lesion", lesion.id))
    return () if source is None else _groups(source)
