"""What losses are divided by in training of several processes."""

from __future__ import annotations

import torch
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor

__all__ = ["count_per_process"]


def count_per_process(count: Tensor | float, like: Tensor) -> Tensor:
    """Mean of a count over the processes, at least 1 over their number.

    The gradients of the processes are averaged. With losses that are sums over a process' samples divided by this, the
    average is the sum over all samples divided by their count, at least 1, as one process with all samples has it.

    Args:
        count: What this process counts, e.g. its positives; 0 or more.
        like: Tensor on the device to exchange counts on.

    Returns:
        A float32 scalar above 0, the same in all processes.
    """
    total = reduce_mean(torch.as_tensor(count, dtype=torch.float32, device=like.device))
    return total.clamp(min=1 / get_world_size())
