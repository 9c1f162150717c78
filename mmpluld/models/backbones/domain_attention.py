"""Attention over channels whose adapters specialise in domains of their own finding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmpluld.errors import InputError

__all__ = ["DomainAttention"]


class DomainAttention(nn.Module):
    """A bank of squeeze-and-excitation adapters, mixed by how much an image looks like each one's domain.

    Every adapter turns the image's channel means into one value per channel; a softmax over the adapters, from the same
    means, weighs them; the sigmoid of their mixture scales the channels. No label of a dataset is needed.

    Args:
        channels: Channels C.
        num_adapters: Adapters.
        reduction: The hidden layer of an adapter is this much narrower than ``channels``.

    Shape:
        Input and output (B, C, D, H, W); each of the D images is treated alone.

    Raises:
        InputError: If there is no adapter, or no hidden channel is left.

    Source: "Towards Universal Object Detection by Domain Attention", 2019, Sec. 4, as in row "proposed + domain
    adaptation" of Table V of LENS, 2020.
    """

    def __init__(self, channels: int, num_adapters: int = 4, reduction: int = 16) -> None:
        super().__init__()
        width = channels // reduction if reduction >= 1 else 0
        if num_adapters < 1 or width < 1:
            raise InputError(
                f"domain_attention: num_adapters is {num_adapters}, reduction {reduction} for {channels} channels; "
                f"allowed are 1 adapter or more and a reduction from 1 to {channels}"
            )
        self.adapters = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, width), nn.ReLU(inplace=True), nn.Linear(width, channels))
            for _ in range(num_adapters)
        )
        self.assignment = nn.Linear(channels, num_adapters)

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels."""
        means = x.mean((-2, -1), dtype=self.assignment.weight.dtype).transpose(1, 2)  # (B, D, C)
        bank = torch.stack([adapter(means) for adapter in self.adapters], -1)  # (B, D, C, N)
        weights = self.assignment(means).softmax(-1).to(bank.dtype)
        scale = (bank @ weights.unsqueeze(-1)).squeeze(-1).sigmoid()
        return x * scale.transpose(1, 2)[..., None, None].to(x.dtype)
