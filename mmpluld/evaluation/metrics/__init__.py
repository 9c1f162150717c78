"""Metrics for MMEngine's test loops."""

from mmpluld.evaluation.metrics.froc_metric import FROCMetric

__all__ = ["FROCMetric"]
