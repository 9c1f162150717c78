"""RoIAlign as maskrcnn-benchmark samples it."""

from __future__ import annotations

from typing import Any

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

__all__ = ["InclusiveRoIExtractor"]


@MODELS.register_module()
class InclusiveRoIExtractor(SingleRoIExtractor):
    """RoI features of a region that ends at the first edge of its last pixel, without the half-pixel shift.

    maskrcnn-benchmark passes boxes that name their last pixel to RoIAlign as they are, so the region is from
    ``x1 / stride`` to ``(x2 - 1) / stride`` of our edges, widened to at least one cell.

    Args:
        **kwargs: As for mmdet's ``SingleRoIExtractor``; ``roi_layer`` must set ``aligned=False``.

    Raises:
        InputError: If ``roi_layer`` does not set ``aligned=False``.

    Source: poolers.py and ROIAlign of the published MULAN code.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if any(layer.aligned for layer in self.roi_layers):
            raise InputError("InclusiveRoIExtractor: roi_layer is aligned; set aligned=False in it")

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Features (R, C, size, size) at ``rois`` (R, 5): image index and edges x1, y1, x2, y2 in input pixels."""
        return super().forward(feats, rois - rois.new_tensor([0, 0, 0, 1, 1]), roi_scale_factor)
