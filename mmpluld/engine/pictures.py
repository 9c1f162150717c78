"""Pictures of samples with their boxes, drawn by MMDetection's visualizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.structures import DetDataSample
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmpluld.datasets.slice_pictures import read_slice
from mmpluld.errors import InputError
from mmpluld.registry import HOOKS
from mmpluld.visualization.pictures import window_of

__all__ = ["LesionVisualizationHook", "zoom_of"]


def zoom_of(height: int, width: int, least_px: int = 512) -> int:
    """How many times to repeat the pixels of a small picture so that the text on it leaves room for the lesions."""
    return max(1, round(least_px / max(height, width)))


@HOOKS.register_module()
class LesionVisualizationHook(DetVisualizationHook):
    """mmdet's ``DetVisualizationHook`` for slice stacks: the truth on the key slice, and beside it the predictions.

    The slice is read anew, in the pixels of its file, where truth and predictions are; it is shown in the lung window
    if the lesions and predictions on it are mostly lung, else in that of soft tissue. Samples need ``img_path``
    (``meta_keys`` of ``PackDetInputs``).

    Args:
        **kwargs: As for ``DetVisualizationHook``; ``test_out_dir`` is best absolute.

    Raises:
        InputError: If samples have no ``img_path``.
    """

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any], outputs: Sequence[DetDataSample]
    ) -> None:
        """Draw the first sample of every ``interval``-th batch."""
        if self.draw and (runner.iter + batch_idx) % self.interval == 0:
            super().after_val_iter(runner, batch_idx, data_batch, [self._prepare(outputs[0])])

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any], outputs: Sequence[DetDataSample]
    ) -> None:
        """Draw every sample."""
        for sample in outputs if self.draw else ():
            super().after_test_iter(runner, batch_idx, data_batch, [self._prepare(sample)])

    def _prepare(self, sample: DetDataSample) -> DetDataSample:
        """Choose how the sample's slice is shown, and return its boxes in the pixels of that picture."""
        if "img_path" not in sample:
            raise InputError(
                "LesionVisualizationHook: data samples have no 'img_path'; add it to meta_keys of PackDetInputs"
            )
        slice_hu = read_slice(sample.img_path)
        truth, found = sample.gt_instances.bboxes.cpu(), sample.pred_instances.cpu()
        # Predictions are in pixels of what the network saw; the body may have been cut out of the slice before.
        boxes = found.bboxes + torch.tensor([*sample.get("crop_offset", (0, 0))] * 2, dtype=found.bboxes.dtype)
        window = window_of(_inside(slice_hu, torch.cat([truth, boxes[found.scores > self.score_thr]]).numpy()))
        zoom = zoom_of(*slice_hu.shape)
        self.backend_args = {"backend": "ct-slice", "window_hu": (window.low_hu, window.high_hu), "zoom": zoom}
        shown = DetDataSample(metainfo={"img_path": sample.img_path})
        shown.gt_instances = InstanceData(bboxes=zoom * truth, labels=sample.gt_instances.labels.cpu())
        shown.pred_instances = InstanceData(bboxes=zoom * boxes, labels=found.labels, scores=found.scores)
        return shown


def _inside(slice_hu: Any, boxes: Any) -> Any:
    """HU of the pixels of a slice that lie in any of the boxes (N, 4)."""
    marked = np.zeros(slice_hu.shape, np.bool_)
    for x1, y1, x2, y2 in np.maximum(boxes, 0):
        marked[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
    return slice_hu[marked]
