"""The stacks of a volume, made without doing twice what neighbouring stacks have in common."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from mmpluld.registry import TRANSFORMS  # first: it makes mmdet importable where mmcv has no compiled operators

# isort: split
import torch
from mmcv.transforms import Resize
from mmdet.datasets.transforms import PackDetInputs
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from mmpluld.datasets.steps import pipeline_steps, type_name
from mmpluld.datasets.transforms import CropBody, CurveHU, LoadSliceStack, WindowHU
from mmpluld.errors import InputError
from mmpluld.io.slice_stack import StackPlan, plan_stack
from mmpluld.models.backbones.lens_densenet import ImageFeatures

__all__ = ["ImageBackbone", "SharedFeatures", "StackLoader", "inference_pipeline"]

T = TypeVar("T")

# Transforms that do the same to every slice of a stack, and to each slice alone; of a volume, for CropBody.
_SLICEWISE = (LoadSliceStack, CropBody, CurveHU, WindowHU, Resize, PackDetInputs)


def inference_pipeline(config: Config) -> Compose:
    """The test pipeline of a config without the loading of annotations.

    Raises:
        InputError: If it does not look at neighbouring slices, or moves boxes without saying where to.
    """
    steps = pipeline_steps(config.get("test_dataloader", {}).get("dataset", {}).get("pipeline"))
    steps = [step for step in steps if type_name(step) != "LoadAnnotations"]
    transforms = [TRANSFORMS.build(step) for step in steps]
    place = f"{config.filename}: test_dataloader.dataset.pipeline"
    loader = next((step for step in transforms if isinstance(step, LoadSliceStack)), None)
    if loader is None:
        raise InputError(f"{place} has no LoadSliceStack; detection needs a config of this zoo")
    if not loader.slice_gap_mm > 0:
        raise InputError(f"{place}: slice_gap_mm is {loader.slice_gap_mm}; detection needs a number of mm above 0")
    crops = any(isinstance(step, CropBody) for step in transforms)
    if crops and not any("crop_offset" in getattr(step, "meta_keys", ()) for step in transforms):
        raise InputError(
            f"{config.filename}: the test pipeline has CropBody, but meta_keys of PackDetInputs lack "
            "'crop_offset', without which boxes cannot be moved back; add it"
        )
    return Compose(transforms)


class ImageBackbone(Protocol):
    """A backbone that first works on each image of a stack alone, so that stacks can share images."""

    num_slices: int
    depth: int  # images of a stack

    def image_features(self, images: Tensor) -> ImageFeatures:
        """Features of images (N, num_slices / depth, H, W); ``forward`` takes a list of them, one per image."""


class Recent:
    """The values made last, at most ``capacity`` of them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._values: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of ``key``, made if it is not there."""
        if key not in self._values:
            self._values[key] = make()
            if len(self._values) > self.capacity:
                del self._values[next(iter(self._values))]
        value: T = self._values[key]
        return value


class StackLoader:
    """Runs a test pipeline for one key slice of a volume after the other.

    Where all its transforms treat slices alike and apart, each slice is prepared once, instead of once for every stack
    that it is part of; the stacks are the same.

    Args:
        pipeline: Transforms, among them one ``LoadSliceStack``. ``CropBody`` needs samples with ``body_box``.

    Attributes:
        loader: The pipeline's ``LoadSliceStack``, which says which slices the model looks at.
        crops: Whether the pipeline cuts away the air around the body.
        slicewise: Whether all transforms do so; otherwise stacks have nothing in common.
    """

    def __init__(self, pipeline: Compose) -> None:
        self.pipeline = pipeline
        self.loader = next(step for step in pipeline.transforms if isinstance(step, LoadSliceStack))
        self.crops = any(isinstance(step, CropBody) for step in pipeline.transforms)
        self._single: Compose | None = None
        self._loaders = [self.loader]
        self.slicewise = all(isinstance(step, _SLICEWISE) for step in pipeline.transforms)
        if self.slicewise:
            one = LoadSliceStack(1, self.loader.slice_gap_mm, self.loader.interp, num_threads=0)
            self._single = Compose([one if step is self.loader else step for step in pipeline.transforms])
            self._loaders.append(one)

    def recent(self) -> Recent:
        """What the stacks of a volume will share; each volume needs its own."""
        return Recent(2 * self.loader.num_slices)

    def forget(self) -> None:
        """Let go of the volume that was loaded last."""
        for loader in self._loaders:
            loader.forget()

    def plan(self, sample: dict[str, Any]) -> StackPlan:
        """Which slices make the stack of ``sample``, whose ``slice_source`` has slices at the stack's distance."""
        source = sample["slice_source"]
        available = range(len(source.indices))
        return plan_stack(
            sample["key_slice"], source.spacing_mm[0], available, self.loader.num_slices, source.spacing_mm[0]
        )

    def load(self, sample: dict[str, Any], recent: Recent) -> dict[str, Any]:
        """What the pipeline makes of ``sample``: ``inputs`` (num_slices, H, W) and ``data_samples``.

        Args:
            sample: As the dataset hands it to the pipeline.
            recent: That of the sample's volume, see :meth:`recent`.
        """
        single = self._single
        if single is None:
            packed: dict[str, Any] = self.pipeline(sample)
            return packed

        def prepare(index: int) -> dict[str, Any]:
            packed: dict[str, Any] = single({**sample, "key_slice": index})
            return packed

        indices = [index for ((index, _),) in self.plan(sample)]
        slices = {index: recent.get(index, partial(prepare, index)) for index in sorted(set(indices))}
        data_sample = copy.deepcopy(slices[sample["key_slice"]]["data_samples"])
        return {"inputs": torch.cat([slices[index]["inputs"] for index in indices]), "data_samples": data_sample}


class SharedFeatures:
    """Features of the images of a volume, each computed once and kept for as long as later stacks need it.

    Args:
        backbone: The network, in evaluation mode.
        batch_size: Stacks at once.
    """

    def __init__(self, backbone: ImageBackbone, batch_size: int) -> None:
        self.backbone = backbone
        self.slices_per_image = backbone.num_slices // backbone.depth
        # Of what a stack needs, the oldest was made for the one (num_slices - slices_per_image) before; the rest of the
        # places is for the ends of the volume, where other images are needed too.
        self._images = Recent(backbone.num_slices + batch_size - 1)

    def features(self, inputs: Tensor, plans: Sequence[StackPlan]) -> list[ImageFeatures]:
        """For each image of the stacks ``inputs`` (B, num_slices, H, W) its features; ``plans`` tell equal images."""
        found = []
        for first in range(0, self.backbone.num_slices, self.slices_per_image):
            image = slice(first, first + self.slices_per_image)
            parts = [
                self._images.get(plan[image], partial(self.backbone.image_features, stack[None, image]))
                for stack, plan in zip(inputs, plans, strict=True)
            ]
            found.append(_joined(parts))
        return found


def shares_images(backbone: nn.Module) -> bool:
    """Whether stacks can share images in this backbone."""
    return hasattr(backbone, "image_features")


def _joined(parts: Sequence[ImageFeatures]) -> ImageFeatures:
    """Features of several images as those of a batch."""
    if len(parts) == 1:
        return parts[0]
    maps = tuple(torch.cat(level) for level in zip(*(part.maps for part in parts), strict=True))
    last = torch.cat([part.last for part in parts])
    return ImageFeatures(maps, torch.cat([part.entrance for part in parts]), last)
