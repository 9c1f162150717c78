"""A backbone that learns which organ is where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.models.data_preprocessors import SliceStacks
from mmpluld.phantom import Organ
from mmpluld.registry import MODELS

__all__ = ["OrganSegmentor"]

_UNKNOWN_CLASS = 255  # where transforms move the map's border inwards


@MODELS.register_module()
class OrganSegmentor(BaseModel):
    """A detector's backbone with a light head that says which organ each pixel of the key slice belongs to.

    It is there for its backbone, which then starts the training of detectors (``TrunkWeights``), as a classifier of
    ImageNet's pictures does elsewhere. So the head is thin: 1x1 convolutions bring all maps of the backbone to
    ``channels``, their sum at the finest map's size is classified by one more, and enlarged to the image.

    Args:
        backbone: Config of the backbone; its finest map has stride 4.
        in_channels: Channels of its maps, finest first.
        channels: Channels of the head.
        num_classes: Classes.
        data_preprocessor, init_cfg: As for mmengine's models.

    Shape:
        ``forward`` in mode ``tensor``: logits (B, num_classes, H / 4, W / 4).
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: Sequence[int],
        channels: int = 32,
        num_classes: int = len(Organ),
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.lateral = nn.ModuleList(nn.Conv2d(count, channels, 1) for count in in_channels)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    def forward(
        self, inputs: Tensor | SliceStacks, data_samples: list[DetDataSample] | None = None, mode: str = "tensor"
    ) -> Any:
        """Logits (``tensor``), the cross entropy (``loss``), or the samples with ``pred_sem_seg`` (``predict``).

        Pixels of class 255 are unknown and left out of the loss.
        """
        logits = self._logits(self.backbone(inputs))
        if mode == "tensor":
            return logits
        logits = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        if mode == "loss":
            truth = torch.cat([sample.gt_sem_seg.sem_seg for sample in data_samples or ()]).long()
            logits = logits[..., : truth.shape[-2], : truth.shape[-1]]  # the image is padded, the map is not
            return {"loss_organ": F.cross_entropy(logits, truth, ignore_index=_UNKNOWN_CLASS)}
        for sample, found in zip(data_samples or (), logits.argmax(1, keepdim=True), strict=True):
            height, width = sample.img_shape
            sample.pred_sem_seg = PixelData(sem_seg=found[:, :height, :width])
        return data_samples

    def _logits(self, maps: Sequence[Tensor]) -> Tensor:
        finest, *others = [convolve(x) for convolve, x in zip(self.lateral, maps, strict=True)]
        for x in others:
            finest = finest + F.interpolate(x, size=finest.shape[-2:], mode="bilinear", align_corners=False)
        return self.classify(F.relu(finest))
