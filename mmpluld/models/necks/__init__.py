"""Necks."""

from mmpluld.models.necks.image_top_down_fusion import ImageTopDownFusion
from mmpluld.models.necks.top_down_fusion import TopDownFusion

__all__ = ["ImageTopDownFusion", "TopDownFusion"]
