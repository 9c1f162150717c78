"""Metrics for MMEngine's test loops."""

from mmpluld.evaluation.metrics.froc_metric import FROCMetric
from mmpluld.evaluation.metrics.recist_metric import RECISTMetric

__all__ = ["FROCMetric", "RECISTMetric"]
