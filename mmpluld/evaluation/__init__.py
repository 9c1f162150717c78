"""FROC evaluation of detections; ``metrics`` wraps it for MMEngine and is imported only there."""

from mmpluld.evaluation.evaluate import compare_files, evaluate_files
from mmpluld.evaluation.luna16 import evaluate_luna16
from mmpluld.evaluation.report import format_table

__all__ = ["compare_files", "evaluate_files", "evaluate_luna16", "format_table"]
