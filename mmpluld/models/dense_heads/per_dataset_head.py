"""One dense head per dataset on a shared feature map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.structures import SampleList
from mmengine.model import BaseModule, ModuleDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmpluld.errors import InputError, did_you_mean
from mmpluld.models.experts import check_datasets, dataset_of_batch, join_experts
from mmpluld.registry import MODELS

__all__ = ["PerDatasetHead"]

_TRAIN_PROPOSALS = ("all", "own")


@MODELS.register_module()
class PerDatasetHead(BaseModule):
    """A head of the same kind for each dataset: trained on its own dataset only, asked all together.

    It stands where one of the heads would: as ``rpn_head`` of a two-stage detector, or as ``bbox_head`` of a one-stage
    one. A batch comes from one dataset (``LesionSampler(batch_size=...)``); the head of that dataset alone has a loss
    and gradients. What the heads find is pooled: their own non-maximum suppression, then one over all, with the same
    settings (``nms`` and ``max_per_img``, which is the total). Found boxes carry ``expert``, the number of their head.
    With ``unfused`` of the test settings the second suppression removes none, see ``join_experts``.

    Args:
        datasets: Names of the datasets, one head each.
        head: Config of a head, any dense head of mmdet or of this package.
        train_proposals: Whose proposals a second stage gets in training: ``all`` heads', as in the test, or those of
            the batch's ``own`` dataset. The paper leaves it open.
        train_cfg, test_cfg, num_classes: Handed to every head; the detector sets them.
        init_cfg: MMEngine initialisation of the whole; each head has its own.

    Raises:
        InputError: If the names are unfit or ``train_proposals`` is unknown; in training, if a batch mixes datasets or
            is of one without a head.

    Source: "Learning from Multiple Datasets with Heterogeneous and Partial Labels for Universal Lesion Detection in
    CT", 2020, Sec. IV-B and IV-C.
    """

    def __init__(
        self,
        datasets: Sequence[str],
        head: dict,
        train_proposals: str = "all",
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        num_classes: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.datasets = check_datasets(datasets, "PerDatasetHead")
        if train_proposals not in _TRAIN_PROPOSALS:
            hint = did_you_mean(train_proposals, _TRAIN_PROPOSALS)
            raise InputError(f"train_proposals: {train_proposals!r} is not one of all, own{hint}")
        self.train_proposals = train_proposals
        self.test_cfg = test_cfg
        settings: dict[str, Any] = {"train_cfg": train_cfg, "test_cfg": test_cfg}
        if num_classes is not None:
            settings["num_classes"] = num_classes
        self.heads = ModuleDict({name: MODELS.build({**head, **settings}) for name in self.datasets})

    def forward(self, x: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """Outputs of all heads, in the order of the datasets."""
        return tuple(head(x) for head in self.heads.values())

    def loss(self, x: tuple[Tensor, ...], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of the head of the batch's dataset."""
        return self._own(batch_data_samples).loss(x, batch_data_samples)

    def loss_and_predict(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList, proposal_cfg: dict | None = None
    ) -> tuple[dict[str, Tensor], list[InstanceData]]:
        """Losses of the head of the batch's dataset, and proposals for a second stage (see ``train_proposals``)."""
        own = self._own(batch_data_samples)
        losses, found = own.loss_and_predict(x, batch_data_samples, proposal_cfg=proposal_cfg)
        if self.train_proposals == "own":
            return losses, found
        metas = [sample.metainfo for sample in batch_data_samples]
        groups = []
        for head in self.heads.values():
            if head is own:
                groups.append(found)
                continue
            with torch.no_grad(), _evaluating(head):
                groups.append(head.predict_by_feat(*head(x), batch_img_metas=metas, cfg=proposal_cfg))
        return losses, self._pool(groups, self.test_cfg if proposal_cfg is None else proposal_cfg)

    def predict(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList, rescale: bool = False
    ) -> list[InstanceData]:
        """What all heads find together; in pixels of the original image if ``rescale``."""
        groups = [head.predict(x, batch_data_samples, rescale=rescale) for head in self.heads.values()]
        return self._pool(groups, self.test_cfg)

    def _own(self, samples: SampleList) -> nn.Module:
        return self.heads[dataset_of_batch(samples, self.datasets, "PerDatasetHead")]

    @staticmethod
    def _pool(groups: list[list[InstanceData]], cfg: Any) -> list[InstanceData]:
        unfused = cfg.get("unfused", False)
        return [join_experts(found, cfg.nms, cfg.max_per_img, unfused=unfused) for found in zip(*groups, strict=True)]


@contextmanager
def _evaluating(head: nn.Module) -> Iterator[None]:
    """Evaluation mode, so that a norm of ``head`` does not take in statistics of another dataset."""
    training = head.training
    head.eval()
    try:
        yield
    finally:
        head.train(training)
