"""Backbones for slice stacks."""

from mmpluld.models.backbones.imagenet import DenseNetImageNet, map_imagenet_keys
from mmpluld.models.backbones.lens_densenet import LensDenseNet
from mmpluld.models.backbones.truncated_densenet import TruncatedDenseNet
from mmpluld.models.backbones.trunk import TrunkWeights

__all__ = ["DenseNetImageNet", "LensDenseNet", "TruncatedDenseNet", "TrunkWeights", "map_imagenet_keys"]
