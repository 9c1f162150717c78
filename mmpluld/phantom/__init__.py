"""Synthetic CT with lesions: a parametric torso, complete truth, and a radiologist who marks only some lesions."""

from mmpluld.phantom.case import PhantomCase, PhantomLesion, PhantomSeries, make_phantom
from mmpluld.phantom.layout_organs import write_organs_layout
from mmpluld.phantom.layout_starter import STARTER_PATIENTS, starter_record, write_starter_layout
from mmpluld.phantom.layouts import LAYOUT_REGIONS, write_lits_layout, write_luna16_layout, write_nih_ln_layout
from mmpluld.phantom.organs import Organ
from mmpluld.phantom.spec import REGIONS_MM, PhantomSpec
from mmpluld.phantom.writers import DL_INFO_COLUMNS, truth_beside, write_deeplesion_layout, write_nifti

__all__ = [
    "DL_INFO_COLUMNS",
    "LAYOUT_REGIONS",
    "REGIONS_MM",
    "STARTER_PATIENTS",
    "Organ",
    "PhantomCase",
    "PhantomLesion",
    "PhantomSeries",
    "PhantomSpec",
    "make_phantom",
    "starter_record",
    "truth_beside",
    "write_deeplesion_layout",
    "write_lits_layout",
    "write_luna16_layout",
    "write_nifti",
    "write_nih_ln_layout",
    "write_organs_layout",
    "write_starter_layout",
]
