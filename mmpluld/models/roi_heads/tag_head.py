"""MULAN's tag head, and the layer that lets tags and detection score correct each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

__all__ = ["RefineHead", "TagHead"]

UNKNOWN = 0.5
"""Stands for a position in the body, sex or age that is not known."""

_WIDTHS = {"box": 4, "z": 1, "demographics": 2}


@MODELS.register_module()
class TagHead(BaseModule):
    """Two fully connected layers and a logit for each tag.

    Args:
        num_tags: T.
        in_channels: Channels of the region's features.
        roi_feat_size: Their height and width.
        fc_out_channels: Width of the two layers.
        loss_tag: Loss over all tags of a tagged lesion.
        loss_hard: Loss over the hard ones among the trusted.
        init_cfg: MMEngine initialisation; without one the layers start uniform (Kaiming, a = 1), the output normal
            with 0.01, biases 0.

    Source: MULAN, 2019, Sec. 2; widths and initialisation from its code.
    """

    def __init__(
        self,
        num_tags: int = 171,
        in_channels: int = 512,
        roi_feat_size: int = 7,
        fc_out_channels: int = 1024,
        loss_tag: dict = {"type": "BalancedTagLoss"},  # noqa: B006  read only
        loss_hard: dict = {"type": "RelationalHardTagLoss"},  # noqa: B006  read only
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_tags = num_tags
        widths = (in_channels * roi_feat_size**2, fc_out_channels, fc_out_channels)
        self.fcs = nn.ModuleList(nn.Linear(width, fc_out_channels) for width in widths[:2])
        self.fc_tag = nn.Linear(widths[2], num_tags)
        for layer in self.fcs:
            nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.normal_(self.fc_tag.weight, std=0.01)
        for layer in (*self.fcs, self.fc_tag):
            nn.init.zeros_(layer.bias)
        self.loss_tag = MODELS.build(loss_tag)
        self.loss_hard = MODELS.build(loss_hard)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (R, T) from features (R, C, h, w)."""
        x = x.flatten(1)
        for layer in self.fcs:
            x = F.relu(layer(x))
        logits: Tensor = self.fc_tag(x)
        return logits

    def loss(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Both losses of ``logits`` (R, T) with ``targets`` (R, T), NaN where a region has no lesion with tags."""
        return {"loss_tag": self.loss_tag(logits, targets), "loss_tag_hard": self.loss_hard(logits, targets)}


@MODELS.register_module()
class RefineHead(BaseModule):
    """A linear layer from the logits of class and tags, and what else is known, to better ones; first the identity.

    Args:
        num_tags: T.
        num_classes: Classes without background.
        features: Further inputs, some of ``box`` (centre x and y, width, height, relative to the image), ``z``
            (position of the slice in the body) and ``demographics`` (sex, 1 for male, and age / 100).
        loss_cls: Loss of the classes.
        loss_tag: Loss of the tags.
        init_cfg: MMEngine initialisation.

    Raises:
        InputError: If a feature is unknown.

    Source: MULAN, 2019, "score refinement layer"; details from its code.
    """

    def __init__(
        self,
        num_tags: int = 171,
        num_classes: int = 1,
        features: Sequence[str] = (),
        loss_cls: dict = {"type": "CrossEntropyLoss", "use_sigmoid": False},  # noqa: B006  read only
        loss_tag: dict = {"type": "BalancedTagLoss"},  # noqa: B006  read only
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        for name in features:
            if name not in _WIDTHS:
                raise InputError(f"RefineHead: unknown feature {name!r}; allowed are {', '.join(_WIDTHS)}")
        # In the order of the published layer, whatever the order of the setting.
        self.features = tuple(name for name in _WIDTHS if name in features)
        outputs = num_classes + 1
        inputs = outputs + num_tags + sum(_WIDTHS[name] for name in self.features)
        self.fc_cls = nn.Linear(inputs, outputs)
        self.fc_tag = nn.Linear(inputs, num_tags)
        for layer in (self.fc_cls, self.fc_tag):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.eye_(self.fc_cls.weight[:, :outputs])
        nn.init.eye_(self.fc_tag.weight[:, outputs : outputs + num_tags])
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_tag = MODELS.build(loss_tag)

    def forward(
        self, cls_logits: Tensor, tag_logits: Tensor, boxes: Sequence[Tensor], metas: Sequence[dict[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        """Refine the logits of all regions of a batch, in the order of their images.

        Args:
            cls_logits: (R, C + 1), background last.
            tag_logits: (R, T).
            boxes: For each image (R_i, 4) in input pixels.
            metas: For each image its ``img_shape`` and, for the features ``z`` and ``demographics``, ``body_context``:
                (z, sex, age / 100), NaN where unknown.

        Returns:
            Logits of the same shapes.
        """
        parts = [cls_logits, tag_logits]
        if self.features:
            extra = [self._extra(own, meta) for own, meta in zip(boxes, metas, strict=True)]
            parts.append(torch.cat(extra).to(cls_logits))
        inputs = torch.cat(parts, dim=1)
        return self.fc_cls(inputs), self.fc_tag(inputs)

    def _extra(self, boxes: Tensor, meta: dict[str, Any]) -> Tensor:
        """(R, E) further inputs of one image."""
        height, width = meta["img_shape"][:2]
        size = boxes.new_tensor([width, height])
        context = boxes.new_tensor(meta.get("body_context", (float("nan"),) * 3)).nan_to_num(nan=UNKNOWN)
        context = context.expand(len(boxes), 3)
        found = {
            "box": torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2 / size, (boxes[:, 2:] - boxes[:, :2]) / size], dim=1),
            "z": context[:, :1],
            "demographics": context[:, 1:],
        }
        return torch.cat([found[name] for name in self.features], dim=1)

    def loss(self, cls_logits: Tensor, tag_logits: Tensor, labels: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Losses of refined logits with ``labels`` (R,), background last, and tag ``targets`` (R, T)."""
        return {
            # A mean, which does not exist without a region.
            "loss_refined_cls": self.loss_cls(cls_logits, labels) if len(labels) else cls_logits.sum() * 0,
            "loss_refined_tag": self.loss_tag(tag_logits, targets),
        }
