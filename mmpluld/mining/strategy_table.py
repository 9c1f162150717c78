"""The strategies of mining, each under a name; :data:`STRATEGIES` is the table of them.

Light, so that the command's help can list them: what they call is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal

from mmpluld.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from mmpluld.mining.options import MiningOptions
    from mmpluld.mining.places import LesionPlaces
    from mmpluld.mining.pool import ProposalPool
    from mmpluld.mining.truth import CompleteTruth
    from mmpluld.structures import AnnotationSet

__all__ = ["ORACLES", "STRATEGIES", "Strategy", "Target", "find_strategy"]

Target = Literal["own", "patient", "labelled", "unlabelled"]


@dataclass(frozen=True)
class Strategy:
    """One way to add to annotations.

    Attributes:
        name: What the command, and the header of a mined file, call it.
        text: What it adds, in a few words.
        function: Module below ``mmpluld.mining``, and its function from annotations, proposals, options, and where the
            strategy matches lesions their places, to annotations.
        origin: That of the records, or of their slices, that it adds; what is ``mined`` is to be ignored.
        target: The true boxes that it is after, of which recall is a share: those of lesions annotated in the volume
            (``own``) or in another one of the patient (``patient``: its new records are scored too, and say which
            ``matched_lesion`` they are), or those on slices with a certain box (``labelled``) or without
            (``unlabelled``).
        every_slice: After it every slice is a sample; else those with a certain lesion are.
        matches: It matches lesions, by embeddings unless the options say by position.
        oracle: Module and function that do it by the truth, from annotations, truth, and where the strategy is after
            uncertain boxes the types of lesions that experts know; None: nothing does.
    """

    name: str
    text: str
    function: str
    origin: str
    target: Target
    every_slice: bool = False
    matches: bool = False
    oracle: str | None = None

    @property
    def uncertain(self) -> bool:
        """Whether its boxes are to be ignored."""
        return self.origin == "mined"

    def mine(
        self, annotations: AnnotationSet, proposals: ProposalPool, options: MiningOptions, places: LesionPlaces | None
    ) -> AnnotationSet:
        """The annotations with what proposals add."""
        return _loaded(self.function)(annotations, proposals, options, *([places] if self.matches else []))

    def perfect(self, annotations: AnnotationSet, truth: CompleteTruth, options: MiningOptions) -> AnnotationSet:
        """The annotations with what it would add without fault; only of :data:`ORACLES`."""
        assert self.oracle is not None
        return _loaded(self.oracle)(annotations, truth, *([options.oracle_types] if self.uncertain else []))


def _loaded(function: str) -> Callable[..., AnnotationSet]:
    found: Callable[..., AnnotationSet] = resolve_name(f"mmpluld.mining.{function}")
    return found


_TABLE = (
    Strategy(
        "cross-slice", "an annotated lesion's boxes on its other slices", "strategies:propagate_across_slices",
        "propagated", "own", oracle="oracles:across_slices",
    ),
    Strategy(
        "adjacent-slices", "copies of annotated boxes on the slices beside them", "strategies:adjacent_slices",
        "propagated", "own",
    ),
    Strategy(
        "intra-patient", "annotated lesions in the patient's other volumes", "strategies:match_within_patients",
        "matched", "patient", matches=True, oracle="oracles:within_patients",
    ),
    Strategy(
        "cross-dataset", "uncertain boxes on slices with a lesion", "strategies:cross_dataset",
        "mined", "labelled", oracle="oracles:on_labelled_slices",
    ),
    Strategy(
        "unlabeled", "uncertain boxes on all other slices, for negatives", "strategies:unlabeled_slices",
        "mined", "unlabelled", every_slice=True, oracle="oracles:on_unlabelled_slices",
    ),
    Strategy(
        "distillation", "the detector's best boxes on all other slices, as lesions", "strategies:distil",
        "distilled", "unlabelled", every_slice=True,
    ),
)  # fmt: skip

STRATEGIES = {strategy.name: strategy for strategy in _TABLE}
"""In the order in which they run, whatever order they are asked for in."""
ORACLES = {name: strategy for name, strategy in STRATEGIES.items() if strategy.oracle}
"""Those that can be done without fault too, by the truth."""


def find_strategy(name: str, oracle: bool = False) -> Strategy:
    """The strategy of a name, with ``oracle`` one of :data:`ORACLES`.

    Raises:
        InputError: There is none.
    """
    known = ORACLES if oracle else STRATEGIES
    if name not in known:
        kind = "an oracle" if oracle else "a strategy"
        raise InputError(f"{name!r} is not {kind} of mining; allowed are {', '.join(known)}{did_you_mean(name, known)}")
    return known[name]
