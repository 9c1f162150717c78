"""Tags of lesions through a pipeline whose transforms know boxes and labels only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.datasets.transforms import PackDetInputs

from mmpluld.errors import InputError
from mmpluld.registry import TRANSFORMS

__all__ = ["LoadLesionTags", "PackLesionInputs"]


@TRANSFORMS.register_module()
class LoadLesionTags(BaseTransform):
    """Load the tags of the sample's lesions; directly after ``LoadAnnotations``.

    Transforms that drop boxes keep labels in step, and nothing else that could hold tags. So until
    :class:`PackLesionInputs` puts it back, the label of a box is its place among ``instances``.

    Required keys: ``instances``, ``gt_bboxes_labels``. Modified key: ``gt_bboxes_labels``. Added key: ``lesion_tags``
    (N, T) float32, for each of ``instances`` 1 for its tags and 0 for the others, or NaN if it has no list of tags.

    Args:
        num_tags: T.
        uncertain: What becomes of doubtful tags: ``truth`` takes them for the lesion's (MULAN), ``masked`` makes them
            NaN, so that losses leave them out (LesaNet).

    Raises:
        InputError: A tag is not one of the T, or ``uncertain`` is something else.
    """

    def __init__(self, num_tags: int, uncertain: str = "truth") -> None:
        if uncertain not in ("truth", "masked"):
            raise InputError(f"LoadLesionTags: uncertain is {uncertain!r}; allowed are truth, masked")
        self.num_tags = num_tags
        self.uncertain = uncertain

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Load the tags."""
        instances = results["instances"]
        tags = np.full((len(instances), self.num_tags), np.nan, np.float32)
        for row, item in zip(tags, instances, strict=True):
            own = item.get("tags")
            if own is None:
                continue
            if own and max(own) >= self.num_tags:
                raise InputError(
                    f"LoadLesionTags: lesion {item.get('lesion_id')} has tag {max(own)}, num_tags is {self.num_tags}; "
                    "set num_tags to the number of the annotation file's terms"
                )
            row[:] = 0
            row[own] = 1
            if self.uncertain == "masked":
                row[item.get("uncertain_tags") or []] = np.nan
        results["lesion_tags"] = tags
        results["gt_bboxes_labels"] = np.arange(len(instances))
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_tags={self.num_tags}, uncertain={self.uncertain!r})"


@TRANSFORMS.register_module()
class PackLesionInputs(PackDetInputs):
    """mmdet's ``PackDetInputs`` that packs tags too: ``gt_instances.tags`` (N, T), see :class:`LoadLesionTags`.

    Args:
        meta_keys: As for ``PackDetInputs``.

    Raises:
        InputError: If no tags were loaded.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack the sample and give its boxes their labels back."""
        if "lesion_tags" not in results:
            raise InputError("PackLesionInputs: no tags; put LoadLesionTags after LoadAnnotations in the pipeline")
        packed: dict[str, Any] = super().transform(results)
        sample = packed["data_samples"]
        labels = torch.tensor([item["bbox_label"] for item in results["instances"]], dtype=torch.long)
        tags = torch.from_numpy(results["lesion_tags"])
        for instances in (sample.gt_instances, sample.ignored_instances):
            places = instances.labels
            instances.labels, instances.tags = labels[places], tags[places]
        return packed
