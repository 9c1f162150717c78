"""Detectors that are more than a config of mmdet's."""

from mmpluld.models.detectors.mean_teacher_detector import MeanTeacherDetector
from mmpluld.models.detectors.per_dataset_detector import PerDatasetDetector

__all__ = ["MeanTeacherDetector", "PerDatasetDetector"]
