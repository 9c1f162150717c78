"""Which cells of a feature map a box covers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.structures import InstanceData
from torch import Tensor

__all__ = ["cells_in_boxes", "ignored_cells"]


def cells_in_boxes(
    boxes: Tensor, scale: float, size: Sequence[int], stride: float, at_least_one: bool = True
) -> Tensor:
    """Cells whose centre lies in the concentric part of a box; at least one row and one column of each box.

    Where no cell centre lies between the scaled edges, the row or column that contains the box's centre is taken, so
    that the smallest lesion has a cell. Without ``at_least_one`` it may have none.

    Args:
        boxes: (K, 4) as (x1, y1, x2, y2) in pixels of the input.
        scale: Side of the part over that of the box; 1 is the whole box.
        size: Height and width of the map.
        stride: Pixels of the input per cell, the same on both axes.
        at_least_one: Take the cell of the box's centre where there is no other.

    Returns:
        Boolean, (K, H, W).
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) * (scale / 2)
    axes = ((1, size[0]), (0, size[1]))
    rows, columns = (_cells_along(centre[:, i], half[:, i], count, stride, at_least_one) for i, count in axes)
    return rows[:, :, None] & columns[:, None, :]


def _cells_along(centre: Tensor, half: Tensor, count: int, stride: float, at_least_one: bool) -> Tensor:
    """(K, count), True for cells on one axis with their centre in (centre - half, centre + half]."""
    cells = torch.arange(count, device=centre.device)
    distance = (cells + 0.5) * stride - centre[:, None]
    inside = (distance > -half[:, None]) & (distance <= half[:, None])
    if not at_least_one:
        return inside
    # The box's centre belongs to the cell at whose near edge it lies; the interval is open and closed to match.
    nearest = (centre / stride).floor().clamp(0, count - 1)
    return inside | (cells == nearest[:, None])


def ignored_cells(
    batch_ignored: Sequence[InstanceData | None] | None, scale: float, size: Sequence[int], stride: float, like: Tensor
) -> Tensor:
    """Cells in the scaled ignored boxes of each image.

    Args:
        batch_ignored: ``ignored_instances`` of each image; None where there are none.
        scale: See ``cells_in_boxes``, as the next two.
        size: Height and width of the map.
        stride: Pixels of the input per cell.
        like: The head's output (B, C, H, W), for batch size and device.

    Returns:
        Boolean, (B, H, W).
    """
    cells = torch.zeros((len(like), *size), dtype=torch.bool, device=like.device)
    for i, ignored in enumerate(batch_ignored or ()):
        if ignored is not None and len(ignored):
            cells[i] = cells_in_boxes(ignored.bboxes, scale, size, stride).any(0)
    return cells
