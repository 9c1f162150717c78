"""Dice loss of a mask head."""

from __future__ import annotations

import torch
from mmdet.models.losses import DiceLoss
from torch import Tensor

from mmpluld.registry import MODELS

__all__ = ["MaskDiceLoss"]


@MODELS.register_module()
class MaskDiceLoss(DiceLoss):
    """Soft Dice between predicted masks and (possibly soft) targets, as mmdet's mask heads call their loss.

    With s = sigmoid(logits) and target t, per RoI

        d = (2 * sum(s * t) + eps) / (sum(s) + sum(t) + eps),

    in first powers; the loss is 1 - d, averaged over the RoIs that have a target. A RoI whose target is empty belongs
    to a lesion without mask and is left out, so that images with and without masks train together. Without any RoI
    the loss is 0 and keeps its graph.

    Args:
        loss_weight: Factor on the loss.
        eps: Keeps the quotient finite.

    Source: mask loss of the published A3D and AlignShift code (eps 0.01), without its NaN for zero RoIs.
    """

    def __init__(self, loss_weight: float = 1.0, eps: float = 0.01) -> None:
        super().__init__(use_sigmoid=True, activate=True, naive_dice=True, loss_weight=loss_weight, eps=eps)

    def forward(self, pred: Tensor, target: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss, a scalar in float32.

        Args:
            pred: (N, C, h, w) logits, a channel per class.
            target: (N, h, w) in [0, 1].
            labels: (N,) class of each RoI, the channel to compare.
        """
        own = pred[torch.arange(len(pred), device=pred.device), labels].float()
        known = (target.flatten(1) > 0).any(dim=1).float()
        loss: Tensor = super().forward(own, target, weight=known, avg_factor=known.sum().clamp(min=1))
        return loss
