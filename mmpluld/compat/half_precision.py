"""Boxes keep the precision of float32 where autocast computes a network in half.

bfloat16 counts in steps of 2 px from 256 px on, float16 overflows at areas beyond 65,504 px²; mmdet takes anchors and
regions of interest in the type of the feature maps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

__all__ = ["keep_boxes_exact", "widened"]


def widened(value: Any) -> Any:
    """Tensors of less than float32 as float32, also in (nested) lists and tuples; all else as it is."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    return type(value)(map(widened, value)) if type(value) in (list, tuple) else value


def keep_boxes_exact() -> None:
    """Let mmdet's dense heads decode, and its RoI extractors read, in float32; further calls change nothing."""
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    for owner, name in ((BaseDenseHead, "predict_by_feat"), (SingleRoIExtractor, "forward")):
        method = getattr(owner, name)
        if not hasattr(method, "__wrapped__"):
            setattr(owner, name, _in_float32(method))


def _in_float32(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def exact(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *widened(args), **{key: widened(value) for key, value in kwargs.items()})

    return exact
