"""Region proposal network with a loss that does not depend on the number of processes."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import RPNHead
from torch import Tensor

from mmpluld.models.normalizers import count_per_process
from mmpluld.registry import MODELS

__all__ = ["SharedCountRPNHead"]


@MODELS.register_module()
class SharedCountRPNHead(RPNHead):
    """mmdet's ``RPNHead`` with losses divided by the sampled anchors per process instead of by the own ones.

    These differ where a process has more images without lesions than another: the sampler counts a positive for each.

    Args:
        **kwargs: As for ``RPNHead``.
    """

    def get_targets(self, anchor_list: list[list[Tensor]], *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As in ``RPNHead``: labels, their weights, deltas, their weights, and what to divide the losses by."""
        labels, weights, deltas, delta_weights, count, *others = super().get_targets(anchor_list, *args, **kwargs)
        return labels, weights, deltas, delta_weights, count_per_process(count, anchor_list[0][0]), *others
