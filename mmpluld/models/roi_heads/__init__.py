"""Heads on regions of interest."""

from mmpluld.models.roi_heads.expert_bbox_head import ExpertBBoxHead
from mmpluld.models.roi_heads.expert_gate import ExpertGate
from mmpluld.models.roi_heads.expert_roi_head import ExpertRoIHead
from mmpluld.models.roi_heads.inclusive_roi_extractor import InclusiveRoIExtractor
from mmpluld.models.roi_heads.lesion_roi_head import LesionRoIHead
from mmpluld.models.roi_heads.mask_head import LesionMaskHead
from mmpluld.models.roi_heads.mulan_roi_head import MulanRoIHead
from mmpluld.models.roi_heads.tag_head import RefineHead, TagHead
from mmpluld.models.roi_heads.v1_roi_extractor import V1RoIExtractor

__all__ = [
    "ExpertBBoxHead",
    "ExpertGate",
    "ExpertRoIHead",
    "InclusiveRoIExtractor",
    "LesionMaskHead",
    "LesionRoIHead",
    "MulanRoIHead",
    "RefineHead",
    "TagHead",
    "V1RoIExtractor",
]
