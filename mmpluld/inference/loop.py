"""Testing of a detector on whole volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import BaseLoop, Runner

from mmpluld.datasets import CTLesionDataset
from mmpluld.engine.wrapped import unwrapped
from mmpluld.errors import InputError
from mmpluld.inference.rescore import rescorer_of_test
from mmpluld.inference.running import Precision
from mmpluld.inference.settings import DetectionSettings
from mmpluld.inference.volume_detector import VolumeDetector
from mmpluld.inference.volumes import load_volumes
from mmpluld.io.slice_sources import open_source
from mmpluld.progress import track
from mmpluld.registry import DATASETS, LOOPS
from mmpluld.structures import Detections, VolumeRecord
from mmpluld.structures.volume import boxes_to_world_lps

__all__ = ["VolumeTestLoop"]


@LOOPS.register_module()
class VolumeTestLoop(BaseLoop):
    """Runs :class:`VolumeDetector` over every volume of an annotation file, and has the 3D boxes evaluated.

    The annotation file, the data's folder and the pipeline are those of ``test_dataloader.dataset``, a
    ``CTLesionDataset``, whose sampling policy is of no account: every volume is examined whole, between its
    ``first_slice`` and the last of its ``num_slices``. 3D boxes come out in the annotation file's own voxels and slice
    numbers, and in world mm too where the file has the geometry. The volumes are shared out among the processes.
    ``VolumeFROCMetric`` is the evaluator that goes with it.

    Args:
        runner: The runner.
        dataloader: ``test_dataloader`` of the config.
        evaluator: ``test_evaluator`` of the config.
        precision: ``fp32`` or ``bf16``.
        batch_size: Grid slices at once.
        share: Share features between stacks.
        fpr: False-positive reduction: ``checkpoint``, and if need be ``config`` and ``mode``, as for
            :func:`~mmpluld.inference.rescore.rescorer_of_test`. None: none.
        **settings: See :class:`DetectionSettings`; without ``score_thr``, every 3D box counts. ``mmpluld detect`` takes
            them from here too.

    Raises:
        InputError: If the dataset is not one ``CTLesionDataset``, a setting is not allowed, or a volume cannot be read.
    """

    keywords_of = DetectionSettings  # for the check of configs: whose keywords are accepted beside its own

    def __init__(
        self,
        runner: Runner,
        dataloader: dict[str, Any],
        evaluator: Evaluator | dict[str, Any] | list[dict[str, Any]],
        precision: Precision = "fp32",
        batch_size: int = 1,
        share: bool = True,
        fpr: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        dataset = DATASETS.build({**dataloader["dataset"], "lazy_init": True})
        if not isinstance(dataset, CTLesionDataset):
            raise InputError(
                f"test_dataloader.dataset is {dataloader['dataset']['type']}; VolumeTestLoop needs one CTLesionDataset"
            )
        self.root = dataset.data_prefix["img_path"]
        annotations = load_volumes(dataset.ann_file)
        self.num_volumes = len(annotations.volumes)
        # Every process takes as many, as the collection of results needs; those that come twice count once.
        order = np.arange(-(-self.num_volumes // get_world_size()) * get_world_size()) % self.num_volumes
        mine = [annotations.volumes[index] for index in order[get_rank() :: get_world_size()]]
        super().__init__(runner, mine)
        self.evaluator = evaluator if isinstance(evaluator, Evaluator) else runner.build_evaluator(evaluator)
        self.evaluator.dataset_meta = {
            **dataset.metainfo,
            "dataset": annotations.dataset,
            "ann_file": str(dataset.ann_file),
        }
        model = unwrapped(runner.model)
        self.detector = VolumeDetector(
            runner.cfg,
            model,
            DetectionSettings.of_test(settings, rescored=fpr is not None),
            precision=precision,
            batch_size=batch_size,
            share=share,
            rescorer=None if fpr is None else rescorer_of_test(fpr, str(next(model.parameters()).device), precision),
        )

    def run(self) -> dict[str, float]:
        """Examine all volumes and return the metrics."""
        self.runner.call_hook("before_test")
        self.runner.call_hook("before_test_epoch")
        self.runner.model.eval()
        volumes = track(self.dataloader, "volumes") if is_main_process() else self.dataloader
        for volume in volumes:
            sample = {"volume_id": volume.id, "detections": self._detect(volume)}
            self.evaluator.process(data_samples=[sample], data_batch=None)
        metrics: dict[str, float] = self.evaluator.evaluate(self.num_volumes)
        self.runner.call_hook("after_test_epoch", metrics=metrics)
        self.runner.call_hook("after_test")
        return metrics

    def _detect(self, volume: VolumeRecord) -> Detections:
        source = open_source(volume, self.root)
        found = self.detector.detect_slices(source, volume.first_slice, volume.num_slices, f"volume {volume.id}")
        boxes = np.array([lesion.found.box for lesion in found], dtype=np.float64).reshape(-1, 6)
        in_volume = boxes - np.array([0, 0, volume.first_slice] * 2)  # the geometry counts from the first slice
        return Detections(
            boxes=boxes,
            world_lps=None if volume.affine_lps is None else boxes_to_world_lps(in_volume, volume.affine_lps),
            scores=np.array([lesion.found.score for lesion in found], dtype=np.float64),
            key_slices=np.array([lesion.found.key_slice for lesion in found], dtype=np.int64),
            frame=volume.frame,
            shape=(volume.shape_yx[1], volume.shape_yx[0], volume.num_slices),
            affine_lps=None if volume.affine_lps is None else np.array(volume.affine_lps),
            first_slice=volume.first_slice,
            spacing_mm=volume.spacing_mm if np.isfinite(volume.spacing_mm).all() else None,
            history=self.detector.rules_in_words(),
        )
