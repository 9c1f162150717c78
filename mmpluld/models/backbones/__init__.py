"""Backbones for slice stacks."""

from mmpluld.models.backbones.imagenet import DenseNetImageNet, map_imagenet_keys
from mmpluld.models.backbones.truncated_densenet import TruncatedDenseNet

__all__ = ["DenseNetImageNet", "TruncatedDenseNet", "map_imagenet_keys"]
