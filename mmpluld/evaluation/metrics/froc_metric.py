"""FROC as an MMEngine metric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import (
    FROCProtocol,
    Matches,
    get_protocol,
    match_detections,
    mean_sensitivity,
    sensitivity_at,
)
from mmpluld.registry import METRICS
from mmpluld.structures.records import SERIES_SLICES, Detections, DetectionSet
from mmpluld.structures.samples import instance_boxes, predicted_boxes, to_array

__all__ = ["FROCMetric"]


@METRICS.register_module()
class FROCMetric(BaseMetric):
    """Sensitivity at mean false positives per key slice.

    Each data sample is one image. It needs ``pred_instances`` (``bboxes``, ``scores``), ``gt_instances`` and,
    if there are uncertain lesions, ``ignored_instances``, all in pixel edges of the original slice: the test
    pipeline loads annotations after ``Resize``. Its metainfo needs ``volume_id`` and ``key_slice``
    (``meta_keys`` of ``PackDetInputs``).

    Returned are ``froc/avg``, the mean over the protocol's headline levels, and ``froc/sens@<level>``, as
    fractions. Without any lesion they are NaN and a warning is logged.

    Args:
        protocol: Name or value of a 2D protocol, or a dict of ``FROCProtocol`` fields.
        strict: Apply the strict rules of ``match_detections`` instead of those of the published evaluations.
        outfile_prefix: If given, ``<outfile_prefix>.json`` is written, a detection record for ``mmpluld
            evaluate``.
        made_by: First line of the record's histories (:class:`~mmpluld.structures.model_line.ModelLine`); None: none.
        collect_device: ``cpu`` or ``gpu``, for distributed tests.
        prefix: Replaces ``froc`` in the names of the results.
        collect_dir: Shared folder for ``collect_device='cpu'``.

    Raises:
        InputError: If the protocol is unknown or not 2D.
    """

    default_prefix = "froc"

    def __init__(
        self,
        protocol: str | dict[str, Any] | FROCProtocol = "deeplesion-2d",
        strict: bool = False,
        outfile_prefix: str | None = None,
        made_by: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.protocol = get_protocol(protocol)
        if self.protocol.dim != 2:
            raise InputError(
                f"FROCMetric: protocol '{self.protocol.name}' is 3D, but data samples are key slices; use a "
                "2D protocol here, and `mmpluld evaluate` for 3D detections"
            )
        self.strict = strict
        self.outfile_prefix = outfile_prefix
        self.made_by = made_by

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep detections and lesions of a batch as arrays.

        Raises:
            InputError: If a sample does not say which slice of which volume it is.
        """
        for sample in data_samples:
            for key in ("volume_id", "key_slice"):
                if key not in sample:
                    raise InputError(
                        f"FROCMetric: data sample of {sample.get('img_path', 'unknown origin')} has no "
                        f"'{key}'; add it to meta_keys of PackDetInputs in the test pipeline"
                    )
            self.results.append(
                {
                    "volume": str(sample["volume_id"]),
                    "key_slice": int(sample["key_slice"]),
                    "boxes": predicted_boxes(sample),
                    "scores": to_array(sample["pred_instances"]["scores"]).reshape(-1),
                    "truth": instance_boxes(sample["gt_instances"]),
                    "ignored": instance_boxes(sample.get("ignored_instances", {})),
                }
            )

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Evaluate all images together; see the class."""
        if self.outfile_prefix is not None:
            made_by(_detection_set(results), self.made_by).save(f"{self.outfile_prefix}.json")
        matches = match_detections(
            [result["boxes"] for result in results],
            [result["scores"] for result in results],
            [result["truth"] for result in results],
            self.protocol,
            ignored=[result["ignored"] for result in results],
            strict=self.strict,
        )
        if not len(matches.lesion_image):
            MMLogger.get_current_instance().warning(
                "FROCMetric: none of %d images has a lesion, so sensitivity is NaN; check ann_file and that "
                "LoadAnnotations is in the test pipeline",
                len(results),
            )
        return headline_values(matches, self.protocol)


def headline_values(matches: Matches, protocol: FROCProtocol) -> dict[str, float]:
    """``avg``, the mean over the protocol's headline levels, and ``sens@<level>``, as fractions."""
    sensitivity = sensitivity_at(matches, protocol.levels)
    by_level = zip(protocol.levels, sensitivity, strict=True)
    average = float(mean_sensitivity(sensitivity, protocol))
    return {"avg": average, **{f"sens@{level:g}": float(value) for level, value in by_level}}


def made_by(found: DetectionSet, line: str | None) -> DetectionSet:
    """The detections with a line more at the head of each history; None adds none."""
    if line is None:
        return found
    volumes = found.volumes.items()
    return DetectionSet({name: replace(volume, history=(line, *(volume.history or ()))) for name, volume in volumes})


def _detection_set(results: list[dict[str, Any]]) -> DetectionSet:
    """Join the slices of each volume, numbered as its annotation file does; a slice box is one slice thick."""
    boxes = defaultdict(list)
    scores = defaultdict(list)
    for result in results:
        near = np.full((len(result["boxes"]), 1), result["key_slice"])
        flat = result["boxes"]
        boxes[result["volume"]].append(np.hstack([flat[:, :2], near, flat[:, 2:], near + 1]))
        scores[result["volume"]].append(result["scores"])
    return DetectionSet(
        {
            volume: Detections(np.concatenate(boxes[volume]), np.concatenate(scores[volume]), frame=SERIES_SLICES)
            for volume in boxes
        }
    )
