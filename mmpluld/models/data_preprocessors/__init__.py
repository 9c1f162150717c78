"""Data preprocessors: from a batch of samples to what the detector gets."""

from mmpluld.models.data_preprocessors.thickness import SliceStacks, ThicknessPreprocessor

__all__ = ["SliceStacks", "ThicknessPreprocessor"]
