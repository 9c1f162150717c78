"""Who counts as found: the rules of a FROC evaluation as one value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from mmpluld.errors import InputError, did_you_mean
from mmpluld.structures.overlaps import OVERLAPS, Overlap

__all__ = ["CENTRE_3D", "DEEPLESION_2D", "LENS_3D", "PROTOCOLS", "FROCProtocol", "get_protocol"]


@dataclass(frozen=True)
class FROCProtocol:
    """The rules of one FROC evaluation; ``dataclasses.replace`` makes a variant.

    Attributes:
        name: How the command line and reports call it.
        dim: 2 for boxes on key slices, 3 for boxes in volumes.
        overlap: Measure of ``pairwise_overlap``.
        threshold: A detection can find a lesion when their overlap is at least this, in (0, 1].
        levels: Mean false positives per image or volume at which sensitivity is read, ascending.
        headline_levels: Those of ``levels`` whose mean sensitivity is the headline number.
        per: What false positives are averaged over: the key-slice ``image`` or the (sub-)``volume``.
        duplicates: What a detection is that touches only lesions found already by higher scores: ``free``
            (neither hit nor false positive, as published) or ``fp``.
        one_to_one: A detection finds at most one lesion, of the free ones that it overlaps most. Published
            evaluations let it find all that it touches.
        min_iogt: Share of the lesion that a detection must also cover, in [0, 1]. 0 asks nothing, as
            published; with ``iobb`` it stops rewarding shrunken boxes.
    """

    name: str
    dim: Literal[2, 3]
    overlap: Overlap
    threshold: float
    levels: tuple[float, ...]
    headline_levels: tuple[float, ...]
    per: Literal["image", "volume"] = "image"
    duplicates: Literal["free", "fp"] = "free"
    one_to_one: bool = False
    min_iogt: float = 0.0

    def __post_init__(self) -> None:
        """Check the values, since a protocol may come from a config."""
        allowed = (
            ("dim", self.dim in (2, 3), "2 or 3"),
            ("overlap", self.overlap in OVERLAPS, f"one of {', '.join(OVERLAPS)}"),
            ("threshold", 0 < self.threshold <= 1, "in (0, 1]"),
            ("levels", _ascending(self.levels), "positive finite numbers in ascending order"),
            (
                "headline_levels",
                bool(self.headline_levels) and set(self.headline_levels) <= set(self.levels),
                f"some of the levels {self.levels}",
            ),
            ("per", self.per in ("image", "volume"), "'image' or 'volume'"),
            ("duplicates", self.duplicates in ("free", "fp"), "'free' or 'fp'"),
            ("min_iogt", 0 <= self.min_iogt <= 1, "in [0, 1]"),
        )
        for field, valid, what in allowed:
            if not valid:
                raise InputError(f"FROC protocol '{self.name}': {field} is {getattr(self, field)!r}; it must be {what}")

    @property
    def headline_index(self) -> list[int]:
        """Positions of the headline levels in ``levels``."""
        return [self.levels.index(level) for level in self.headline_levels]


def _from_fields(values: Mapping[str, Any]) -> FROCProtocol:
    """The protocol of a config."""
    known = {field.name: field.default is MISSING for field in fields(FROCProtocol)}
    for name in values:
        if name not in known:
            raise InputError(f"FROC protocol: it has no field '{name}'{did_you_mean(name, known)}")
    if lacking := [name for name, needed in known.items() if needed and name not in values]:
        raise InputError(f"FROC protocol: lacks {', '.join(lacking)}; give them, or the name of one there is")
    for name in ("levels", "headline_levels"):
        if not isinstance(values[name], Sequence) or isinstance(values[name], str):
            raise InputError(f"FROC protocol: {name} is {values[name]!r}; it must be a list of numbers")
    lists = {name: tuple(values[name]) for name in ("levels", "headline_levels")}
    try:
        return FROCProtocol(**{**values, **lists})
    except TypeError as error:
        raise InputError(f"FROC protocol '{values['name']}': a value is of the wrong type ({error})") from None


def _ascending(levels: tuple[float, ...]) -> bool:
    return bool(levels) and all(
        math.isfinite(level) and low < level for low, level in zip((0.0, *levels), levels, strict=False)
    )


# DeepLesion key slices as in 3DCE, MULAN, AlignShift, A3D and the partial-label loss paper (Table 1 there).
DEEPLESION_2D = FROCProtocol(
    "deeplesion-2d",
    dim=2,
    overlap="iou",
    threshold=0.5,
    levels=(0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    headline_levels=(0.5, 1.0, 2.0, 4.0),
    per="image",
)
# Fully annotated sub-volumes of LENS, Sec. VI-C. The paper says "larger than 0.3", its code "at least".
LENS_3D = FROCProtocol(
    "lens-3d",
    dim=3,
    overlap="iobb",
    threshold=0.3,
    levels=(0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    headline_levels=(0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    per="volume",
)
# Whole volumes of datasets that label all lesions of one kind: LUNA16's rule of hits, for boxes.
CENTRE_3D = FROCProtocol(
    "centre-3d",
    dim=3,
    overlap="centre",
    threshold=1.0,
    levels=LENS_3D.levels,
    headline_levels=LENS_3D.levels,
    per="volume",
)
PROTOCOLS = {protocol.name: protocol for protocol in (DEEPLESION_2D, LENS_3D, CENTRE_3D)}


def get_protocol(protocol: str | Mapping[str, Any] | FROCProtocol) -> FROCProtocol:
    """Return the protocol of this name, that of these fields, or ``protocol`` itself if it is one.

    Raises:
        InputError: No protocol has this name, or the fields are not those of a protocol.
    """
    if isinstance(protocol, FROCProtocol):
        return protocol
    if isinstance(protocol, Mapping):
        return _from_fields(protocol)
    if protocol not in PROTOCOLS:
        hint = did_you_mean(protocol, PROTOCOLS)
        raise InputError(f"FROC protocol '{protocol}' is not one of {', '.join(PROTOCOLS)}{hint}")
    return PROTOCOLS[protocol]
