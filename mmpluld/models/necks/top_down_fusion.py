"""Fusion of a feature pyramid into its finest map."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.registry import MODELS

__all__ = ["TopDownFusion"]

_FINEST_LATERAL = 2  # lateral2 reads the stride-4 map (2 ** 2), lateral3 stride 8, lateral4 stride 16


@MODELS.register_module()
class TopDownFusion(BaseModule):
    """Project all maps to one width by 1x1 convolutions and add them up, coarse to fine, into one map.

    Coarser maps are enlarged by nearest neighbour. There is no smoothing convolution, norm or activation.

    Args:
        in_channels: Channels of the input maps, finest first.
        out_channels: Channels of the output map.
        init_cfg: MMEngine initialisation; the default is Kaiming uniform (a = 1) with zero bias.

    Shape:
        Input: a tuple of (B, C_i, H_i, W_i), finest first. Output: a tuple of one (B, out_channels, H_0, W_0).

    Source: the feature cascade of "Asymmetric 3D Context Fusion for Universal Lesion Detection", 2021, Sec. 2.3.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024),
        out_channels: int = 512,
        init_cfg: dict | None = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = {
                "type": "Kaiming",
                "layer": "Conv2d",
                "a": 1,
                "mode": "fan_in",
                "nonlinearity": "leaky_relu",
                "distribution": "uniform",
            }
        super().__init__(init_cfg=init_cfg)
        self._laterals = [f"lateral{_FINEST_LATERAL + i}" for i in range(len(in_channels))]
        for name, channels in zip(self._laterals, in_channels, strict=True):
            self.add_module(name, nn.Conv2d(channels, out_channels, 1))

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        """Fuse ``inputs`` (finest first) into one map of the finest size."""
        maps = [getattr(self, name)(x) for name, x in zip(self._laterals, inputs, strict=True)]
        fused = maps[-1]
        for finer in maps[-2::-1]:
            # A size instead of a factor of 2: maps of odd size differ from the doubled coarser map by one pixel.
            fused = finer + F.interpolate(fused, size=finer.shape[-2:], mode="nearest")
        return (fused,)
