"""Reading boxes, scores and masks off a detector's data samples: any mapping of tensors, box structures or arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmpluld.typing import FloatArray

__all__ = ["instance_boxes", "predicted_boxes", "to_array"]


def to_array(values: Any) -> FloatArray:
    """A tensor, box structure or array as float64 on the CPU."""
    values = getattr(values, "tensor", values)
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()  # NumPy has no bfloat16, and not every device float64
    return np.asarray(values, dtype=np.float64)


def instance_boxes(instances: Mapping[str, Any]) -> FloatArray:
    """(N, 4) boxes of an instance container that may be empty."""
    return to_array(instances["bboxes"]).reshape(-1, 4) if "bboxes" in instances else np.zeros((0, 4))


def predicted_boxes(sample: Any) -> FloatArray:
    """(N, 4) predicted boxes of a data sample in pixels of the slice, also where ``CropBody`` cut the image."""
    offset: FloatArray = np.tile(sample.get("crop_offset", (0.0, 0.0)), 2)
    return instance_boxes(sample.get("pred_instances")) + offset
