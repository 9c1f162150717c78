"""3D patches around detections: lesion or false positive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmpluld.models.classifiers.roi_pool3d import roi_align3d
from mmpluld.registry import MODELS

__all__ = ["PatchClassifier"]


@MODELS.register_module()
class PatchClassifier(BaseModel):
    """Says of a patch around a 3D box whether the box is a lesion (LENS, sec. IV-D, Fig. 2).

    The box is pooled from the maps of blocks 1 to 3 of the backbone, the whole patch from that of block 4; what is
    pooled of each goes through a layer of its own, and all together give one logit. The paper leaves open the size
    that is pooled to, the layers and the constants of the focal loss.

    Args:
        backbone: Config of a backbone with four maps, ``out_channels`` and ``strides``.
        roi_size: Cells (z, y, x) that a box is pooled to.
        sampling_ratio: Points of a cell along each axis.
        fc_channels: Outputs of the layer behind each map.
        loss_cls: Config of the loss, of mmdet's sigmoid losses.
        data_preprocessor, init_cfg: As for mmengine's models.

    Shape:
        ``inputs`` (B, 1, D, H, W), ``boxes`` (B, 6) x1, y1, z1, x2, y2, z2 in voxel edges of the patch; in mode
        ``tensor`` the logits are (B,).
    """

    def __init__(
        self,
        backbone: dict,
        roi_size: Sequence[int] = (2, 3, 3),
        sampling_ratio: int = 2,
        fc_channels: int = 128,
        loss_cls: dict = {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.5},  # noqa: B006  read only
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.roi_size = tuple(roi_size)
        self.sampling_ratio = sampling_ratio
        cells = self.roi_size[0] * self.roi_size[1] * self.roi_size[2]
        self.fcs = nn.ModuleList(nn.Linear(count * cells, fc_channels) for count in self.backbone.out_channels)
        self.logit = nn.Linear(fc_channels * len(self.fcs), 1)
        self.loss_cls = MODELS.build(loss_cls)

    def forward(
        self, inputs: Tensor, boxes: Tensor, labels: Tensor | None = None, mode: str = "tensor"
    ) -> Tensor | dict[str, Tensor] | list[dict[str, Any]]:
        """Logits (``tensor``), the loss, or of each patch ``score`` and, where it is known, ``label`` (``predict``).

        Args:
            inputs, boxes: See the class.
            labels: (B,) 1 for a lesion, 0 for a false positive.
            mode: ``tensor``, ``loss`` or ``predict``.
        """
        logits = self._logits(inputs, boxes)
        if mode == "loss":
            assert labels is not None
            # For mmdet, class 0 is the lesion and 1, the number of classes, the background.
            return {"loss_cls": self.loss_cls(logits[:, None], 1 - labels.long())}
        if mode == "predict":
            known = [None] * len(logits) if labels is None else labels.tolist()
            scores = logits.float().sigmoid().tolist()
            return [{"score": score, "label": label} for score, label in zip(scores, known, strict=True)]
        return logits

    def _logits(self, inputs: Tensor, boxes: Tensor) -> Tensor:
        maps = self.backbone(inputs)
        pooled = []
        for index, (features, stride) in enumerate(zip(maps, self.backbone.strides, strict=True)):
            if index < len(maps) - 1:
                z, y, x = stride
                rois = boxes.float() / boxes.new_tensor((x, y, z, x, y, z), dtype=torch.float32)
            else:
                depth, height, width = features.shape[2:]
                rois = boxes.new_tensor((0, 0, 0, width, height, depth), dtype=torch.float32).expand(len(boxes), 6)
            pooled.append(roi_align3d(features, rois, self.roi_size, self.sampling_ratio).flatten(1))
        layers = [fc(values).relu() for fc, values in zip(self.fcs, pooled, strict=True)]
        return self.logit(torch.cat(layers, 1)).squeeze(1)
