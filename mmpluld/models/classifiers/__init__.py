"""Classifiers of 3D patches: lesion or false positive."""

from mmpluld.models.classifiers.imagenet import ResNetImageNet, inflate_resnet
from mmpluld.models.classifiers.inflated_resnet import InflatedResNet
from mmpluld.models.classifiers.patch_classifier import PatchClassifier

__all__ = ["InflatedResNet", "PatchClassifier", "ResNetImageNet", "inflate_resnet"]
