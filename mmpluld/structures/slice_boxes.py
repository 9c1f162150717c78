"""The 2D boxes of a lesion, slice by slice, and where each of them comes from."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from mmpluld.errors import InputError
from mmpluld.structures.boxes import centres_between
from mmpluld.structures.lesion_record import LesionRecord

__all__ = [
    "Box2D",
    "annotated_boxes",
    "boxes_between",
    "boxes_by_slice",
    "clipped_box",
    "key_box",
    "origins_by_slice",
]

Box2D = tuple[float, float, float, float]


def boxes_by_slice(lesion: LesionRecord, own: bool = True) -> dict[int, Box2D]:
    """The lesion's box (x1, y1, x2, y2) on each of its slices, by slice number.

    A lesion without boxes of its own for slices is on those whose centres its box holds, or on the one in the middle;
    one that ends along z where it begins is on none.

    Args:
        lesion: The lesion.
        own: Take the boxes that slices have of their own, where they are told (an empty list tells that there are
            none); else the extent of the whole lesion.
    """
    x1, y1, z1, x2, y2, z2 = lesion.box
    rows = lesion.attributes.get("slice_boxes") if own else None
    if rows is None:
        return dict.fromkeys(centres_between(z1, z2) if z1 < z2 else (), (x1, y1, x2, y2))
    return {int(index): (float(x1), float(y1), float(x2), float(y2)) for index, x1, y1, x2, y2 in rows}


def boxes_between(boxes: Mapping[int, Box2D]) -> dict[int, Box2D]:
    """Where a lesion must be on slices that have no box of it: between two that have, interpolated.

    Marks on every second or third slice leave such gaps.

    Args:
        boxes: (x1, y1, x2, y2) by slice number, as from :func:`boxes_by_slice`.
    """
    found: dict[int, Box2D] = {}
    for low, high in pairwise(sorted(boxes)):
        first, last = np.array(boxes[low]), np.array(boxes[high])
        for number in range(low + 1, high):
            x1, y1, x2, y2 = (first + (last - first) * (number - low) / (high - low)).tolist()
            found[number] = (x1, y1, x2, y2)
    return found


def clipped_box(box: Box2D, shape_yx: tuple[int, int]) -> Box2D | None:
    """What is of a box (x1, y1, x2, y2) within an image of (height, width) pixels; None if nothing is."""
    height, width = shape_yx
    x1, y1, x2, y2 = box
    x1, x2 = max(x1, 0.0), min(x2, float(width))
    y1, y2 = max(y1, 0.0), min(y2, float(height))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def origins_by_slice(lesion: LesionRecord) -> dict[int, str]:
    """Where the box of each of the lesion's slices comes from: ``attributes["slice_origins"]``, else its ``origin``."""
    slices = boxes_by_slice(lesion)
    origins = lesion.attributes.get("slice_origins")
    if origins is None:
        return dict.fromkeys(slices, lesion.origin)
    rows = lesion.attributes["slice_boxes"]
    return {int(row[0]): str(origin) for row, origin in zip(rows, origins, strict=True)}


def annotated_boxes(lesion: LesionRecord) -> dict[int, Box2D]:
    """The boxes of a lesion that are a person's, by slice."""
    origins = origins_by_slice(lesion)
    return {number: box for number, box in boxes_by_slice(lesion).items() if origins[number] == "annotated"}


def key_box(lesion: LesionRecord) -> tuple[int, Box2D]:
    """The slice that stands for a lesion, and its box there: the key slice, else the middle one, the lower of two.

    Of a lesion that a person marked, slices to which mining added boxes do not count: it is the mark that is embedded
    and matched.

    Raises:
        InputError: The lesion is on no slice.
    """
    boxes = sorted((annotated_boxes(lesion) or boxes_by_slice(lesion)).items())
    if not boxes:
        raise InputError(
            f"lesion {lesion.id} of volume {lesion.volume} is on no slice: z {lesion.box[2]:g} to {lesion.box[5]:g} "
            "is empty, or slice_boxes is; mend or remove it in the annotation file"
        )
    return next((row for row in boxes if row[0] == lesion.key_slice), boxes[(len(boxes) - 1) // 2])
