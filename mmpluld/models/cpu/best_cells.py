"""Proposals of ``AFPHead`` from the cells that can become some, instead of from all.

Suppression goes from the best score down, and only its first ``max_per_img`` boxes are wanted: cells after the last of
them have no effect. So distances are computed for the best cells, and for more while boxes lack, which spares nearly
half of the arithmetic; wide layers in single precision are computed by ``conv3x3``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.utils import filter_scores_and_topk
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.models.cpu.winograd import conv3x3

__all__ = ["can_stop_early", "propose_from_best_cells"]

_FIRST_CELLS = 4
"""Cells per proposal wanted that get distances at first; neighbouring cells tend to suppress each other."""
_WIDE = 128
"""Channels from which on the faster convolution is faster."""


def can_stop_early(head: Any, x: Sequence[Tensor]) -> bool:
    """Whether distances may be left out: evaluation, one class, plain layers, suppression that changes no score."""
    if head.training or torch.is_grad_enabled():
        return False
    plain = all(
        type(layer.conv) is nn.Conv2d and not layer.with_norm for layer in (head.cls_convs[0], head.reg_convs[0])
    )
    nms = head.test_cfg.get("nms") or {}
    sorts_only = nms.get("type", "nms") == "nms" and head.test_cfg.get("max_per_img", 0) > 0
    return bool(plain and head.use_sigmoid_cls and head.cls_out_channels == 1 and sorts_only)


def propose_from_best_cells(
    head: Any, x: Sequence[Tensor], batch_data_samples: SampleList, rescale: bool = False
) -> list[InstanceData]:
    """``AFPHead.predict``.

    Args:
        head: An ``AnchorFreeHead`` whose branches are a 3x3 convolution with activation and a 1x1 convolution;
            ``pixels_per_unit`` turns what it predicts into pixels.
        x: One map (B, C, H, W).
        batch_data_samples: Of each image.
        rescale: Give boxes in pixels of the original image.
    """
    (features,) = x
    logits = head.conv_cls(centre_hidden(head.cls_convs[0], features))
    return [
        _best_boxes(head, image, image_logits, sample.metainfo, rescale)
        for image, image_logits, sample in zip(features, logits, batch_data_samples, strict=True)
    ]


def centre_hidden(layer: Any, features: Tensor) -> Tensor:
    """The hidden layer (B, C, H, W) of the centre branch."""
    wide = min(layer.conv.weight.shape[:2]) >= _WIDE
    if not wide or layer.conv.bias is None or features.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return layer(features)
    return layer.activate(torch.stack([conv3x3(x, layer.conv.weight, layer.conv.bias) for x in features]))


def _best_boxes(head: Any, features: Tensor, logits: Tensor, meta: dict[str, Any], rescale: bool) -> InstanceData:
    """Proposals of one image from ``features`` (C, H, W) and ``logits`` (1, H, W)."""
    cfg = head.test_cfg
    # Half precision has so few values near 1 that most of the best would tie.
    scores, labels, cells, _ = filter_scores_and_topk(
        logits.float().sigmoid().view(-1, 1), cfg.get("score_thr", 0), cfg.get("nms_pre", -1)
    )
    points = head.prior_generator.grid_priors([logits.shape[1:]], device=logits.device)[0]
    # A row for each cell and one of zeros, the padding.
    table = features.new_zeros(points.shape[0] + 1, len(features))
    table[:-1] = features.flatten(1).t()
    boxes, count = points.new_empty(0, 4), _FIRST_CELLS * cfg.max_per_img
    while True:
        more = cells[len(boxes) : count]
        distances = distances_at(head, table, more, logits.shape[1:])
        boxes = torch.cat([boxes, head.bbox_coder.decode(points[more], distances, max_shape=meta["img_shape"])])
        candidates = InstanceData(bboxes=boxes, scores=scores[:count], labels=labels[:count])
        found = head._bbox_post_process(candidates, cfg, rescale, img_meta=meta)
        if count >= len(cells) or len(found) >= cfg.max_per_img:
            return found
        count *= 2


def distances_at(head: Any, table: Tensor, cells: Tensor, size: Sequence[int]) -> Tensor:
    """What the head's ``forward`` gives as distances at some cells, (N, 4) in pixels.

    Args:
        head: See ``propose_from_best_cells``.
        table: (H * W + 1, C), features of the cells and zeros.
        cells: (N,), numbers of the wanted ones.
        size: H and W.
    """
    height, width = size
    steps = torch.arange(-1, 2, device=cells.device)
    rows = (cells // width)[:, None, None] + steps[:, None]
    columns = (cells % width)[:, None, None] + steps
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    neighbours = (rows * width + columns).masked_fill(~inside, len(table) - 1)
    layer = head.reg_convs[0]
    patches = table[neighbours.flatten()].view(len(cells), 9 * table.shape[1])  # kernel place before channel
    hidden = F.linear(patches, layer.conv.weight.permute(0, 2, 3, 1).flatten(1), layer.conv.bias)
    distances = F.linear(layer.activate(hidden), head.conv_reg.weight.flatten(1), head.conv_reg.bias)
    return distances.float() * head.pixels_per_unit
