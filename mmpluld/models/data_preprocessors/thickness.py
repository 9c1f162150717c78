"""The slice interval of each sample on its way to a slice mixer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from torch import Tensor

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

__all__ = ["SliceStacks", "ThicknessPreprocessor"]


class SliceStacks(NamedTuple):
    """A batch of slice stacks with the slice intervals of the series they come from.

    mmdet's detectors hand their inputs to the backbone as they got them, so this reaches ``TruncatedDenseNet`` through
    any of them, one- or two-stage.

    Attributes:
        images: (B, D, H, W).
        thickness_mm: (B,) float32, NaN where it is not known.
    """

    images: Tensor
    thickness_mm: Tensor


@MODELS.register_module()
class ThicknessPreprocessor(DetDataPreprocessor):
    """mmdet's ``DetDataPreprocessor``; ``inputs`` becomes ``SliceStacks``, with each sample's ``slice_interval_mm``.

    For slice mixers that depend on the slice interval (``AlignShiftMixer``). Without data samples, ``inputs`` stays a
    tensor. Takes the arguments of ``DetDataPreprocessor``.

    Raises:
        InputError: If a data sample has no ``slice_interval_mm``.
    """

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Collate, pad and normalise the batch, and add the slice intervals."""
        data = super().forward(data, training)
        samples = data["data_samples"]
        if samples is None:
            return data
        intervals = [sample.metainfo.get("slice_interval_mm") for sample in samples]
        if None in intervals:
            raise InputError(
                "ThicknessPreprocessor: a data sample has no slice_interval_mm; add it to the meta_keys of "
                "PackDetInputs, LoadSliceStack provides it"
            )
        thickness_mm = torch.tensor(intervals, dtype=torch.float32, device=data["inputs"].device)
        return {**data, "inputs": SliceStacks(data["inputs"], thickness_mm)}
