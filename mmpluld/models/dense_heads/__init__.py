"""Heads on whole feature maps: proposal networks."""

from mmpluld.models.dense_heads.afp_head import AFPHead
from mmpluld.models.dense_heads.centernet_head import CenterNetProposalHead
from mmpluld.models.dense_heads.fcos_head import IgnoreAwareFCOSHead
from mmpluld.models.dense_heads.per_dataset_head import PerDatasetHead
from mmpluld.models.dense_heads.rpn_head import SharedCountRPNHead

__all__ = ["AFPHead", "CenterNetProposalHead", "IgnoreAwareFCOSHead", "PerDatasetHead", "SharedCountRPNHead"]
