"""Networks that tell what every pixel is."""

from mmpluld.models.segmentors.organ_segmentor import OrganSegmentor

__all__ = ["OrganSegmentor"]
