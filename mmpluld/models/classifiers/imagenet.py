"""Start values of ``InflatedResNet`` from an ImageNet ResNet."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from mmpluld.errors import InputError
from mmpluld.models.backbones.imagenet import read_published

__all__ = ["ResNetImageNet", "inflate_resnet"]

_DOWNLOAD_HINT = "download torchvision's resnet18 weights (resnet18-f37072fd.pth) and set checkpoint to that file"


def inflate_resnet(state_dict: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a 2D ResNet as those of a 3D one: kernels repeated along z and divided by their depth.

    On a patch that is the same in every slice, convolutions give what the 2D ones give, but where depth meets the
    zeros beyond the ends. Kernels for colour become one for grey, their sum: what they give for a grey picture.

    Args:
        state_dict: Weights as torchvision publishes them.
        target: State dict of the 3D network.

    Raises:
        InputError: If a tensor of the 3D network is missing or has another shape.
    """
    mapped: dict[str, Tensor] = {}
    for name, wanted in target.items():
        if name not in state_dict:
            if name.endswith("num_batches_tracked"):  # not in old files, and without influence
                continue
            raise InputError(f"lacks {name}")
        value = state_dict[name]
        if value.dim() == 4 and wanted.dim() == 5:
            if value.shape[1] == 3 and wanted.shape[1] == 1:
                value = value.sum(1, keepdim=True)
            depth = wanted.shape[2]
            value = value[:, :, None].repeat(1, 1, depth, 1, 1) / depth
        if value.shape != wanted.shape:
            raise InputError(f"{name} has shape {tuple(state_dict[name].shape)}, the model {tuple(wanted.shape)}")
        mapped[name] = value
    return mapped


@WEIGHT_INITIALIZERS.register_module()
class ResNetImageNet:
    """Initialiser: load an ``InflatedResNet`` from an ImageNet ResNet-18 by inflation (LENS, sec. IV-D).

    Use it as ``init_cfg=dict(type='ResNetImageNet', checkpoint='FILE')``. The classifier of the file is not used.

    Args:
        checkpoint: A local file or a URL, as torchvision publishes them: a state dict.

    Raises:
        InputError: If the checkpoint cannot be had or read, lacks a tensor, or has one of another shape.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into ``module``."""
        source = read_published(self.checkpoint, _DOWNLOAD_HINT)
        try:
            weights = inflate_resnet(source, module.state_dict())
        except InputError as error:
            raise InputError(f"{self.checkpoint}: {error}; {_DOWNLOAD_HINT}") from None
        module.load_state_dict(weights, strict=False)
        print_log(f"{self.checkpoint}: loaded {len(weights)} tensors, inflated along z", logger="current")
