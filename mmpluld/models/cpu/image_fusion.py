"""The 1x1 convolutions of ``ImageTopDownFusion`` for inference, without copies of the maps that stacks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["can_project_images", "project_images"]


def can_project_images(neck: Any, x: Tensor | Sequence[Tensor]) -> bool:
    """Whether ``project_images`` serves: no gradients, at least one stack, maps in the type of the computation."""
    first = x if isinstance(x, Tensor) else x[0]
    if torch.is_autocast_enabled("cpu") and first.dtype != torch.get_autocast_dtype("cpu"):
        return False
    return not torch.is_grad_enabled() and len(first) > 0


def project_images(neck: Any, x: Tensor | Sequence[Tensor], weight: Tensor) -> Tensor:
    """1x1 convolution (B, O, H, W) of the maps of all images with ``weight`` (O, D, C).

    One product for each image, which neither copies maps that stacks share nor differs from what they give.

    Args:
        neck: Its ``num_images`` is D.
        x: (B, C * D, H, W), channel before image, or the D images' (B, C, H, W).
        weight: For each image.
    """
    maps = x.unflatten(1, (-1, neck.num_images)).unbind(2) if isinstance(x, Tensor) else x
    weights = weight.to(maps[0].dtype).unbind(1)
    projected = []
    for images in zip(*maps, strict=True):
        out = weights[0] @ images[0].flatten(1)
        for image_weight, image in zip(weights[1:], images[1:], strict=True):
            out.addmm_(image_weight, image.flatten(1))
        projected.append(out.unflatten(1, images[0].shape[1:]))
    return torch.stack(projected) if len(projected) > 1 else projected[0].unsqueeze(0)
