"""Converters: one per raw dataset, each to the one annotation format."""

from mmpluld.datasets.converters.boxes import convert_boxes
from mmpluld.datasets.converters.deeplesion import convert_deeplesion
from mmpluld.datasets.converters.deeplesion_3d import convert_deeplesion_3d
from mmpluld.datasets.converters.lits import convert_lits
from mmpluld.datasets.converters.luna16 import convert_luna16
from mmpluld.datasets.converters.nih_ln import convert_nih_ln
from mmpluld.datasets.converters.pseudo_masks import add_pseudo_masks, pseudo_mask
from mmpluld.datasets.converters.report import ConversionReport

__all__ = [
    "ConversionReport",
    "add_pseudo_masks",
    "convert_boxes",
    "convert_deeplesion",
    "convert_deeplesion_3d",
    "convert_lits",
    "convert_luna16",
    "convert_nih_ln",
    "pseudo_mask",
]
