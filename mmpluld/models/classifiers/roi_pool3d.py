"""RoIAlign in three dimensions for one box a patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["roi_align3d"]


def roi_align3d(features: Tensor, boxes: Tensor, output_size: Sequence[int], sampling_ratio: int = 2) -> Tensor:
    """Mean of each cell of a box, interpolated trilinearly: RoIAlign with aligned corners of boxes.

    Since boxes are parallel to the axes, interpolation and mean are one matrix an axis. Beyond the outermost voxels'
    centres their values go on.

    Args:
        features: (B, C, D, H, W).
        boxes: (B, 6) x1, y1, z1, x2, y2, z2, voxel edges of ``features``.
        output_size: Cells along z, y and x.
        sampling_ratio: Points of a cell along each axis.

    Returns:
        (B, C, *output_size).
    """
    for axis, cells in enumerate(output_size):  # z, y, x
        low, high = boxes[:, 2 - axis], boxes[:, 5 - axis]
        weights = _weights(low, high, cells, sampling_ratio, features.shape[2 + axis]).to(features.dtype)
        moved = features.movedim(2 + axis, -1)
        pooled = torch.einsum("bcijn,bkn->bcijk", moved, weights)
        features = pooled.movedim(-1, 2 + axis)
    return features


def _weights(low: Tensor, high: Tensor, cells: int, points: int, size: int) -> Tensor:
    """Weights (B, cells, size) of the voxels along one axis."""
    steps = (torch.arange(cells * points, device=low.device, dtype=torch.float32) + 0.5) / (cells * points)
    position = low[:, None].float() + (high - low)[:, None].float() * steps - 0.5  # of voxel centres
    position = position.clamp(0, size - 1)
    voxels = torch.arange(size, device=low.device, dtype=torch.float32)
    hats = (1 - (position[..., None] - voxels).abs()).clamp(min=0)
    return hats.view(len(low), cells, points, size).mean(2)
