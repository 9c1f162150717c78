"""One whole detector per dataset."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from mmengine.model import ModuleDict
from torch import Tensor

from mmpluld.models.experts import check_datasets, dataset_of_batch, join_experts
from mmpluld.registry import MODELS

__all__ = ["PerDatasetDetector"]


@MODELS.register_module()
class PerDatasetDetector(BaseDetector):
    """Separate detectors of one kind, each trained on one dataset, whose detections are joined in the test.

    A training batch comes from one dataset and trains the detector of that dataset alone; the others get no gradient.

    Args:
        datasets: Names of the datasets, one detector each.
        detector: Config of a detector, any of mmdet's; its data preprocessor serves all.
        fusion: Non-maximum suppression over the union of all detections, settings of mmcv's ``batched_nms``.
        max_per_img: Detections to keep at most.
        init_cfg: MMEngine initialisation of the whole; each detector has its own.

    Attributes:
        unfused: Whether all detections come out, see ``join_experts``.

    Raises:
        InputError: If the names are unfit; in training, if a batch mixes datasets or is of one without a detector.

    Source: row "separate models" of Table V of "Learning from Multiple Datasets with Heterogeneous and Partial Labels
    for Universal Lesion Detection in CT", 2020.
    """

    def __init__(
        self,
        datasets: Sequence[str],
        detector: dict,
        fusion: dict = {"type": "nms", "iou_threshold": 0.5},  # noqa: B006  read only
        max_per_img: int = 50,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=detector.get("data_preprocessor"), init_cfg=init_cfg)
        self.datasets = check_datasets(datasets, "PerDatasetDetector")
        self.fusion = fusion
        self.max_per_img = max_per_img
        self.unfused = False
        own = {key: value for key, value in detector.items() if key != "data_preprocessor"}
        # mmdet's detectors write into their config while they are built.
        self.detectors = ModuleDict({name: MODELS.build(deepcopy(own)) for name in self.datasets})

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Any]:
        """Losses of the detector of the batch's dataset."""
        name = dataset_of_batch(batch_data_samples, self.datasets, "PerDatasetDetector")
        return self.detectors[name].loss(batch_inputs, batch_data_samples)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Joined detections as ``pred_instances``; ``expert`` (number in ``datasets``) says whose each is."""
        groups = []
        for detector in self.detectors.values():
            found = detector.predict(batch_inputs, batch_data_samples, rescale=rescale)
            groups.append([sample.pred_instances for sample in found])
        settings: dict[str, Any] = {"nms": self.fusion, "max_per_img": self.max_per_img, "unfused": self.unfused}
        joined = [join_experts(group, **settings) for group in zip(*groups, strict=True)]
        return self.add_pred_to_datasample(batch_data_samples, joined)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Any, ...]:
        """Features of all detectors, in the order of the datasets."""
        return tuple(detector.extract_feat(batch_inputs) for detector in self.detectors.values())

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> tuple[Any, ...]:
        """Outputs of all detectors without post-processing."""
        return tuple(detector._forward(batch_inputs, batch_data_samples) for detector in self.detectors.values())
