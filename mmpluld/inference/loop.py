"""Testing of a detector on whole volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner

from mmpluld.datasets import CTLesionDataset
from mmpluld.errors import InputError
from mmpluld.inference.detector import Precision, VolumeDetector
from mmpluld.io.slice_sources import open_source
from mmpluld.postprocess.grid import GridRule
from mmpluld.postprocess.linking import LinkOrder, ScoreRule
from mmpluld.progress import track
from mmpluld.registry import DATASETS, LOOPS
from mmpluld.structures import AnnotationSet, Detections, VolumeRecord

__all__ = ["VolumeTestLoop"]


@LOOPS.register_module()
class VolumeTestLoop(BaseLoop):
    """Runs :class:`VolumeDetector` over every volume of an annotation file, and has the 3D boxes evaluated.

    The annotation file, the data's folder and the pipeline are those of ``test_dataloader.dataset``, a
    ``CTLesionDataset``, whose sampling policy is of no account: every volume is examined whole, between its
    ``first_slice`` and the last of its ``num_slices``. 3D boxes come out in the annotation file's own voxels and slice
    numbers. The volumes are shared out among the processes. ``VolumeFROCMetric`` is the evaluator that goes with it.

    Args:
        runner: The runner.
        dataloader: ``test_dataloader`` of the config.
        evaluator: ``test_evaluator`` of the config.
        score_thr: See :class:`VolumeDetector`, as for all that follow. This default is MULAN's for tests.
        iou_thr: Least overlap of linked 2D boxes.
        max_gap: Grid slices that a chain may bridge.
        link_order: ``iou`` or ``score``, which pair of boxes is linked first.
        score_rule: ``max`` or ``mean`` of the 2D scores.
        grid_rule: ``covered`` or ``nearest``, which slices of the scan a run of grid slices stands for.
        min_slices: Fewest grid slices of a chain.
        max_boxes: Most 3D boxes of a volume.
        precision: ``fp32`` or ``bf16``.
        batch_size: Grid slices at once.
        share: Share features between stacks.

    Raises:
        InputError: If the dataset is not one ``CTLesionDataset``, a setting is not allowed, or a volume cannot be read.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict[str, Any],
        evaluator: Evaluator | dict[str, Any] | list[dict[str, Any]],
        score_thr: float = 0.05,
        iou_thr: float = 0.5,
        max_gap: int = 0,
        link_order: LinkOrder = "iou",
        score_rule: ScoreRule = "max",
        grid_rule: GridRule = "covered",
        min_slices: int = 1,
        max_boxes: int | None = None,
        precision: Precision = "fp32",
        batch_size: int = 1,
        share: bool = True,
    ) -> None:
        dataset = DATASETS.build({**dataloader["dataset"], "lazy_init": True})
        if not isinstance(dataset, CTLesionDataset):
            raise InputError(
                f"test_dataloader.dataset is {dataloader['dataset']['type']}; VolumeTestLoop needs one CTLesionDataset"
            )
        self.root = dataset.data_prefix["img_path"]
        annotations = AnnotationSet.load(dataset.ann_file)
        if not annotations.volumes:
            raise InputError(f"{dataset.ann_file}: no volumes to test; give a file with volumes")
        unknown = [volume.id for volume in annotations.volumes if not volume.spacing_mm[0] > 0]
        if unknown:
            names = ", ".join(unknown[:3])
            raise InputError(
                f"{dataset.ann_file}: the slice interval of {len(unknown)} volumes is unknown ({names}); 3D detection "
                "needs it, mend spacing_mm or remove the volumes"
            )
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
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.detector = VolumeDetector(
            runner.cfg,
            model,
            precision=precision,
            score_thr=score_thr,
            iou_thr=iou_thr,
            max_gap=max_gap,
            link_order=link_order,
            score_rule=score_rule,
            grid_rule=grid_rule,
            min_slices=min_slices,
            max_boxes=max_boxes,
            batch_size=batch_size,
            share=share,
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
        return Detections(
            boxes=np.array([lesion.found.box for lesion in found], dtype=np.float64).reshape(-1, 6),
            scores=np.array([lesion.found.score for lesion in found], dtype=np.float64),
            key_slices=np.array([lesion.found.key_slice for lesion in found], dtype=np.int64),
        )
