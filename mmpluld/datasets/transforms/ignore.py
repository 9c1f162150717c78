"""Leaving parts of an image out of the losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes, autocast_box_type

from mmpluld.errors import InputError
from mmpluld.registry import TRANSFORMS

__all__ = ["IgnoreBackground"]

_REACH = 1e5
"""Pixels. Half of it lies beyond the padding of any batch, and float32 still resolves 1/100 of a pixel there."""


@TRANSFORMS.register_module()
class IgnoreBackground(BaseTransform):
    """Make lesions the only thing that an image teaches: all of its negatives are left out of every loss.

    This is the positive data pooling of LENS, Table V: lesions of datasets that label one kind are used, what they do
    not label is neither lesion nor background. An ignored box is added whose central half covers image and padding,
    since ``AFPHead`` counts only that half. Positives of certain lesions stay, with heads and assigners that respect
    ignored boxes (``AFPHead``, ``CenterNetProposalHead``, ``IgnoreAwareFCOSHead``, ``IgnoreAwareMaxIoUAssigner``).

    It comes last before ``PackDetInputs``: a resize or crop after it would clip the box to the image.

    Required keys: ``img``, ``dataset``, ``gt_bboxes``, ``gt_bboxes_labels``, ``gt_ignore_flags``. The last three are
    modified.

    Args:
        datasets: Names of the datasets whose samples are changed.

    Raises:
        InputError: The sample says not which dataset it is of, or holds masks.
    """

    def __init__(self, datasets: Sequence[str]) -> None:
        self.datasets = tuple(datasets)

    @autocast_box_type()
    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the box, or pass the sample on."""
        if "dataset" not in results:
            raise InputError("IgnoreBackground: the sample has no key 'dataset'; take samples of a CTLesionDataset")
        if results["dataset"] not in self.datasets:
            return results
        if results.get("gt_masks") is not None:
            raise InputError("IgnoreBackground: the added box has no mask; load annotations with with_mask=False")
        height, width = results["img"].shape[:2]
        whole = HorizontalBoxes([[width / 2 - _REACH, height / 2 - _REACH, width / 2 + _REACH, height / 2 + _REACH]])
        results["gt_bboxes"] = HorizontalBoxes.cat([results["gt_bboxes"], whole])
        results["gt_bboxes_labels"] = np.append(results["gt_bboxes_labels"], 0)
        results["gt_ignore_flags"] = np.append(results["gt_ignore_flags"], True)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(datasets={self.datasets})"
