"""Anchor-free proposal head of LENS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import AnchorFreeHead
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2distance
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmpluld.errors import InputError, did_you_mean
from mmpluld.models.cpu import BEST_CELLS, on_cpu
from mmpluld.models.dense_heads.cells import cells_in_boxes, ignored_cells
from mmpluld.models.normalizers import count_per_process
from mmpluld.registry import MODELS

__all__ = ["AFPHead"]

_CHOICES = {"normalizer": ("positives", "lesions", "images"), "shared_cell": ("smallest", "nearest")}


@MODELS.register_module()
class AFPHead(AnchorFreeHead):
    """Anchor-free proposals: every cell gives the probability to be a lesion's centre, and its distances to the sides.

    Cells in the central part of a lesion (``pos_scale`` of its sides) are positives, those around them up to
    ``ignore_scale`` are left out of the loss, all others are negatives, also in the lesion's outer part. An uncertain
    lesion (``ignored_instances``) has no positives: all of its part up to ``ignore_scale`` is left out, also in images
    without ground truth; a positive of a certain lesion stays one there.

    Two branches, each of a 3x3 convolution, ReLU and a 1x1 convolution, on one map. ``loss_cls`` is Eq. 1,
    ``loss_bbox`` Eq. 2 with its weight lambda_1; counts that they are divided by are means over the processes.

    Args:
        in_channels: Channels of the feature map.
        num_classes: Classes, without background.
        feat_channels: Width of the hidden layers. The paper leaves it open; 256 fits its growth of the model with the
            number of heads.
        strides: Stride of the map, a list of one.
        pos_scale: r_c of the paper, in (0, ignore_scale].
        ignore_scale: r_i of the paper, at most 1.
        normalizer: What ``loss_cls`` is divided by, at least 1, which the paper leaves open: the batch's ``positives``
            as in MULAN's focal loss, its ``lesions``, or its ``images``. ``loss_bbox`` is divided by the positives.
        distance_unit: Pixels per unit in which the network predicts distances and ``loss_bbox`` compares them; open in
            the paper, too. None is the stride.
        nearest_cell: Give a lesion whose central part lies between cell centres the cell of its centre, which the paper
            does not speak of: at stride 4 that may be any lesion below 20 px. Without, it may have no positive.
        shared_cell: Whose a cell in the central parts of several lesions is, open in the paper: that of the
            ``smallest``, or of the one with the ``nearest`` centre.
        loss_cls: Any sigmoid classification loss, on logits (N, C), or ``PartialLabelLoss`` around one.
        loss_bbox: Loss on distances (N, 4), a sum over the sides.
        init_cfg: MMEngine initialisation. In the default, cells start as a lesion's centre with probability 0.01, and
            boxes with sides of 8 strides: from nothing the second stage would have no proposals to learn from.
        **kwargs: As for mmdet's ``AnchorFreeHead``.

    Raises:
        InputError: If there is not one stride, or a setting is not allowed.

    Source: "Learning from Multiple Datasets with Heterogeneous and Partial Labels for Universal Lesion Detection in
    CT", 2020, Sec. IV-B, Eq. 1 and 2.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int = 1,
        feat_channels: int = 256,
        strides: Sequence[int] = (4,),
        pos_scale: float = 0.2,
        ignore_scale: float = 0.5,
        normalizer: str = "positives",
        distance_unit: float | None = None,
        nearest_cell: bool = True,
        shared_cell: str = "smallest",
        loss_cls: dict = {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.5},  # noqa: B006
        loss_bbox: dict = {"type": "L1Loss", "loss_weight": 0.1},  # noqa: B006
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        _check_settings(strides, pos_scale, ignore_scale, distance_unit, normalizer=normalizer, shared_cell=shared_cell)
        unit = float(strides[0] if distance_unit is None else distance_unit)
        if init_cfg is None:
            outputs = [
                {"type": "Normal", "name": "conv_cls", "std": 0.01, "bias_prob": 0.01},
                {"type": "Normal", "name": "conv_reg", "std": 0.01, "bias": 4.0 * strides[0] / unit},
            ]
            init_cfg = {"type": "Normal", "layer": "Conv2d", "std": 0.01, "override": outputs}
        super().__init__(
            num_classes,
            in_channels,
            feat_channels=feat_channels,
            stacked_convs=1,
            strides=strides,
            loss_cls=loss_cls,
            loss_bbox=loss_bbox,
            init_cfg=init_cfg,
            **kwargs,
        )
        self.pos_scale = pos_scale
        self.ignore_scale = ignore_scale
        self.normalizer = normalizer
        self.pixels_per_unit = unit
        self.nearest_cell = nearest_cell
        self.shared_cell = shared_cell

    def _init_predictor(self) -> None:
        self.conv_cls = nn.Conv2d(self.feat_channels, self.cls_out_channels, 1)
        self.conv_reg = nn.Conv2d(self.feat_channels, 4, 1)

    def forward_single(self, x: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, C, H, W) and distances (B, 4, H, W) in pixels, left, top, right, bottom; features of both."""
        cls_score, bbox_pred, cls_feat, reg_feat = super().forward_single(x)
        return cls_score, bbox_pred.float() * self.pixels_per_unit, cls_feat, reg_feat

    @on_cpu(BEST_CELLS)
    def predict(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList, rescale: bool = False
    ) -> list[InstanceData]:
        """Proposals of each image, best score first; in pixels of the original image if ``rescale``."""
        proposals: list[InstanceData] = super().predict(x, batch_data_samples, rescale=rescale)
        return proposals

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> dict[str, Tensor]:
        """Centre and size loss of a batch, from what ``forward`` returns."""
        (cls_score,), (bbox_pred,) = cls_scores, bbox_preds
        labels, weights, distances = self.get_targets(cls_score, batch_gt_instances, batch_gt_instances_ignore)
        positive = labels < self.num_classes
        count = count_per_process(positive.sum(), cls_score)
        divisor = count
        if self.normalizer != "positives":
            images = self.normalizer == "images"
            own = len(batch_gt_instances) if images else sum(len(gt) for gt in batch_gt_instances)
            divisor = count_per_process(own, cls_score)
        unit = self.pixels_per_unit
        logits = cls_score.permute(0, 2, 3, 1).reshape(-1, self.cls_out_channels)
        predicted = bbox_pred.permute(0, 2, 3, 1)[positive.view(len(cls_score), *cls_score.shape[2:])]
        return {
            "loss_cls": self.loss_cls(logits, labels, weights, avg_factor=divisor),
            # Without positives the sum over an empty selection: zero that still reaches the parameters.
            "loss_bbox": self.loss_bbox(predicted / unit, distances / unit, avg_factor=count)
            if len(predicted)
            else predicted.sum(),
        }

    def get_targets(
        self,
        cls_score: Tensor,
        batch_gt_instances: Sequence[InstanceData],
        batch_gt_instances_ignore: Sequence[InstanceData | None] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Targets of all cells of a batch.

        Args:
            cls_score: Logits (B, C, H, W); only their shape, type and device count.
            batch_gt_instances: ``bboxes`` (K, 4) in pixels and ``labels`` (K,) of each image.
            batch_gt_instances_ignore: Uncertain lesions of each image.

        Returns:
            Labels (B * H * W,), the number of classes for background; weights (B * H * W,) in the classification loss,
            0 or 1; distances (P, 4) of the positives to the sides of their box in pixels, in the order of the labels.
        """
        size, stride = cls_score.shape[2:], self.strides[0]
        left_out = ignored_cells(batch_gt_instances_ignore, self.ignore_scale, size, stride, cls_score)
        points = self.prior_generator.grid_priors([size], device=cls_score.device)[0].view(*size, 2)
        labels, distances = [], []
        for i, gt in enumerate(batch_gt_instances):
            boxes = gt.bboxes
            centre = cells_in_boxes(boxes, self.pos_scale, size, stride, self.nearest_cell)
            left_out[i] |= cells_in_boxes(boxes, self.ignore_scale, size, stride).any(0)
            owner = _owner(centre, self._ranks(boxes, points))
            positive = owner >= 0
            # -1, no box, reads the background class appended to the labels.
            labels.append(torch.cat([gt.labels, gt.labels.new_tensor([self.num_classes])])[owner].flatten())
            distances.append(bbox2distance(points[positive], boxes[owner[positive]]))
        flat_labels = torch.cat(labels)
        weights = ((flat_labels < self.num_classes) | ~left_out.flatten()).to(cls_score.dtype)
        return flat_labels, weights, torch.cat(distances)

    def _ranks(self, boxes: Tensor, points: Tensor) -> Tensor:
        """What decides a shared cell, the lowest wins: (K, H, W) for boxes (K, 4) and cell centres (H, W, 2)."""
        if self.shared_cell == "smallest":
            areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
            return areas[:, None, None].expand(-1, *points.shape[:2])
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        return (points - centres[:, None, None]).square().sum(-1)


