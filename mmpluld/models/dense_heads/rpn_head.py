"""The region proposal head, for classification losses that wrap another loss."""

from __future__ import annotations

import copy
from typing import Any

from mmdet.models.dense_heads import RPNHead as StockRPNHead

from mmpluld.registry import MODELS

__all__ = ["RPNHead", "expose_use_sigmoid"]


def expose_use_sigmoid(loss_cls: dict[str, Any]) -> dict[str, Any]:
    """Return the loss config with the wrapped loss's ``use_sigmoid`` beside the wrapper's ``type``.

    mmdet's heads look for the flag there to decide whether the background has a channel of its own. Configs
    of plain losses, and those that state the flag, come back unchanged.
    """
    wrapped = loss_cls.get("loss")
    if not isinstance(wrapped, dict) or "use_sigmoid" in loss_cls:
        return loss_cls
    exposed = copy.copy(loss_cls)
    exposed["use_sigmoid"] = wrapped.get("use_sigmoid", False)
    return exposed


@MODELS.register_module()
class RPNHead(StockRPNHead):
    """mmdet's RPN head; ``loss_cls`` may be a wrapper such as ``PartialLabelLoss`` around a sigmoid loss.

    Args:
        in_channels: Channels of the feature map.
        loss_cls: Config of the classification loss; foreground is label 0, background label 1.
        **kwargs: As for mmdet's ``RPNHead``.
    """

    def __init__(
        self,
        in_channels: int,
        loss_cls: dict[str, Any] = dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),  # noqa: B006
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels=in_channels, loss_cls=expose_use_sigmoid(loss_cls), **kwargs)
