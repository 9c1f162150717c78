"""FROC evaluation and errors of RECIST diameters as plain functions on NumPy arrays."""

from mmpluld.evaluation.functional.bootstrap import (
    Interval,
    bootstrap_difference,
    bootstrap_ratio,
    bootstrap_sensitivity,
    resample_sensitivity,
)
from mmpluld.evaluation.functional.froc import (
    FROCCurve,
    Matches,
    froc_curve,
    match_detections,
    mean_sensitivity,
    operating_ranks,
    sensitivity_at,
    threshold_at,
)
from mmpluld.evaluation.functional.luna16 import (
    LUNA16_LEVELS,
    LUNA16_MAX_MARKS,
    interpolated_sensitivity,
    match_marks,
    order_statistics,
    resample_interpolated,
)
from mmpluld.evaluation.functional.protocols import (
    CENTRE_3D,
    DEEPLESION_2D,
    LENS_3D,
    PROTOCOLS,
    FROCProtocol,
    get_protocol,
)
from mmpluld.evaluation.functional.ranking import roc_auc
from mmpluld.evaluation.functional.recist_errors import RECISTErrors, recist_errors, select_found

__all__ = [
    "CENTRE_3D",
    "DEEPLESION_2D",
    "LENS_3D",
    "LUNA16_LEVELS",
    "LUNA16_MAX_MARKS",
    "PROTOCOLS",
    "FROCCurve",
    "FROCProtocol",
    "Interval",
    "Matches",
    "RECISTErrors",
    "bootstrap_difference",
    "bootstrap_ratio",
    "bootstrap_sensitivity",
    "froc_curve",
    "get_protocol",
    "interpolated_sensitivity",
    "match_detections",
    "match_marks",
    "mean_sensitivity",
    "operating_ranks",
    "order_statistics",
    "recist_errors",
    "select_found",
    "resample_interpolated",
    "resample_sensitivity",
    "roc_auc",
    "sensitivity_at",
    "threshold_at",
]
