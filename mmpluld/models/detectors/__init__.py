"""Detectors that are more than a config of mmdet's."""

from mmpluld.models.detectors.per_dataset_detector import PerDatasetDetector

__all__ = ["PerDatasetDetector"]
