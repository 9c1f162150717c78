"""Losses of lesion tags: many yes-or-no questions, few of them answered yes, and not every "no" to be trusted."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

__all__ = ["BalancedTagLoss", "RelationalHardTagLoss"]


@MODELS.register_module()
class BalancedTagLoss(nn.Module):
    """Binary cross entropy in which the lesions with a tag weigh as much as those without it.

    With N tagged lesions in training, of which n have tag c, a positive weighs N / (2 n), a negative N / (2 (N - n)),
    neither more than ``max_weight``; the loss is the mean over the tags that are known. Before
    :meth:`set_counts` all weights are 1.

    Args:
        loss_weight: Factor on the loss.
        max_weight: Largest weight.

    Source: MULAN, 2019; constants from its code.
    """

    def __init__(self, loss_weight: float = 1.0, max_weight: float = 300.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.max_weight = max_weight
        # Known anew at the start of each training, so not part of checkpoints.
        self.pos_weight: Tensor
        self.neg_weight: Tensor
        self.register_buffer("pos_weight", torch.ones(1), persistent=False)
        self.register_buffer("neg_weight", torch.ones(1), persistent=False)

    def set_counts(self, counts: Tensor, num_lesions: int) -> None:
        """Take the weights from the training set: ``counts`` (T,) lesions with each tag of ``num_lesions`` tagged."""
        counts = counts.to(self.pos_weight)
        self.pos_weight = (num_lesions / (2 * counts)).clamp(max=self.max_weight)
        self.neg_weight = (num_lesions / (2 * (num_lesions - counts))).clamp(max=self.max_weight)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of ``logits`` (R, T) with ``targets`` (R, T): 1, 0, or NaN where an answer is unknown."""
        known = ~targets.isnan()
        rows = known.any(dim=1)
        if not rows.any():
            return logits.sum() * 0
        own, truth, known = logits[rows].float(), targets[rows].float().nan_to_num(), known[rows]
        weight = (truth * self.pos_weight + (1 - truth) * self.neg_weight) * known
        mean = F.binary_cross_entropy_with_logits(own, truth, weight)
        return self.loss_weight * mean * (known.numel() / known.sum())


@MODELS.register_module()
class RelationalHardTagLoss(nn.Module):
    """Cross entropy of (region, tag) pairs drawn by how wrong they are, among the answers that can be trusted.

    Reports leave tags out, so a tag not mentioned may still be true. Trusted are the tags mentioned, and the absence
    of those that one mentioned excludes. Pairs are drawn with replacement with probability in proportion to
    |p - t|^power, and the loss is their mean cross entropy. Before :meth:`set_exclusive` no tag excludes another.

    Args:
        num_pairs: Pairs drawn for each batch.
        power: Exponent of the error.
        loss_weight: Factor on the loss.

    Source: "relational hard example mining" of LesaNet, 2019, as in MULAN, 2019; constants from MULAN's code.
    """

    def __init__(self, num_pairs: int = 10000, power: float = 2.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if num_pairs < 1:
            raise InputError(f"RelationalHardTagLoss: num_pairs is {num_pairs}; needed is at least 1")
        self.num_pairs = num_pairs
        self.power = power
        self.loss_weight = loss_weight
        self.exclusive: Tensor
        self.register_buffer("exclusive", torch.zeros(0, 0), persistent=False)

    def set_exclusive(self, exclusive: Tensor) -> None:
        """Tell which tags exclude each other: ``exclusive`` (T, T), bool, symmetric."""
        self.exclusive = exclusive.to(self.exclusive)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of ``logits`` (R, T) with ``targets`` (R, T): 1, 0, or NaN where an answer is unknown."""
        truth = targets.float().nan_to_num()
        trusted = truth > 0
        if self.exclusive.numel():
            trusted = trusted | (truth @ self.exclusive > 0)
        trusted = trusted & ~targets.isnan()
        with torch.no_grad():
            chances = (logits.float().sigmoid() - truth).abs().pow(self.power) * trusted
        if not chances.sum() > 0:
            return logits.sum() * 0
        drawn = torch.multinomial(chances.flatten(), self.num_pairs, replacement=True)
        loss = F.binary_cross_entropy_with_logits(logits.float().flatten()[drawn], truth.flatten()[drawn])
        return self.loss_weight * loss
