"""Converters: one per raw dataset, each to the one annotation format."""

from mmpluld.datasets.converters.deeplesion import convert_deeplesion
from mmpluld.datasets.converters.pseudo_masks import add_pseudo_masks, pseudo_mask
from mmpluld.datasets.converters.report import ConversionReport

__all__ = ["ConversionReport", "add_pseudo_masks", "convert_deeplesion", "pseudo_mask"]
