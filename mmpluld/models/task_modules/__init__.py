"""Assigners and other parts that heads build from their train and test settings."""

from mmpluld.models.task_modules.assigners import IgnoreAwareMaxIoUAssigner
from mmpluld.models.task_modules.rounded_anchors import RoundedRatioAnchorGenerator
from mmpluld.models.task_modules.v1_geometry import V1AnchorGenerator, V1DeltaXYWHBBoxCoder

__all__ = ["IgnoreAwareMaxIoUAssigner", "RoundedRatioAnchorGenerator", "V1AnchorGenerator", "V1DeltaXYWHBBoxCoder"]
