"""Start values of ``TruncatedDenseNet`` from an ImageNet DenseNet."""

from __future__ import annotations

import re

from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from mmpluld.errors import InputError, did_you_mean
from mmpluld.zoo.download import local_checkpoint

__all__ = ["DenseNetImageNet", "map_imagenet_keys", "read_published"]

_STEM_RULES = ("green", "sum", "mean")
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
_DOWNLOAD_HINT = "download torchvision's densenet121 weights (densenet121-a639ec97.pth) and set checkpoint to that file"


def map_imagenet_keys(
    state_dict: dict[str, Tensor], stem_rule: str = "green", stem_channels: int = 1
) -> dict[str, Tensor]:
    """Rename the tensors of a torchvision DenseNet and fit its colour stem to grey slices.

    Args:
        state_dict: Weights with old (``denselayer1.norm.1``) or new (``denselayer1.norm1``) names, with or without the
            prefix ``features.``.
        stem_rule: The grey kernel from the colour kernels: the ``green`` one, their ``sum``, or their ``mean``.
        stem_channels: Input channels of the stem. 1 follows ``stem_rule``. More are the slices of the 2.5D network:
            the colour kernels repeat with the green one on the middle slice, unscaled (blue, red, green, blue, red for
            5; the published 2.5D code does the same where it works, at 1, 3, 4, 7, ... slices).

    Raises:
        InputError: If ``stem_rule`` is unknown.
    """
    if stem_rule not in _STEM_RULES:
        hint = did_you_mean(stem_rule, _STEM_RULES)
        raise InputError(f"stem_rule: {stem_rule!r} is not one of {', '.join(_STEM_RULES)}{hint}")
    mapped = {}
    for key, value in state_dict.items():
        if value.dim() == 4 and value.shape[1] == 3:
            value = _stem_kernel(value, stem_rule, stem_channels)
        mapped[_OLD_NAME.sub(r"\1\2.", key.removeprefix("features."))] = value
    return mapped


def _stem_kernel(colour: Tensor, rule: str, channels: int) -> Tensor:
    """The kernel (C, channels, k, k) from the colour kernel (C, 3, k, k)."""
    if channels > 1:
        return colour[:, [(1 + i - (channels - 1) // 2) % 3 for i in range(channels)]]
    return {"green": colour[:, 1:2], "sum": colour.sum(1, True), "mean": colour.mean(1, True)}[rule]


@WEIGHT_INITIALIZERS.register_module()
class DenseNetImageNet:
    """Initialiser: load the trunk from an ImageNet DenseNet-121, and say which tensors keep their random start.

    Use it as ``init_cfg=dict(type='DenseNetImageNet', checkpoint='FILE')``. The last dense block and
    the classifier of the file are not used. Convolutions over depth, slice mixers and attention are not in the file.

    Args:
        checkpoint: A local file or a URL, as torchvision publishes them: a state dict.
        stem_rule: See ``map_imagenet_keys``.

    Raises:
        InputError: If the checkpoint cannot be had or read, lacks a trunk tensor, or has one of another shape.
    """

    def __init__(self, checkpoint: str, stem_rule: str = "green") -> None:
        self.checkpoint = checkpoint
        self.stem_rule = stem_rule

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into ``module``, a ``TruncatedDenseNet``."""
        source = map_imagenet_keys(
            read_published(self.checkpoint, _DOWNLOAD_HINT), self.stem_rule, module.conv0.in_channels
        )
        own = module.state_dict()
        random_start = [key for key in own if ".mixer." in key or ".attention." in key or key.startswith("reductionz")]
        trunk = {key: value for key, value in own.items() if key not in random_start}
        loadable = {key: source[key] for key in trunk if key in source}
        # Files from before PyTorch 0.4.1 have no batch counters; these do not influence the result.
        missing = [key for key in trunk if key not in source and not key.endswith("num_batches_tracked")]
        if missing:
            raise InputError(f"{self.checkpoint}: lacks {missing[0]} and {len(missing) - 1} more; {_DOWNLOAD_HINT}")
        for key, value in loadable.items():
            if value.shape != trunk[key].shape:
                raise InputError(
                    f"{self.checkpoint}: {key} has shape {tuple(value.shape)}, the model {tuple(trunk[key].shape)}; "
                    "ImageNet weights fit the default widths of TruncatedDenseNet only"
                )
        module.load_state_dict(loadable, strict=False)
        print_log(
            f"{self.checkpoint}: loaded {len(loadable)} tensors of the 2D trunk; {len(random_start)} tensors of depth "
            "reduction, slice mixing and attention keep their random start",
            logger="current",
        )


def read_published(checkpoint: str, hint: str) -> dict[str, Tensor]:
    """The state dict of a file or URL, as torchvision publishes them.

    Args:
        checkpoint: A local file or a URL.
        hint: What to do where it cannot be had, for the message.

    Raises:
        InputError: If it cannot be had or read, or holds anything but tensors by name.
    """
    # Only here: it makes MMEngine read checkpoints safely, which others who take our models did not ask for.
    from mmpluld.engine.checkpoint import load_checkpoint_safely

    try:
        file = local_checkpoint(checkpoint).expanduser()
        if not file.is_file():
            raise InputError(f"{checkpoint}: no such file")
        state = load_checkpoint_safely(file)
    except InputError as error:
        raise InputError(f"{error}; {hint}") from error
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{checkpoint}: holds no state dict of tensors; {hint}")
    return state
