"""Heads on regions of interest."""

from mmpluld.models.roi_heads.mask_head import LesionMaskHead
from mmpluld.models.roi_heads.v1_roi_extractor import V1RoIExtractor

__all__ = ["LesionMaskHead", "V1RoIExtractor"]
