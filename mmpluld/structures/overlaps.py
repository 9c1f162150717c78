"""How much a detection and a true box overlap, in 2D or 3D.

Boxes are float pixel or voxel edges: (x1, y1, x2, y2) or (x1, y1, z1, x2, y2, z2), far edge exclusive.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from mmpluld.errors import InputError, did_you_mean
from mmpluld.typing import FloatArray

__all__ = ["OVERLAPS", "Overlap", "paired_overlap", "pairwise_overlap"]

Overlap = Literal["iou", "iobb", "iogt", "iobbgt", "centre"]
OVERLAPS: tuple[Overlap, ...] = ("iou", "iobb", "iogt", "iobbgt", "centre")


def pairwise_overlap(detections: FloatArray, truth: FloatArray, overlap: Overlap = "iou") -> FloatArray:
    """Overlap of every detection with every true box.

    Args:
        detections: (N, 4) or (N, 6) edges.
        truth: (M, 4) or (M, 6) edges, as wide as ``detections``.
        overlap: What the intersection is divided by: ``iou`` the union, ``iobb`` the detection, ``iogt`` the
            true box; ``iobbgt`` is the larger of ``iobb`` and ``iogt``. ``centre`` is no share but 1 where the
            detection's centre lies inside the ellipsoid (ellipse) that the true box encloses, else 0: of a sphere's
            box, the centre is nearer to the sphere's than its radius, in whatever voxels.

    Returns:
        (N, M) in [0, 1]; (0, M) or (N, 0) when a side is empty. NaN where a coordinate is NaN or the divisor
        is 0; an inverted box overlaps nothing.

    Raises:
        InputError: If the shapes are not as above or the overlap is unknown.
    """
    detections = np.asarray(detections, dtype=np.float64)
    truth = np.asarray(truth, dtype=np.float64)
    for name, boxes in (("detections", detections), ("truth", truth)):
        if boxes.ndim != 2 or boxes.shape[1] not in (4, 6) or boxes.shape[1] != detections.shape[1]:
            raise InputError(
                f"{name} have shape {boxes.shape}; both sides must be (N, 4) or both (N, 6): pass box edges"
            )
    return paired_overlap(detections[:, None, :], truth[None, :, :], overlap)


def paired_overlap(detections: FloatArray, truth: FloatArray, overlap: Overlap = "iou") -> FloatArray:
    """Overlap of detections and true boxes that are already paired: (..., 4 or 6) each, broadcast, to (...).

    See ``pairwise_overlap`` for the measures and the invalid values.

    Raises:
        InputError: If the overlap is unknown.
    """
    if overlap not in OVERLAPS:
        hint = did_you_mean(overlap, OVERLAPS)
        raise InputError(f"overlap '{overlap}' is not one of {', '.join(OVERLAPS)}{hint}")
    dim = detections.shape[-1] // 2
    if overlap == "centre":
        return _centred(detections, truth, dim)
    sides = np.minimum(detections[..., dim:], truth[..., dim:]) - np.maximum(detections[..., :dim], truth[..., :dim])
    shared = np.prod(np.maximum(sides, 0.0), axis=-1)
    of_detection = np.prod(detections[..., dim:] - detections[..., :dim], axis=-1)
    of_truth = np.prod(truth[..., dim:] - truth[..., :dim], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        if overlap == "iou":
            result = shared / (of_detection + of_truth - shared)
        elif overlap == "iobb":
            result = shared / of_detection
        elif overlap == "iogt":
            result = shared / of_truth
        else:
            result = np.maximum(shared / of_detection, shared / of_truth)
    return np.asarray(result, dtype=np.float64)


def _centred(detections: FloatArray, truth: FloatArray, dim: int) -> FloatArray:
    """1 where the detection's centre is inside what the true box encloses, 0 outside, NaN where that is unknown."""
    near, far = truth[..., :dim], truth[..., dim:]
    offset = (detections[..., :dim] + detections[..., dim:]) / 2 - (near + far) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = np.sum((offset / ((far - near) / 2)) ** 2, axis=-1)
    inside = (squared < 1) & (far > near).all(axis=-1)
    return np.where(np.isnan(squared), np.nan, inside.astype(np.float64))
