"""The rules of mining; the paper gives theta, delta and sigma and leaves the others open."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from mmpluld.errors import InputError, did_you_mean

__all__ = ["MatchBy", "MiningOptions", "Several"]

Several = Literal["best", "nearest"]
MatchBy = Literal["embedding", "position"]


@dataclass(frozen=True)
class MiningOptions:
    """How strategies decide.

    Attributes:
        theta: A tracklet is an annotated lesion's if a box of it overlaps the annotation by more (IoU), in [0, 1).
        delta: A tracklet is an annotated lesion of another volume if their distance is less, above 0.
        sigma: A box of a single-type expert is uncertain if it scores more, in [0, 1].
        uncertain_iou: A box that overlaps an annotation or mined lesion on its slice by more is none, in [0, 1). The
            paper says "does not overlap"; 0.3 is lenient.
        conflict_share: A mined positive box is dropped where one of another lesion is, if both share more than this
            part of the smaller, in [0, 1): hardly two lesions of a slice have boxes of which one lies in the other.
        conflict_iou: An uncertain box is dropped where one is already that it overlaps by more, in [0, 1).
        several: Whose a tracklet is that passes the test with several lesions of its volume: all of it the ``best``
            overlap's, or each of its boxes the lesion's with the ``nearest`` annotated slice.
        match: What the distance of :attr:`delta` is one of: ``embedding``, or ``position``, of the centres as shares of
            width, height and length of the volume.
        max_pairs: Most tracklets of a volume that an annotation of another one matches, the nearest first; None: all.
        box_score: Tracklets begin and end with a 2D box that scores at least this, in [0, 1], and those without one do
            not count. They were linked from the score that the proposals say.
        depth: Farthest along z from the annotated slice, or from the best one of a matched tracklet, that boxes belong
            to the lesion, as a multiple of the longer side of its box there, above 0; None: any distance.
        centre_iou: Boxes belong to the lesion that overlap its box on the nearest of those slices, laid over theirs, by
            more than this (IoU), in [0, 1); None: all.
        tracklet_experts: Tracklets count if a box of them is of one of these experts; empty: all of them.
        single_types: Names of the single-type experts; empty: all but the one of the annotated dataset.
        oracle_types: Types of lesions that the single-type datasets label: what is uncertain without fault is of them
            alone, since no expert knows others. Empty: all.
        continuity: Slices in a row that a tracklet must cover for ``adjacent-slices``, at least 1.
        reach: Slices to either side on which ``adjacent-slices`` copies an annotation, at least 1.

    Raises:
        InputError: A value is not allowed.
    """

    theta: float = 0.5
    delta: float = 0.15
    sigma: float = 0.5
    uncertain_iou: float = 0.0
    conflict_share: float = 0.5
    conflict_iou: float = 0.5
    several: Several = "best"
    match: MatchBy = "embedding"
    max_pairs: int | None = None
    box_score: float = 0.0
    depth: float | None = None
    centre_iou: float | None = None
    tracklet_experts: tuple[str, ...] = ()
    single_types: tuple[str, ...] = ()
    oracle_types: tuple[str, ...] = ()
    continuity: int = 3
    reach: int = 1

    def __post_init__(self) -> None:
        for name in ("theta", "uncertain_iou", "conflict_share", "conflict_iou"):
            _within(name, getattr(self, name), 0 <= getattr(self, name) < 1, "from 0 to below 1")
        for name in ("sigma", "box_score"):
            _within(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "from 0 to 1")
        _within("delta", self.delta, math.isfinite(self.delta) and self.delta > 0, "a number above 0")
        far = self.depth is None or (math.isfinite(self.depth) and self.depth > 0)
        _within("depth", self.depth, far, "a number above 0, or none")
        over = self.centre_iou is None or 0 <= self.centre_iou < 1
        _within("centre_iou", self.centre_iou, over, "from 0 to below 1, or none")
        for name in ("continuity", "reach"):
            _within(name, getattr(self, name), getattr(self, name) >= 1, "a whole number from 1")
        _within("max_pairs", self.max_pairs, self.max_pairs is None or self.max_pairs >= 1, "from 1, or none for all")
        for name, kind in (("several", Several), ("match", MatchBy)):
            value, allowed = getattr(self, name), get_args(kind)
            _within(name, value, value in allowed, " or ".join(allowed))

    def tracklet_numbers(self, experts: tuple[str, ...]) -> frozenset[int] | None:
        """Numbers of :attr:`tracklet_experts`; None for all."""
        return frozenset(_numbers("tracklet_experts", self.tracklet_experts, experts)) or None

    def single_type_numbers(self, experts: tuple[str, ...], dataset: str) -> list[int]:
        """Numbers of the single-type experts.

        Raises:
            InputError: There are none, or one is unknown, or which it is cannot be told: no expert is the dataset's.
        """
        if not self.single_types and dataset not in experts:
            raise InputError(
                f"mining: the annotations are of {dataset}, the proposals of the experts {', '.join(experts)}; say "
                "with --single-types which of these are of single-type datasets"
            )
        names = self.single_types or tuple(name for name in experts if name != dataset)
        if not names:
            raise InputError(
                f"the proposals are of the expert of {dataset} alone; mining across datasets needs experts of "
                "single-type ones, propose with a detector that was trained on several datasets"
            )
        return sorted(_numbers("single_types", names, experts))


def _within(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise InputError(f"mining: {name} is {value}; allowed is {allowed}")


def _numbers(option: str, names: Iterable[str], experts: tuple[str, ...]) -> Iterable[int]:
    for name in names:
        if name not in experts:
            hint = did_you_mean(name, experts)
            raise InputError(f"mining: {option} has {name!r}; the proposals are of {', '.join(experts)}{hint}")
        yield experts.index(name)
