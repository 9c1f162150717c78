"""Boxes from the network's input back to the slice as it was read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.structures import InstanceData

__all__ = ["rescale_boxes"]


def rescale_boxes(results: Iterable[InstanceData], metas: Iterable[Mapping[str, Any]]) -> None:
    """Bring the boxes of each image's instances back to its slice, in place.

    mmdet's ``scale_boxes`` multiplies by the inverse instead, which rounds otherwise.

    Args:
        results: Of each image, with ``bboxes`` (N, 4) in pixels of the input.
        metas: Of each image, with its ``scale_factor`` (x, y).
    """
    for found, meta in zip(results, metas, strict=True):
        found.bboxes = found.bboxes / found.bboxes.new_tensor(meta["scale_factor"]).repeat(1, 2)
