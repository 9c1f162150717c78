"""Dense heads."""

from mmpluld.models.dense_heads.rpn_head import RPNHead, expose_use_sigmoid

__all__ = ["RPNHead", "expose_use_sigmoid"]
