"""RoIAlign as MMDetection 1.x samples it."""

from __future__ import annotations

from typing import Any

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

__all__ = ["V1RoIExtractor"]


@MODELS.register_module()
class V1RoIExtractor(SingleRoIExtractor):
    """RoI features of one map without the half-pixel shift and without a smallest region.

    The published code samples a region from ``x1 / stride`` to ``(x2 + 1) / stride`` with x2 inclusive; ours end at
    that edge already. mmcv's ``aligned=False`` differs from it: it widens regions to at least one cell.
    ``aligned=True`` does not, and its shift by half a cell is taken back here.

    Args:
        featmap_strides: The stride of the one feature map.
        **kwargs: As for mmdet's ``SingleRoIExtractor``.

    Raises:
        InputError: If there are several maps, or ``roi_layer`` sets ``aligned=False``.

    Source: roi_align_kernel.cu of MMDetection 1.0.
    """

    def __init__(self, featmap_strides: list[int], **kwargs: Any) -> None:
        super().__init__(featmap_strides=featmap_strides, **kwargs)
        if len(featmap_strides) != 1:
            raise InputError(f"V1RoIExtractor: featmap_strides is {featmap_strides}; needed is exactly one stride")
        if not self.roi_layers[0].aligned:
            raise InputError("V1RoIExtractor: roi_layer has aligned=False; leave it out, the shift is taken back here")

    def forward(self, feats: tuple[Tensor, ...], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Features (R, C, size, size) at ``rois`` (R, 5): image index and edges x1, y1, x2, y2 in input pixels."""
        half = self.featmap_strides[0] / 2
        return super().forward(feats, rois + rois.new_tensor([0, half, half, half, half]), roi_scale_factor)
