"""Boxes keep the precision of float32 where autocast computes a network in half.

bfloat16 counts in steps of 2 px from 256 px on, float16 overflows at areas beyond 65,504 px²; mmdet makes anchors and
regions of interest in the type of the feature maps, and mmcv's suppression ends with an error where many boxes have
scores of half precision. Losses of dense heads, too, get float32: that of CenterNet takes the logarithm of a
probability, which in float16 is 0 where the head is sure.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["keep_boxes_exact", "widened"]


def widened(value: Any) -> Any:
    """Tensors of less than float32 as float32, also in (nested) lists and tuples; all else as it is."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    return type(value)(map(widened, value)) if type(value) in (list, tuple) else value


def keep_boxes_exact(model: nn.Module) -> None:
    """Let the dense heads of a model give, and its RoI extractors read, float32; further calls change nothing.

    Hooks of this model do it, so mmdet's classes stay what they are.
    """
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor

    for module in model.modules():
        if isinstance(module, BaseDenseHead) and _give not in module._forward_hooks.values():
            module.register_forward_hook(_give)
        if isinstance(module, BaseRoIExtractor) and _read not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_read, with_kwargs=True)


def _give(_: nn.Module, __: Any, outputs: Any) -> Any:
    return widened(outputs)


def _read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return widened(args), {name: widened(value) for name, value in kwargs.items()}
