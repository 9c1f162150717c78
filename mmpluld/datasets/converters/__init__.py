"""Converters: one per raw dataset, each to the one annotation format."""

from mmpluld.datasets.converters.deeplesion import convert_deeplesion
from mmpluld.datasets.converters.report import ConversionReport

__all__ = ["ConversionReport", "convert_deeplesion"]
