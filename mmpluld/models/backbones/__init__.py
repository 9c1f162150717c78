"""Backbones for slice stacks."""

from mmpluld.models.backbones.truncated_densenet import TruncatedDenseNet

__all__ = ["TruncatedDenseNet"]
