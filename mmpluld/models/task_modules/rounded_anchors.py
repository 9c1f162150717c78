"""Anchors as maskrcnn-benchmark makes them: those of MULAN."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from torch import Tensor

from mmpluld.registry import TASK_UTILS

__all__ = ["RoundedRatioAnchorGenerator"]


@TASK_UTILS.register_module()
class RoundedRatioAnchorGenerator(AnchorGenerator):
    """mmdet's anchors, their shapes multiples of whole-numbered windows of one cell.

    The window of ratio r in a cell of side s is ``round(s / sqrt(r))`` wide and ``round(width * r)`` high: at stride 4
    6 x 3, 4 x 4 and 3 x 6, so that areas differ between ratios. Anchors are centred on the middle of their cell; with
    inclusive pixels that is 1.5 + 4 i, with edges 2 + 4 i.

    Args:
        center_offset: Centre of the anchors within their cell.
        **kwargs: As for mmdet's ``AnchorGenerator``; ``base_sizes`` are the strides.

    Source: anchor_generator.py of the published MULAN code.
    """

    def __init__(self, *args: Any, center_offset: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, center_offset=center_offset, **kwargs)

    def gen_single_level_base_anchors(
        self, base_size: float, scales: Tensor, ratios: Tensor, center: tuple[float, float] | None = None
    ) -> Tensor:
        """Base anchors (A, 4) of one level as edges, all scales of a ratio after one another."""
        x, y = center or (self.center_offset * base_size,) * 2
        widths = torch.round(base_size / ratios.sqrt())
        heights = torch.round(widths * ratios)
        half = torch.stack([widths, heights], dim=1)[:, None] * scales[None, :, None] / 2
        half = half.view(-1, 2)
        centre = half.new_tensor([x, y])
        return torch.cat([centre - half, centre + half], dim=1)
