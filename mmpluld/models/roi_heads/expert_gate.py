"""How far to trust each expert on a region."""

from __future__ import annotations

import torch
from mmdet.utils import reduce_mean
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

__all__ = ["ExpertGate"]


@MODELS.register_module()
class ExpertGate(nn.Module):
    """Probability that a lesion in a region would come from each dataset: a linear softmax classifier of its features.

    It learns from the lesions' regions of each training batch by a step of gradient descent of its own, in the forward
    pass, as a batch norm updates its statistics. Weights are buffers, not parameters: no loss, optimizer, gradient
    clipping or loss scaling of the detector knows of it, so the detector trains to the same bits with and without.
    Features are scaled to length 1, for which the cross entropy of a linear classifier is smooth enough that a rate up
    to 4 cannot diverge. Steps of a dataset count the less the more often it was seen, so that all weigh the same.

    Args:
        in_channels: Features of a region; ``ExpertRoIHead`` sets it.
        num_experts: Experts; ``ExpertRoIHead`` sets it.
        lr: Learning rate, in (0, 4].

    Raises:
        InputError: If the rate is out of range.

    Not in the paper, which names the experts' uncalibrated scores as a limitation (Sec. VII).
    """

    def __init__(self, in_channels: int, num_experts: int, lr: float = 1.0) -> None:
        super().__init__()
        if not 0 < lr <= 4:
            raise InputError(f"ExpertGate: lr is {lr}; allowed is above 0 up to 4, the default is 1")
        self.lr = lr
        self.register_buffer("weight", torch.zeros(num_experts, in_channels))
        self.register_buffer("bias", torch.zeros(num_experts))
        self.register_buffer("seen", torch.ones(num_experts))

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities (R, E) for ``features`` (R, C)."""
        with torch.autocast(features.device.type, enabled=False):
            return self._logits(F.normalize(features.detach().float())).softmax(1)

    @torch.no_grad()
    def learn(self, features: Tensor, expert: int) -> Tensor:
        """Take a step for lesions of one dataset.

        Args:
            features: Of the lesions' regions (P, C), P may be 0; means are over the regions of all processes.
            expert: Number of the dataset; the same in all processes.

        Returns:
            Mean cross entropy before the step; 0 without regions.
        """
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(features.float())
            log_p = self._logits(unit).log_softmax(1)
            error = log_p.exp()
            error[:, expert] -= 1
            # Sums and their count in one tensor: one exchange between the processes.
            sums = torch.cat([(error.T @ unit).flatten(), error.sum(0), -log_p[:, expert].sum()[None]])
        *sums, count = reduce_mean(torch.cat([sums, sums.new_tensor([float(len(unit))])])).split(
            [self.weight.numel(), len(self.bias), 1, 1]
        )
        if count == 0:
            return sums[2][0]
        slope, offset, loss = (total / count for total in sums)
        rate = self.lr * self.seen.min() / self.seen[expert]
        self.weight -= rate * slope.view_as(self.weight)
        self.bias -= rate * offset
        self.seen[expert] += 1
        return loss[0]

    def _logits(self, unit: Tensor) -> Tensor:
        return F.linear(unit, self.weight, self.bias)
