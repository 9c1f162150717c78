"""A lesion of an annotation file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Box", "LesionRecord"]

Box = tuple[float, float, float, float, float, float]


@dataclass
class LesionRecord:
    """One lesion box in one volume.

    Attributes:
        id: Unique in its file.
        volume: ``VolumeRecord.id``.
        box: Voxel edges (x1, y1, z1, x2, y2, z2); z1 = k and z2 = k + 1 if only slice k is annotated.
        key_slice: Slice that the dataset's own mark lies on.
        recist: x, y of the end points of the long, then of the short diameter, in pixel-edge coordinates.
        type: Lesion type in words, e.g. "lung".
        ignore: True if detections on it are to count neither for nor against, in training and evaluation.
        origin: ``annotated``, or that of the strategy of mining that added it.
        score: Confidence, for lesions that were not annotated by a person.
        mask: Pixels of the lesion on its key slice as COCO run lengths: ``size`` [H, W] of the slice and ``counts``
            (compressed, text). None: unknown.
        attributes: Anything else, JSON types only.
    """

    id: int
    volume: str
    box: Box
    key_slice: int | None = None
    recist: tuple[float, ...] | None = None
    type: str | None = None
    ignore: bool = False
    origin: str = "annotated"
    score: float | None = None
    mask: dict[str, Any] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
