"""NMS and RoIAlign of torchvision with the calling convention of ``mmcv._ext``; compiled, hence fast on a GPU.

torchvision is optional, and the one that is installed may not belong to the torch beside it; ask :func:`usable` first.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

__all__ = ["nms", "roi_align_backward", "roi_align_forward", "usable"]


@cache
def usable(device_type: str) -> bool:
    """Whether torchvision is installed, imports, and has its operators for a kind of device ("cpu", "cuda")."""
    try:
        import torchvision  # noqa: F401  registers the operators

        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device_type)
        torch.ops.torchvision.nms(box, box[:, 0], 0.5)
    except (ImportError, RuntimeError, AttributeError):  # absent, built for another torch, or without this device
        return False
    return True


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices (int64) of the boxes (N, 4) that survive suppression at IoU > ``iou_threshold``, best score first."""
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    # Compared in double there; rounded first, a box whose IoU is the threshold itself survives as it does elsewhere.
    threshold = torch.tensor(iou_threshold, dtype=dtype).item()
    return torch.ops.torchvision.nms(boxes.to(dtype), scores.to(dtype), threshold)


def _finite(rois: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The regions, zeros in place of those that are nowhere (NaN) and would be read from there; and which those are."""
    lost = ~rois.isfinite().all(dim=1).view(-1, 1, 1, 1)
    return torch.where(lost.view(-1, 1), 0, rois).to(dtype), lost


def roi_align_forward(
    input: Tensor, rois: Tensor, output: Tensor, scale: float, sampling_ratio: int, aligned: bool
) -> None:
    """Average RoIAlign of ``input`` (N, C, H, W) at ``rois`` (R, 5) into ``output`` (R, C, h, w)."""
    dtype = torch.promote_types(torch.promote_types(input.dtype, rois.dtype), torch.float32)
    rois, lost = _finite(rois, dtype)
    pooled = torch.ops.torchvision.roi_align(input.to(dtype), rois, scale, *output.shape[2:], sampling_ratio, aligned)
    output.copy_(pooled.masked_fill(lost, 0))


def roi_align_backward(
    grad_output: Tensor, rois: Tensor, grad_input: Tensor, scale: float, sampling_ratio: int, aligned: bool
) -> None:
    """Add the gradient of average RoIAlign with respect to its input to ``grad_input`` (N, C, H, W)."""
    dtype = torch.promote_types(torch.promote_types(grad_output.dtype, rois.dtype), torch.float32)
    rois, lost = _finite(rois, dtype)
    grad_output = grad_output.to(dtype).masked_fill(lost, 0)
    grad_input += torch.ops.torchvision._roi_align_backward(
        grad_output, rois, scale, *grad_output.shape[2:], *grad_input.shape, sampling_ratio, aligned
    ).to(grad_input.dtype)
