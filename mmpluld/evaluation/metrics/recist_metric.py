"""Error of RECIST diameters as an MMEngine metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import recist_errors, select_found
from mmpluld.postprocess import paste_mask
from mmpluld.registry import METRICS
from mmpluld.structures import instance_boxes, measure_recist, predicted_boxes, to_array

__all__ = ["RECISTMetric"]


@METRICS.register_module()
class RECISTMetric(BaseMetric):
    """Absolute error of the diameters measured on predicted masks, over the lesions that were found.

    A lesion's detection is the best-scored one that overlaps its box by ``iou_thr``; the diameters of its mask are
    compared with those of the RECIST mark. Data samples need ``pred_instances`` with ``mask_probs``
    (:class:`~mmpluld.models.roi_heads.LesionMaskHead`), ``gt_instances`` in pixels of the original slice, and
    ``recist_mm`` and ``spacing_mm`` in their metainfo (``meta_keys`` of ``PackDetInputs``).

    Returned are ``recist/long_mae_mm``, ``recist/short_mae_mm``, ``recist/long_std_mm``, ``recist/short_std_mm`` (NaN
    where nothing was measured), ``recist/measured``, the number of lesions they are of, and ``recist/lesions``, all
    lesions with a mark. Of a detector without masks nothing is returned.

    Args:
        iou_thr: Least IoU of a detection with the true box, in (0, 1].
        collect_device: ``cpu`` or ``gpu``, for distributed tests.
        prefix: Replaces ``recist`` in the names of the results.
        collect_dir: Shared folder for ``collect_device='cpu'``.

    Raises:
        InputError: If the threshold is out of range.
    """

    default_prefix = "recist"

    def __init__(
        self,
        iou_thr: float = 0.5,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if not 0 < iou_thr <= 1:
            raise InputError(f"RECISTMetric: iou_thr is {iou_thr}; it must be in (0, 1]")
        self.iou_thr = iou_thr

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Measure the lesions of a batch.

        Raises:
            InputError: If a sample with masks lacks what they are compared with.
        """
        for sample in data_samples:
            # mmdet leaves an image without boxes an empty `masks` instead.
            if not {"mask_probs", "masks"} & set(sample["pred_instances"].keys()):
                self.results.append(None)
                continue
            for key in ("recist_mm", "spacing_mm"):
                if key not in sample:
                    raise InputError(
                        f"RECISTMetric: data sample has no '{key}'; add it to meta_keys of PackDetInputs in the "
                        "test pipeline"
                    )
            truth = np.asarray(sample["recist_mm"], np.float64).reshape(-1, 2)
            true_boxes = instance_boxes(sample["gt_instances"])
            if len(truth) != len(true_boxes):
                raise InputError(
                    f"RECISTMetric: {len(truth)} RECIST marks but {len(true_boxes)} true boxes; the test pipeline must "
                    "load annotations and keep every box"
                )
            self.results.append((truth, self._measure(sample, true_boxes)))

    def _measure(self, sample: Mapping[str, Any], true_boxes: Any) -> Any:
        """(M, 2) diameters of the detections of the true boxes, NaN where there is none."""
        diameters = np.full((len(true_boxes), 2), np.nan)
        predicted, boxes, spacing_yx = sample["pred_instances"], predicted_boxes(sample), sample["spacing_mm"][1:]
        if not len(boxes) or not np.isfinite(spacing_yx).all():
            return diameters
        found = select_found(boxes, to_array(predicted["scores"]).reshape(-1), true_boxes, self.iou_thr)
        for row in np.flatnonzero(found >= 0):
            probs, origin = paste_mask(to_array(predicted["mask_probs"][found[row]]), boxes[found[row]])
            measured = measure_recist(probs, spacing_yx, origin)
            if measured is not None:
                diameters[row] = measured.long_mm, measured.short_mm
        return diameters

    def compute_metrics(self, results: list[tuple[Any, Any] | None]) -> dict[str, float]:
        """Average over all lesions; see the class."""
        results = [item for item in results if item is not None]
        if not results:
            return {}
        truth, predicted = (np.concatenate([np.zeros((0, 2)), *items]) for items in zip(*results, strict=True))
        errors = recist_errors(predicted, truth)
        return {
            "long_mae_mm": errors.long_mm,
            "short_mae_mm": errors.short_mm,
            "long_std_mm": errors.long_std_mm,
            "short_std_mm": errors.short_std_mm,
            "measured": errors.count,
            "lesions": int(np.isfinite(truth).all(axis=1).sum()),
        }
