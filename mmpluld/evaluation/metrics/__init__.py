"""Metrics for MMEngine's test loops."""

from mmpluld.evaluation.metrics.candidate_metric import CandidateMetric
from mmpluld.evaluation.metrics.froc_metric import FROCMetric
from mmpluld.evaluation.metrics.matching_metric import MatchingMetric
from mmpluld.evaluation.metrics.pixel_accuracy import PixelAccuracyMetric
from mmpluld.evaluation.metrics.recist_metric import RECISTMetric
from mmpluld.evaluation.metrics.volume_froc_metric import VolumeFROCMetric

__all__ = [
    "CandidateMetric",
    "FROCMetric",
    "MatchingMetric",
    "PixelAccuracyMetric",
    "RECISTMetric",
    "VolumeFROCMetric",
]
