"""Patches around 3D boxes: loading, flips, packing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness

from mmpluld.errors import InputError, did_you_mean
from mmpluld.io.patches import BEYOND, Beyond, read_patch, run_around
from mmpluld.io.slice_sources import SliceSource, open_source_at
from mmpluld.registry import TRANSFORMS

__all__ = ["FlipPatch", "LoadPatch", "PackPatch"]


@TRANSFORMS.register_module()
class LoadPatch(BaseTransform):
    """Cut the patch around a 3D box out of its series, resampled in millimetres.

    The size of the patch and of its voxels, which LENS leaves open, hold about what 95 of 100 lesions of DeepLesion
    measure. The patch is of the volume's slices alone, and of those that no gap parts from the box.

    Required keys: ``box`` (x1, y1, z1, x2, y2, z2 voxel edges, z in slice numbers), ``first_slice``, ``num_slices``,
    and either ``slice_source`` (a :class:`~mmpluld.io.slice_sources.SliceSource`) or ``source`` (dict with ``kind``
    and ``path``) and ``spacing_mm``. Added keys: ``img`` (D, H, W) float32 HU; ``roi`` (6,), the part of the box that
    is in the patch, in its voxel edges.

    Args:
        size: Voxels of the patch along z, y and x.
        voxel_mm: Their size.
        beyond: What lies beyond the scan: its outermost voxels again (``edge``), or -1024 HU (``air``).

    Raises:
        InputError: A setting is not allowed, or a slice cannot be read.
    """

    def __init__(
        self,
        size: Sequence[int] = (16, 96, 96),
        voxel_mm: Sequence[float] = (2.0, 0.8, 0.8),
        beyond: Beyond = "edge",
    ) -> None:
        if len(size) != 3 or min(size) < 1:
            raise InputError(f"LoadPatch: size is {tuple(size)}; needed are three numbers from 1")
        if len(voxel_mm) != 3 or not min(voxel_mm) > 0:
            raise InputError(f"LoadPatch: voxel_mm is {tuple(voxel_mm)}; needed are three numbers above 0")
        if beyond not in BEYOND:
            hint = did_you_mean(beyond, BEYOND)
            raise InputError(f"LoadPatch: beyond is {beyond!r}; allowed are {', '.join(BEYOND)}{hint}")
        self.size, self.voxel_mm, self.beyond = tuple(size), tuple(voxel_mm), beyond

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Load the patch of ``results['box']``."""
        try:
            source = self._open(results)
            box = results["box"]
            slices = run_around(source.indices, (box[2] + box[5]) / 2, results["first_slice"], results["num_slices"])
            if not len(slices):
                raise InputError(f"no slice from {results['first_slice']}, {results['num_slices']} in all; mend it")
            patch, inner = read_patch(source, slices, box, self.size, self.voxel_mm, self.beyond)
        except (InputError, OSError) as error:
            text, volume = str(error), str(results.get("volume_id"))
            raise InputError(text if volume in text else f"volume {volume}: {text}") from error
        depth, height, width = self.size
        results["img"] = patch
        results["roi"] = np.clip(inner, 0, np.array([width, height, depth] * 2)).astype(np.float32)
        return results

    def _open(self, results: dict[str, Any]) -> SliceSource:
        source: SliceSource | None = results.get("slice_source")
        if source is not None:
            return source
        return open_source_at(results["source"], Path(), results["spacing_mm"], results["first_slice"])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, voxel_mm={self.voxel_mm}, beyond={self.beyond!r})"


@TRANSFORMS.register_module()
class FlipPatch(BaseTransform):
    """Flip a patch along each axis with a probability; the box in its centre stays where it is.

    Required keys: ``img`` (D, H, W), ``roi``. Modified keys: both.

    Args:
        prob: Along z, y and x.

    Raises:
        InputError: A probability is out of range.
    """

    def __init__(self, prob: Sequence[float] = (0.5, 0.5, 0.5)) -> None:
        if len(prob) != 3 or not all(0 <= value <= 1 for value in prob):
            raise InputError(f"FlipPatch: prob is {tuple(prob)}; needed are three numbers from 0 to 1")
        self.prob = tuple(prob)

    @cache_randomness
    def _flipped(self) -> tuple[int, ...]:
        """The axes to flip."""
        return tuple(axis for axis, prob in enumerate(self.prob) if random.random() < prob)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Flip."""
        axes = self._flipped()
        roi = results["roi"].copy()
        for axis in axes:
            size, low, high = results["img"].shape[axis], 2 - axis, 5 - axis
            roi[low], roi[high] = size - results["roi"][high], size - results["roi"][low]
        results["img"] = np.flip(results["img"], axes)
        results["roi"] = roi
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prob={self.prob})"


@TRANSFORMS.register_module()
class PackPatch(BaseTransform):
    """What ``PatchClassifier`` takes: ``inputs`` (1, D, H, W), ``boxes`` (6,) and, where it is known, ``labels``.

    Required keys: ``img``, ``roi``; ``label`` if it is known.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack."""
        packed = {
            "inputs": torch.from_numpy(np.ascontiguousarray(results["img"][None])),
            "boxes": torch.from_numpy(results["roi"]),
        }
        if "label" in results:
            packed["labels"] = torch.tensor(results["label"])
        return packed

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
