"""FROC of whole volumes as an MMEngine metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import (
    FROCProtocol,
    get_protocol,
    match_detections,
)
from mmpluld.evaluation.metrics.froc_metric import headline_values, made_by
from mmpluld.evaluation.pairing import Pairing, load_truth, pair_images
from mmpluld.registry import METRICS
from mmpluld.structures.records import AnnotationSet, Detections, DetectionSet

__all__ = ["VolumeFROCMetric"]


@METRICS.register_module()
class VolumeFROCMetric(BaseMetric):
    """Sensitivity at mean false positives per volume, for ``VolumeTestLoop``.

    Each data sample is one volume: a dict of ``volume_id`` and ``detections`` (:class:`Detections`, in the numbers of
    the annotation file). The truth is the annotation file that the loop names in ``dataset_meta["ann_file"]``.

    Returned are ``froc3d/avg``, the mean over the protocol's headline levels, and ``froc3d/sens@<level>``, as
    fractions, by the rules of the published evaluation; ``froc3d/strict_avg`` and ``froc3d/strict_sens@<level>`` are
    the same by the strict rules of ``match_detections``. Without any lesion all are NaN and a warning is logged.

    Args:
        protocol: Name or value of a 3D protocol.
        outfile_prefix: If given, ``<outfile_prefix>.json`` is written, a detection record for ``mmpluld evaluate``.
        made_by: First line of the record's histories (:class:`~mmpluld.structures.model_line.ModelLine`); None: none.
        collect_device: ``cpu`` or ``gpu``, for distributed tests.
        prefix: Replaces ``froc3d`` in the names of the results.
        collect_dir: Shared folder for ``collect_device='cpu'``.

    Raises:
        InputError: If the protocol is unknown or not 3D.
    """

    default_prefix = "froc3d"

    def __init__(
        self,
        protocol: str | dict[str, Any] | FROCProtocol = "lens-3d",
        outfile_prefix: str | None = None,
        made_by: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.protocol = get_protocol(protocol)
        if self.protocol.dim != 3:
            raise InputError(
                f"VolumeFROCMetric: protocol '{self.protocol.name}' is 2D, but data samples are volumes; use a 3D "
                "protocol such as lens-3d here, and FROCMetric for key slices"
            )
        self.outfile_prefix = outfile_prefix
        self.made_by = made_by

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep the detections of some volumes.

        Raises:
            InputError: The samples are single slices.
        """
        if any("detections" not in sample for sample in data_samples):
            raise InputError(
                "VolumeFROCMetric: the samples are single slices; it works with test_cfg=dict(type='VolumeTestLoop'), "
                "and validations take FROCMetric"
            )
        self.results += [(str(sample["volume_id"]), sample["detections"]) for sample in data_samples]

    def compute_metrics(self, results: list[tuple[str, Detections]]) -> dict[str, float]:
        """Write the record and evaluate all volumes together; see the class.

        Raises:
            InputError: If no loop has said which annotation file the volumes are from.
        """
        found = DetectionSet(dict(results))
        if self.outfile_prefix is not None:
            made_by(found, self.made_by).save(f"{self.outfile_prefix}.json")
        path = (self.dataset_meta or {}).get("ann_file")
        if path is None:
            raise InputError("VolumeFROCMetric works with test_cfg=dict(type='VolumeTestLoop'); set it in the config")
        if all(lesion.ignore for lesion in AnnotationSet.load(path).lesions):
            MMLogger.get_current_instance().warning(
                "VolumeFROCMetric: %s has no lesion to find in %d volumes, so sensitivity is NaN", path, len(results)
            )
            values = dict.fromkeys(["avg", *(f"sens@{level:g}" for level in self.protocol.levels)], float("nan"))
            return values | {f"strict_{name}": value for name, value in values.items()}
        pairing = pair_images(load_truth(path, self.protocol), found, self.protocol)
        compat, strict = (self._values(pairing, strict) for strict in (False, True))
        return compat | {f"strict_{name}": value for name, value in strict.items()}

    def _values(self, pairing: Pairing, strict: bool) -> dict[str, float]:
        matches = match_detections(
            pairing.detections, pairing.scores, pairing.truth, self.protocol, ignored=pairing.ignored, strict=strict
        )
        return headline_values(matches, self.protocol)
