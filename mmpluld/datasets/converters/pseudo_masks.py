"""Masks of lesions from their boxes and RECIST marks, by GrabCut.

Source: mask generator of the published A3D and AlignShift code. Per lesion the box is probable foreground, the
quadrilateral of the four RECIST ends sure foreground, everything else sure background. ``exact`` is our default;
``legacy`` repeats the published images, whose negative grey values wrap around.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mmpluld.compat.system import usable_cores
from mmpluld.errors import InputError, did_you_mean
from mmpluld.io.slice_sources import SliceSource, open_source
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord
from mmpluld.typing import BoolArray, StrPath

__all__ = ["MaskMode", "MaskOrigin", "add_pseudo_masks", "check_mask_mode", "encode_mask", "pseudo_mask"]

MaskMode = Literal["exact", "legacy"]
MaskOrigin = Literal["grabcut", "recist", "ellipse"]
GreyArray = npt.NDArray[np.uint8]

_ITERATIONS = 3
# The commonest window of DeepLesion stands in where the table has none.
_SOFT_TISSUE_HU = (-175.0, 275.0)
# What lies further away than this many box sides says little about the lesion's surroundings, and costs time.
_CONTEXT = 1.0
_MIN_CONTEXT_PX = 16


def pseudo_mask(
    slice_hu: npt.NDArray[Any],
    box: Sequence[float],
    recist: Sequence[float] | None,
    window_hu: Sequence[float | None] | None = None,
    mode: MaskMode = "exact",
) -> tuple[BoolArray, MaskOrigin]:
    """Estimate the pixels of a lesion.

    ``exact`` shows GrabCut the box and its surroundings in the lesion's own window, clipped to 0..255, and keeps the
    parts that touch the RECIST mark. ``legacy`` shows it the whole slice in the networks' window less 50, cast to 8 bit
    so that negative values wrap around, and keeps everything.

    Where GrabCut finds nothing or takes the whole box, the RECIST quadrilateral stands in; where there is no RECIST
    mark, or it lies outside the slice, the ellipse that fills the box. Same input, same mask.

    Args:
        slice_hu: (H, W).
        box: x1, y1, x2, y2 pixel edges.
        recist: x, y of the ends of the long, then of the short diameter, in pixel edges, or None.
        window_hu: Lowest and highest HU of the lesion's display window; without a valid one soft tissue.
        mode: ``exact`` or ``legacy``.

    Returns:
        The mask (H, W), empty if the box lies outside the slice, and where it comes from.
    """
    height, width = slice_hu.shape
    left, top, right, bottom = _box_pixels(box, height, width, mode)
    if left >= right or top >= bottom:
        return np.zeros((height, width), dtype=np.bool_), "ellipse"
    sure = _quadrilateral(recist, (height, width), mode)
    if not sure.any():
        return _ellipse(box, height, width), "ellipse"
    labels = np.full((height, width), cv2.GC_BGD, dtype=np.uint8)
    labels[top:bottom, left:right] = cv2.GC_PR_FGD
    labels[sure] = cv2.GC_FGD
    if mode == "legacy":
        found = _grab_cut(_legacy_grey(slice_hu), labels)
    else:
        region = _surroundings((left, top, right, bottom), height, width)
        found = np.zeros_like(sure)
        found[region] = _grab_cut(_window_grey(slice_hu[region], window_hu), labels[region])
        found = _touching(found, sure)
    if not found.any() or found[top:bottom, left:right].all():
        return sure, "recist"
    return found, "grabcut"


def add_pseudo_masks(annotations: AnnotationSet, root: StrPath, mode: MaskMode = "exact") -> Counter[MaskOrigin]:
    """Give every lesion that has a key slice and no mask a pseudo-mask, in place.

    Where a key slice cannot be read, its lesions get the mask of their RECIST mark or box alone.

    Args:
        annotations: Lesions; ``attributes["window_hu"]`` is their window.
        root: Folder that the volumes' paths start from.
        mode: See :func:`pseudo_mask`.

    Returns:
        How many masks came from where.

    Raises:
        InputError: Unknown mode.
    """
    check_mask_mode(mode)
    volumes = {volume.id: volume for volume in annotations.volumes}
    groups: dict[tuple[str, int], list[LesionRecord]] = {}
    for lesion in annotations.lesions:
        if lesion.key_slice is not None and lesion.mask is None:
            groups.setdefault((lesion.volume, lesion.key_slice), []).append(lesion)
    jobs = [(volumes[name], key, lesions) for (name, key), lesions in groups.items()]
    counts: Counter[MaskOrigin] = Counter()
    # Threads, as OpenCV lets go of the interpreter while it works and has a random generator per thread.
    with ThreadPoolExecutor(usable_cores()) as pool:
        results = pool.map(partial(_masks_of_slice, root=Path(root), mode=mode), jobs)
        for (_, _, lesions), masks in zip(jobs, track(results, "making masks", total=len(jobs)), strict=True):
            for lesion, (mask, origin) in zip(lesions, masks, strict=True):
                lesion.mask = mask
                counts[origin] += mask is not None
    return counts


def check_mask_mode(mode: str) -> None:
    """Refuse an unknown mode.

    Raises:
        InputError: If ``mode`` is neither ``exact`` nor ``legacy``.
    """
    allowed = get_args(MaskMode)
    if mode not in allowed:
        raise InputError(f"mask mode is {mode!r}; allowed are {', '.join(allowed)}{did_you_mean(mode, allowed)}")


def encode_mask(mask: BoolArray) -> dict[str, Any]:
    """COCO run lengths of a mask (H, W), as annotation files store them."""
    from pycocotools import mask as coco

    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def _masks_of_slice(
    job: tuple[VolumeRecord, int, list[LesionRecord]], root: Path, mode: MaskMode
) -> list[tuple[dict[str, Any] | None, MaskOrigin]]:
    """Encoded masks of the lesions on one slice; None for one that lies outside it."""
    volume, key_slice, lesions = job
    slice_hu = _read(volume, key_slice, root)
    results: list[tuple[dict[str, Any] | None, MaskOrigin]] = []
    for lesion in lesions:
        box = (*lesion.box[:2], *lesion.box[3:5])
        if slice_hu is None:
            mask, origin = _from_marks(box, lesion.recist, volume.shape_yx, mode)
        else:
            mask, origin = pseudo_mask(slice_hu, box, lesion.recist, lesion.attributes.get("window_hu"), mode)
        results.append((encode_mask(mask) if mask.any() else None, origin))
    return results


def _read(volume: VolumeRecord, key_slice: int, root: Path) -> npt.NDArray[Any] | None:
    """The slice, or None if it cannot be read or is not as large as the others."""
    try:
        source: SliceSource = open_source(volume, root)
        slice_hu = source.read(key_slice)
    except InputError:
        return None
    return slice_hu if slice_hu.shape == tuple(volume.shape_yx) else None


def _from_marks(
    box: Sequence[float], recist: Sequence[float] | None, shape_yx: tuple[int, int], mode: MaskMode
) -> tuple[BoolArray, MaskOrigin]:
    """The mask that needs no image."""
    sure = _quadrilateral(recist, shape_yx, mode)
    return (sure, "recist") if sure.any() else (_ellipse(box, *shape_yx), "ellipse")


def _box_pixels(box: Sequence[float], height: int, width: int, mode: MaskMode) -> tuple[int, int, int, int]:
    """Range of pixels left, top, right, bottom (far end exclusive) of a box, within the slice."""
    x1, y1, x2, y2 = box
    # The published generator cuts off the fractions of an inclusive box, whose far side is one less than our edge.
    far_x, far_y = (int(x2), int(y2)) if mode == "legacy" else (int(np.ceil(x2)), int(np.ceil(y2)))
    return max(int(np.floor(x1)), 0), max(int(np.floor(y1)), 0), min(far_x, width), min(far_y, height)


def _quadrilateral(recist: Sequence[float] | None, shape_yx: tuple[int, int], mode: MaskMode) -> BoolArray:
    """Filled polygon of the four RECIST ends, the two diameters its diagonals; empty without RECIST."""
    filled = np.zeros(shape_yx, dtype=np.uint8)
    if recist is not None:
        centres = np.asarray(recist, np.float64).reshape(4, 2)[[0, 2, 1, 3]] - 0.5
        corners = np.trunc(centres) if mode == "legacy" else np.round(centres)
        cv2.fillPoly(filled, [corners.astype(np.int32)], (1,))
    return filled.astype(np.bool_)


def _ellipse(box: Sequence[float], height: int, width: int) -> BoolArray:
    """The ellipse that fills a box, at least one pixel of it if the box meets the slice."""
    x1, y1, x2, y2 = box
    x = (np.arange(width) + 0.5 - (x1 + x2) / 2) / max((x2 - x1) / 2, 0.5)
    y = (np.arange(height) + 0.5 - (y1 + y2) / 2) / max((y2 - y1) / 2, 0.5)
    filled: BoolArray = x[None, :] ** 2 + y[:, None] ** 2 <= 1
    if not filled.any() and min(x2, width) > max(x1, 0) and min(y2, height) > max(y1, 0):
        column, row = int((max(x1, 0) + min(x2, width)) / 2), int((max(y1, 0) + min(y2, height)) / 2)
        filled[min(row, height - 1), min(column, width - 1)] = True
    return filled


def _surroundings(pixels: tuple[int, int, int, int], height: int, width: int) -> tuple[slice, slice]:
    """The box with its context, rows and columns."""
    left, top, right, bottom = pixels
    margin = max(round(_CONTEXT * max(right - left, bottom - top)), _MIN_CONTEXT_PX)
    return (
        slice(max(top - margin, 0), min(bottom + margin, height)),
        slice(max(left - margin, 0), min(right + margin, width)),
    )


def _window_grey(slice_hu: npt.NDArray[Any], window_hu: Sequence[float | None] | None) -> GreyArray:
    low, high = _SOFT_TISSUE_HU
    if window_hu is not None and window_hu[0] is not None and window_hu[1] is not None and window_hu[0] < window_hu[1]:
        low, high = window_hu[0], window_hu[1]
    grey: GreyArray = np.clip((slice_hu.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    return grey


def _legacy_grey(slice_hu: npt.NDArray[Any]) -> GreyArray:
    values = np.clip((slice_hu.astype(np.float32) + 1024) / 3074, 0, 1) * 255 - 50
    # Through a wide integer, because casting a negative float to 8 bit means something else on every machine.
    wrapped: GreyArray = values.astype(np.int32).astype(np.uint8)
    return wrapped


def _grab_cut(grey: GreyArray, labels: GreyArray) -> BoolArray:
    """Sure or probable foreground after GrabCut; nothing where it fails."""
    work = np.ascontiguousarray(labels)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    try:
        cv2.grabCut(
            cv2.merge([grey, grey, grey]), work, None, background, foreground, _ITERATIONS, cv2.GC_INIT_WITH_MASK
        )
    except cv2.error:  # too few pixels of one kind for its colour models
        return np.zeros(labels.shape, dtype=np.bool_)
    found: BoolArray = (work == cv2.GC_FGD) | (work == cv2.GC_PR_FGD)
    return found


def _touching(found: BoolArray, sure: BoolArray) -> BoolArray:
    """Those connected parts of ``found`` that share a pixel with ``sure``."""
    parts, _ = ndimage.label(found)
    kept: BoolArray = np.isin(parts, np.unique(parts[sure & found]))
    return kept & found
