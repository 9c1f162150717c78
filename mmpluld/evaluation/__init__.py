"""FROC evaluation of detections; ``metrics`` wraps it for MMEngine and is imported only there."""

from mmpluld.evaluation.evaluate import compare_files, evaluate_files, format_table

__all__ = ["compare_files", "evaluate_files", "format_table"]