def _owner(cells: Tensor, ranks: Tensor) -> Tensor:
    """Index (H, W) of the box with the lowest of ``ranks`` (K, H, W) that has a cell, by ``cells``; -1 for none."""
    if not len(cells):
        return torch.full(cells.shape[1:], -1, dtype=torch.long, device=cells.device)
    lowest, owner = ranks.masked_fill(~cells, torch.inf).min(0)
    return owner.masked_fill(lowest == torch.inf, -1)


def _check_settings(
    strides: Sequence[int], pos_scale: float, ignore_scale: float, distance_unit: float | None, **choices: str
) -> None:
    if len(strides) != 1:
        raise InputError(f"strides: {list(strides)} are {len(strides)}; the head works on one map, e.g. [4]")
    if not 0 < pos_scale <= ignore_scale <= 1:
        raise InputError(
            f"pos_scale {pos_scale}, ignore_scale {ignore_scale}: need 0 < pos_scale <= ignore_scale <= 1; "
            "the paper has 0.2 and 0.5"
        )
    if distance_unit is not None and not distance_unit > 0:
        raise InputError(f"distance_unit: {distance_unit} is no positive number of pixels; None is the stride")
    for name, value in choices.items():
        if value not in _CHOICES[name]:
            hint = did_you_mean(value, _CHOICES[name])
            raise InputError(f"{name}: {value!r} is not one of {', '.join(_CHOICES[name])}{hint}")
