"""Patches around lesions, each an input of its own."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmpluld.errors import InputError
from mmpluld.registry import TRANSFORMS

__all__ = ["CropLesionPatches", "PackLesionPatches"]

UNKNOWN = -1
"""Stands for the number of a lesion within its patient that is not known."""


@TRANSFORMS.register_module()
class CropLesionPatches(BaseTransform):
    """Cut a square out of the image around each lesion, its centre at the middle, the image's border carried on.

    Required keys: ``img`` (H, W, D), ``gt_bboxes`` (N, 4) pixel edges. Added keys: ``patches`` (N, D, S, S) float32;
    ``patch_boxes`` (N, 4) float32, the boxes within their patches, clipped to them.

    Args:
        size: S in pixels, even.
        shift_px: In training, move each patch by up to so many pixels along both axes.
        box_jitter: In training, move each edge of a box by up to this share of the box's side first: a detector's boxes
            are not a person's.

    Raises:
        InputError: A setting is not allowed.

    Source: LesaNet, 2019; its code has 120 pixels of 1 mm.
    """

    def __init__(self, size: int = 120, shift_px: int = 0, box_jitter: float = 0.0) -> None:
        if size < 2 or size % 2:
            raise InputError(f"CropLesionPatches: size is {size}; allowed are even numbers from 2")
        if not 0 <= shift_px < size // 2:
            raise InputError(f"CropLesionPatches: shift_px is {shift_px}; allowed is 0 to {size // 2 - 1}")
        if not 0 <= box_jitter < 0.5:
            raise InputError(f"CropLesionPatches: box_jitter is {box_jitter}; allowed is 0 to below 0.5")
        self.size = size
        self.shift_px = shift_px
        self.box_jitter = box_jitter

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Cut the patches."""
        image = results["img"]
        boxes = self._moved(results["gt_bboxes"].tensor.numpy())
        patches = np.empty((len(boxes), image.shape[2], self.size, self.size), np.float32)
        # On edges, so that as much of the image is on either side; halves go up.
        corners = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 + 0.5).astype(np.int64) - self.size // 2
        for patch, corner in zip(patches, corners, strict=True):
            corner += [random.randint(-self.shift_px, self.shift_px) for _ in range(2)]
            rows, columns = (
                np.clip(np.arange(start, start + self.size), 0, side - 1)
                for start, side in zip(corner[::-1], image.shape[:2], strict=True)
            )
            patch[:] = image[np.ix_(rows, columns)].transpose(2, 0, 1)
        results["patches"] = patches
        results["patch_boxes"] = np.clip(boxes - np.tile(corners, 2), 0, self.size).astype(np.float32)
        return results

    def _moved(self, boxes: np.ndarray) -> np.ndarray:
        """The boxes with their edges moved."""
        if not self.box_jitter:
            return boxes
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        draws = [[random.uniform(-self.box_jitter, self.box_jitter) for _ in range(4)] for _ in boxes]
        moved: np.ndarray = boxes + sides * np.array(draws, boxes.dtype).reshape(-1, 4)
        return moved

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, shift_px={self.shift_px}, box_jitter={self.box_jitter})"


@TRANSFORMS.register_module()
class PackLesionPatches(BaseTransform):
    """Pack the patches of a sample: ``inputs`` (N, D, S, S), and ``gt_instances`` of its lesions.

    Of each lesion: ``bboxes`` within its patch, ``tags`` (N, T) where :class:`LoadLesionTags` was before,
    ``lesion_ids``, ``identities``, its number within the patient, -1 where it is not known, and ``on_key_slice``,
    whether the sample is of its own key slice. Lesions to be ignored are left out. Steps may drop boxes
    after :class:`LoadLesionTags`, by which each box knows its lesion.

    Args:
        meta_keys: Keys of the sample to keep.
    """

    def __init__(self, meta_keys: tuple[str, ...] = ("img_id", "volume_id", "patient", "key_slice")) -> None:
        self.meta_keys = meta_keys

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack the sample.

        Raises:
            InputError: A step has dropped boxes without ``LoadLesionTags`` before it, so that nobody knows which patch
                is whose.
        """
        instances = results["instances"]
        if "lesion_tags" in results:
            places = results["gt_bboxes_labels"]
            instances, tags = [instances[place] for place in places], results["lesion_tags"][places]
        if len(instances) != len(results["patches"]):
            raise InputError(
                f"PackLesionPatches: {len(results['patches'])} patches of {len(instances)} lesions; leave steps that "
                "drop boxes out of the pipeline, or put LoadLesionTags before them"
            )
        kept = [row for row, item in enumerate(instances) if not item["ignore_flag"]]
        lesions = InstanceData(bboxes=torch.from_numpy(results["patch_boxes"][kept]))
        lesions.lesion_ids = torch.tensor([instances[row]["lesion_id"] for row in kept], dtype=torch.long)
        numbers = [instances[row].get("identity") for row in kept]
        lesions.identities = torch.tensor([UNKNOWN if n is None else n for n in numbers], dtype=torch.long)
        own = [instances[row].get("key_slice") == results.get("key_slice") for row in kept]
        lesions.on_key_slice = torch.tensor(own, dtype=torch.bool)
        if "lesion_tags" in results:
            lesions.tags = torch.from_numpy(tags[kept])
        sample = DetDataSample(metainfo={key: results[key] for key in self.meta_keys if key in results})
        sample.gt_instances = lesions
        return {"inputs": torch.from_numpy(results["patches"][kept]), "data_samples": sample}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(meta_keys={self.meta_keys})"
