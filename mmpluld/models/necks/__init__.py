"""Necks."""

from mmpluld.models.necks.top_down_fusion import TopDownFusion

__all__ = ["TopDownFusion"]
