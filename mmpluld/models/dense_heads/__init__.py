"""Heads on whole feature maps: proposal networks."""

from mmpluld.models.dense_heads.afp_head import AFPHead
from mmpluld.models.dense_heads.centernet_head import CenterNetProposalHead
from mmpluld.models.dense_heads.fcos_head import IgnoreAwareFCOSHead

__all__ = ["AFPHead", "CenterNetProposalHead", "IgnoreAwareFCOSHead"]
