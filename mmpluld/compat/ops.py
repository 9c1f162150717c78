"""Makes mmdet importable, and its detectors usable, where mmcv has no compiled operators (mmcv-lite)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mmpluld.compat import torch_ops, torchvision_ops

__all__ = ["install_ops", "ops_in_use"]

EXTENSION = "mmcv._ext"
AVERAGE = 1  # mmcv's number for pool_mode="avg", the one that torchvision knows


@torch.no_grad()
def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    if offset == 0 and torchvision_ops.usable(boxes.device.type):
        return torchvision_ops.nms(boxes, scores, iou_threshold)
    return torch_ops.nms(boxes, scores, iou_threshold, offset)


@torch.no_grad()
def _roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    if pool_mode == AVERAGE and torchvision_ops.usable(input.device.type):
        torchvision_ops.roi_align_forward(input, rois, output, spatial_scale, sampling_ratio, aligned)
        return
    size = aligned_height, aligned_width
    torch_ops.roi_align_forward(
        input, rois, output, argmax_y, argmax_x, *size, spatial_scale, sampling_ratio, pool_mode, aligned
    )


@torch.no_grad()
def _roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    # On a GPU torchvision adds up in no fixed order; ours always does.
    repeatable = grad_output.device.type == "cpu" or not torch.are_deterministic_algorithms_enabled()
    if pool_mode == AVERAGE and repeatable and torchvision_ops.usable(grad_output.device.type):
        torchvision_ops.roi_align_backward(grad_output, rois, grad_input, spatial_scale, sampling_ratio, aligned)
        return
    size = aligned_height, aligned_width
    torch_ops.roi_align_backward(
        grad_output, rois, argmax_y, argmax_x, grad_input, *size, spatial_scale, sampling_ratio, pool_mode, aligned
    )


# By the names of mmcv's compiled module; torchvision's operator where it serves, else plain torch.
_STAND_INS: dict[str, Callable[..., Any]] = {
    "nms": _nms,
    "softnms": torch_ops.softnms,
    "nms_match": torch_ops.nms_match,
    "roi_align_forward": _roi_align_forward,
    "roi_align_backward": _roi_align_backward,
    "sigmoid_focal_loss_forward": torch_ops.sigmoid_focal_loss_forward,
    "sigmoid_focal_loss_backward": torch_ops.sigmoid_focal_loss_backward,
}


class _StandInExtension(ModuleType):
    """Stands in for mmcv's compiled module; an operator it lacks fails when called, not when imported."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _STAND_INS:
            return _STAND_INS[name]

        def missing(*_args: Any, **_kwargs: Any) -> Any:
            raise RuntimeError(
                f"mmcv operator '{name}' needs compiled mmcv and has no stand-in here; "
                "install mmcv 2.1.0 instead of mmcv-lite, or use a model without this operator"
            )

        return missing


def install_ops() -> None:
    """Supply mmcv's compiled operators where those are absent.

    Call it before ``mmdet.models`` or ``mmcv.ops`` is imported; further calls change nothing. Compiled
    operators are used wherever they load. Supplied: NMS and RoIAlign (average), by torchvision where it is
    usable and by plain torch elsewhere; soft NMS, NMS with matches and sigmoid focal loss in plain torch.
    """
    if EXTENSION in sys.modules:
        return
    try:
        importlib.import_module(EXTENSION)
    except ImportError:  # absent, or built for another torch
        stand_in = _StandInExtension(EXTENSION, "Stand-ins for mmcv's compiled operators.")
        stand_in.__spec__ = ModuleSpec(EXTENSION, loader=None)
        sys.modules[EXTENSION] = stand_in


def ops_in_use(device_type: str = "cpu") -> str:
    """Return ``'compiled'``, ``'torchvision'`` or ``'pure torch'``: whose NMS and RoIAlign run on a kind of device."""
    install_ops()
    if not isinstance(sys.modules[EXTENSION], _StandInExtension):
        return "compiled"
    return "torchvision" if torchvision_ops.usable(device_type) else "pure torch"
