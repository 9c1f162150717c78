"""Precisions and memory layouts, and how time and memory are measured on a GPU."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmpluld.compat.half_precision import keep_boxes_exact
from mmpluld.datasets.steps import num_slices
from mmpluld.engine.nodes import nodes
from mmpluld.models.data_preprocessors import SliceStacks
from mmpluld.registry import MODELS

WARM_UP, REPEATS = 2, 5
INTERVAL_MM = 2.0  # of slices, as the pipelines of DeepLesion make them
_BOX = (0.2, 0.3, 0.3, 0.42)  # a lesion, as parts of the image


@dataclass(frozen=True)
class Mode:
    """A precision in a memory layout.

    Attributes:
        precision: ``fp32``, in which PyTorch lets cuDNN round the inputs of convolutions to TF32, or ``bf16`` or
            ``fp16`` for that type under autocast.
        channels_last: Channels are the innermost axis of weights and images in memory, else the pixels.
    """

    precision: str
    channels_last: bool

    @property
    def layout(self) -> str:
        """What the tables call the layout."""
        return "channels last" if self.channels_last else "contiguous"

    @property
    def dtype(self) -> torch.dtype | None:
        """Type under autocast, or None."""
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self, device: str) -> AbstractContextManager[Any]:
        """A context that computes in this precision."""
        context: AbstractContextManager[Any] = torch.autocast(device, self.dtype, enabled=self.dtype is not None)
        return context

    def laid_out(self, tensor: Tensor) -> Tensor:
        """The tensor in this layout, if it has two or three axes of space."""
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        if not self.channels_last or tensor.dim() not in formats:
            return tensor
        return tensor.contiguous(memory_format=formats[tensor.dim()])

    def prepare(self, model: nn.Module) -> nn.Module:
        """Bring the weights, and what the model's own preprocessing makes of its input, into this layout."""
        for parameter in model.parameters():
            parameter.data = self.laid_out(parameter.data)
        if hasattr(model, "data_preprocessor"):
            model.data_preprocessor.register_forward_hook(self._lay_out_inputs)
        return model

    def _lay_out_inputs(self, _: nn.Module, __: Any, data: dict[str, Any]) -> dict[str, Any]:
        inputs = data["inputs"]
        if isinstance(inputs, SliceStacks):
            return {**data, "inputs": inputs._replace(images=self.laid_out(inputs.images))}
        return {**data, "inputs": self.laid_out(inputs)}


def modes(*precisions: str) -> list[Mode]:
    """These precisions in both layouts."""
    return [Mode(precision, last) for precision in precisions for last in (False, True)]


def build(model: dict[str, Any]) -> Any:
    """A model with random weights."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        made = MODELS.build(model)
    logging.disable(logging.INFO)  # mmengine reports on every tensor
    made.init_weights()
    logging.disable(logging.NOTSET)
    keep_boxes_exact(made)
    return made


def batch(config: Config, count: int, size: int, with_truth: bool) -> dict[str, Any]:
    """``count`` stacks of noise in the range that the window transform yields, as a dataloader gives them.

    Args:
        config: The config of the detector.
        count: How many.
        size: Pixels of a side.
        with_truth: Each has a lesion, with its mask.
    """
    from mmdet.structures.mask import BitmapMasks  # needs mmcv's operators or our stand-ins, which come with the models

    # The dataset of the first expert; there are no others than DeepLesion where a model has no experts.
    experts = next((value for place, value in nodes(config.model) if place.endswith(".datasets")), ["deeplesion"])
    depth = num_slices(config) or 1
    generator = torch.Generator().manual_seed(0)
    data: dict[str, Any] = {"inputs": [], "data_samples": []}
    for _ in range(count):
        shape = {"img_shape": (size, size), "ori_shape": (size, size), "scale_factor": (1.0, 1.0)}
        sample = DetDataSample(metainfo={**shape, "slice_interval_mm": INTERVAL_MM, "dataset": experts[0]})
        if with_truth:
            box = torch.tensor([_BOX]) * size
            mask = np.zeros((1, size, size), dtype=np.uint8)
            x1, y1, x2, y2 = box[0].int().tolist()
            mask[0, y1:y2, x1:x2] = 1
            label = torch.zeros(1, dtype=torch.long)
            masks = BitmapMasks(mask, size, size)
            sample.gt_instances = InstanceData(bboxes=box, labels=label, masks=masks)
            sample.ignored_instances = InstanceData(bboxes=box[:0], labels=label[:0])
        data["inputs"].append(torch.rand(depth, size, size, generator=generator) * 255 - 50)
        data["data_samples"].append(sample)
    return data


def measured(work: Callable[[], Any], device: str, repeats: int) -> tuple[float, float]:
    """Median of the seconds that ``work`` takes, and the peak of the GPU's memory while it runs, in MB."""
    on_gpu = torch.device(device).type == "cuda"

    def run_once() -> float:
        start = time.perf_counter()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(min(WARM_UP, repeats)):
        run_once()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median(run_once() for _ in range(repeats))
    return seconds, torch.cuda.max_memory_allocated() / 1e6 if on_gpu else 0.0
