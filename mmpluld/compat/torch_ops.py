"""Plain torch versions of mmcv's compiled operators, with the calling convention of ``mmcv._ext``.

They follow the semantics of mmcv 2.1.0's CPU kernels and run on any device. The functions named ``*_forward``
and ``*_backward`` write into the tensors that mmcv's Python wrappers allocate.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "nms",
    "nms_match",
    "roi_align_backward",
    "roi_align_forward",
    "sigmoid_focal_loss_backward",
    "sigmoid_focal_loss_forward",
    "softnms",
]

NMS_BLOCK = 128  # boxes decided together; more would compare pairs that an earlier block already settles
ROI_SAMPLES_PER_CHUNK = 1 << 20  # bounds the memory of adaptive sampling on large regions


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


# -------------------------------------------------------------------------------------------------------- NMS
def _pairwise_iou(a: Tensor, b: Tensor, offset: int) -> Tensor:
    """IoU of two sets of boxes given as rows (x1, y1, x2, y2, area) of (5, N) and (5, M) tensors -> (N, M)."""
    a = a.unsqueeze(2)
    b = b.unsqueeze(1)
    width = torch.minimum(a[2], b[2]).sub_(torch.maximum(a[0], b[0]))
    height = torch.minimum(a[3], b[3]).sub_(torch.maximum(a[1], b[1]))
    if offset:
        width.add_(offset)
        height.add_(offset)
    intersection = width.clamp_(min=0).mul_(height.clamp_(min=0))
    union = (a[4] + b[4]).sub_(intersection)
    return intersection.div_(union)


def _with_area(boxes: Tensor, offset: int) -> Tensor:
    x1, y1, x2, y2 = _at_least_float32(boxes).unbind(1)
    return torch.stack([x1, y1, x2, y2, (x2 - x1 + offset) * (y2 - y1 + offset)])


def _keep_within(suppresses: Tensor) -> Tensor:
    """Greedy choice among boxes sorted by score; ``suppresses[i, j]`` says that i removes the lower-ranked j."""
    suppresses = suppresses.triu(diagonal=1)
    keep = torch.ones(len(suppresses), dtype=torch.bool, device=suppresses.device)
    # Each pass settles at least one more link of every chain of suppressions, so the loop ends at the greedy
    # answer.
    while True:
        updated = ~(suppresses & keep.unsqueeze(1)).any(dim=0)
        if torch.equal(updated, keep):
            return keep
        keep = updated


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices (int64) of the boxes that survive greedy suppression at IoU > ``iou_threshold``, best score
    first.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: Largest IoU, 0 to 1, with a better box that survives.
        offset: 0, or 1 for boxes with inclusive far edges.
    """
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    order = scores.sort(descending=True, stable=True).indices
    rows = _with_area(boxes, offset)[:, order]
    kept = []
    while order.numel():
        block, rest = rows[:, :NMS_BLOCK], rows[:, NMS_BLOCK:]
        keep = _keep_within(_pairwise_iou(block, block, offset) > iou_threshold)
        kept.append(order[:NMS_BLOCK][keep])
        order = order[NMS_BLOCK:]
        if not order.numel():
            break
        alive = ~(_pairwise_iou(block[:, keep], rest, offset) > iou_threshold).any(dim=0)
        order, rows = order[alive], rest[:, alive]
    return torch.cat(kept)


@torch.no_grad()
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft NMS; fills ``dets`` (N, 5) with the K surviving boxes and decayed scores, returns their K indices.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        dets: (N, 5) to be filled: x1, y1, x2, y2, score of the K survivors, the best first.
        iou_threshold: IoU, 0 to 1, with a better box from which methods 0 and 1 act.
        sigma: Width of the decay of method 2, above 0.
        min_score: Boxes whose score has decayed below it do not survive.
        method: 0 removes a box at IoU >= ``iou_threshold``, 1 multiplies its score by 1 - IoU there, 2
            multiplies by exp(-IoU^2 / sigma) everywhere.
        offset: 0, or 1 for boxes with inclusive far edges.
    """
    rows = _with_area(boxes, offset)
    alive = torch.arange(len(boxes), device=boxes.device)
    decayed = _at_least_float32(scores).clone()
    kept: list[Tensor] = []
    while alive.numel():
        best = int(decayed[alive].argmax())
        index = alive[best]
        dets[len(kept), :4] = boxes[index].to(dets.dtype)
        dets[len(kept), 4] = decayed[index].to(dets.dtype)
        kept.append(index)
        alive = torch.cat([alive[:best], alive[best + 1 :]])
        iou = _pairwise_iou(rows[:, index, None], rows[:, alive], offset)[0]
        if method == 2:
            factor = torch.exp(-(iou * iou) / sigma)
        else:
            overlapping = 1 - iou if method == 1 else torch.zeros_like(iou)
            factor = torch.where(iou >= iou_threshold, overlapping, torch.ones_like(iou))
        decayed[alive] *= factor
        alive = alive[~(decayed[alive] < min_score)]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.long, device=boxes.device)


@torch.no_grad()
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of indices: each survivor of NMS at IoU >= ``iou_threshold`` followed by the boxes it removed.

    Args:
        dets: (N, 5) as x1, y1, x2, y2, score.
        iou_threshold: IoU, 0 to 1, with a survivor from which a box is removed.
    """
    order = dets[:, 4].sort(descending=True, stable=True).indices
    rows = _with_area(dets[:, :4], 0)[:, order]
    groups = []
    while order.numel():
        matched = (_pairwise_iou(rows[:, :1], rows, 0) >= iou_threshold)[0]
        matched[0] = True
        groups.append(order[matched].tolist())
        order, rows = order[~matched], rows[:, ~matched]
    return groups


# --------------------------------------------------------------------------------------------------- RoIAlign
def _corners(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lower and upper pixel of each sample position on one axis, weight of the upper one, and who lies inside."""
    inside = (position >= -1) & (position <= size)
    position = torch.where(inside, position, torch.zeros_like(position)).clamp(min=0, max=size - 1)
    low = position.long()
    high = (low + 1).clamp(max=size - 1)
    return low, high, position - low, inside


def _roi_samples(
    rois: Tensor,
    map_shape: tuple[int, int],
    bins: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The bilinear samples of every bin: table row (S, 4), weight (S, 4), bin (S,), samples per bin (R * bins,)."""
    height, width = map_shape
    bins_y, bins_x = bins
    device = rois.device
    shift = 0.5 if aligned else 0.0
    start = rois[:, 1:3] * scale - shift  # x, y
    extent = rois[:, 3:5] * scale - shift - start
    if not aligned:
        extent = extent.clamp(min=1)
    bin_size = extent / extent.new_tensor([bins_x, bins_y])
    if sampling_ratio > 0:
        grid = torch.full((len(rois), 2), sampling_ratio, dtype=torch.long, device=device)
    else:
        grid = bin_size.nan_to_num().ceil().clamp(min=0).long()
    per_bin = grid[:, 0] * grid[:, 1]
    per_roi = per_bin * (bins_y * bins_x)
    roi = torch.repeat_interleave(torch.arange(len(rois), device=device), per_roi)
    local = torch.arange(len(roi), device=device) - (per_roi.cumsum(0) - per_roi)[roi]
    grid_x, grid_y = grid[roi].unbind(1)
    bin_index = local // per_bin[roi]
    within = local - bin_index * per_bin[roi]
    step_y = within // grid_x
    step_x = within - step_y * grid_x
    row, column = bin_index // bins_x, bin_index % bins_x
    size_x, size_y = bin_size[roi].unbind(1)
    start_x, start_y = start[roi].unbind(1)
    y = start_y + row * size_y + (step_y + 0.5) * size_y / grid_y
    x = start_x + column * size_x + (step_x + 0.5) * size_x / grid_x
    y_low, y_high, high_y, inside_y = _corners(y, height)
    x_low, x_high, high_x, inside_x = _corners(x, width)
    base = rois[:, 0].long()[roi] * (height * width)
    upper, lower = base + y_low * width, base + y_high * width
    index = torch.stack([upper + x_low, upper + x_high, lower + x_low, lower + x_high], dim=1)
    low_y, low_x = 1 - high_y, 1 - high_x
    weight = torch.stack([low_y * low_x, low_y * high_x, high_y * low_x, high_y * high_x], dim=1)
    weight = weight * ((inside_y & inside_x) / per_bin[roi]).unsqueeze(1)
    counts = per_bin.repeat_interleave(bins_y * bins_x)
    return index, weight, roi * (bins_y * bins_x) + bin_index, counts


def _roi_chunks(rois: Tensor, bins: int, scale: float, sampling_ratio: int) -> list[tuple[int, int]]:
    """Ranges of regions whose samples fit in memory together."""
    if sampling_ratio > 0:
        step = max(1, ROI_SAMPLES_PER_CHUNK // (bins * sampling_ratio**2))
    else:
        extent = ((rois[:, 3:5] - rois[:, 1:3]) * scale).nan_to_num().clamp(min=1)
        largest = float((extent + bins**0.5).prod(dim=1).max()) * 4
        step = max(1, int(ROI_SAMPLES_PER_CHUNK // largest))
    return [(begin, min(begin + step, len(rois))) for begin in range(0, len(rois), step)]


def _roi_sample_chunks(
    rois: Tensor,
    map_shape: tuple[int, int],
    bins: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Iterator[tuple[int, int, tuple[Tensor, Tensor, Tensor, Tensor]]]:
    """First region, end of the regions and their samples, a chunk at a time."""
    rois = _at_least_float32(rois)
    for begin, end in _roi_chunks(rois, bins[0] * bins[1], scale, sampling_ratio):
        yield begin, end, _roi_samples(rois[begin:end], map_shape, bins, scale, sampling_ratio, aligned)


def _check_pool_mode(pool_mode: int) -> None:
    if pool_mode != 1:
        raise RuntimeError("RoIAlign with pool_mode='max' needs compiled mmcv; use pool_mode='avg'")


@torch.no_grad()
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average RoIAlign of ``input`` (N, C, H, W) at ``rois`` (R, 5) into ``output`` (R, C, aligned_height, width)."""
    _check_pool_mode(pool_mode)
    if output.numel() == 0:
        return
    channels, height, width = input.shape[1:]
    bins = (aligned_height, aligned_width)
    bins_per_roi = aligned_height * aligned_width
    # Contiguous also where one image makes the reshape a view: embedding_bag takes many times as long on strided rows.
    table = _at_least_float32(input.permute(0, 2, 3, 1).reshape(-1, channels)).contiguous()
    for begin, end, (index, weight, _, counts) in _roi_sample_chunks(
        rois, (height, width), bins, spatial_scale, sampling_ratio, aligned
    ):
        offsets = (counts.cumsum(0) - counts) * 4
        pooled = F.embedding_bag(
            index.view(-1),
            table,
            offsets,
            mode="sum",
            per_sample_weights=weight.view(-1).to(table.dtype),
        )
        pooled = pooled.view(end - begin, bins_per_roi, channels).transpose(1, 2)
        output[begin:end].view(end - begin, channels, bins_per_roi).copy_(pooled)


@torch.no_grad()
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of average RoIAlign with respect to its input to ``grad_input`` (N, C, H, W)."""
    _check_pool_mode(pool_mode)
    if grad_output.numel() == 0:
        return
    images, channels, height, width = grad_input.shape
    bins = (aligned_height, aligned_width)
    bins_per_roi = aligned_height * aligned_width
    for begin, end, (index, weight, bin_index, _) in _roi_sample_chunks(
        rois, (height, width), bins, spatial_scale, sampling_ratio, aligned
    ):
        table = grad_output[begin:end].reshape(end - begin, channels, bins_per_roi)
        table = _at_least_float32(table).transpose(1, 2).reshape(-1, channels)
        # One bag per pixel in place of a scattered addition: no write conflicts, hence fast and repeatable.
        pixel, order = index.view(-1).sort(stable=True)
        counts = torch.bincount(pixel, minlength=images * height * width)
        summed = F.embedding_bag(
            (bin_index.repeat_interleave(4))[order],
            table,
            counts.cumsum(0) - counts,
            mode="sum",
            per_sample_weights=weight.view(-1)[order].to(table.dtype),
        )
        grad_input += summed.view(images, height, width, channels).permute(0, 3, 1, 2).to(grad_input.dtype)


# ----------------------------------------------------------------------------------------- sigmoid focal loss
def _focal_terms(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Per element whether it is a positive, and its class-balance factor."""
    classes = torch.arange(input.shape[1], device=input.device)
    positive = target.view(-1, 1) == classes
    factor = torch.where(positive, alpha, 1 - alpha).to(input.dtype)
    if weight.numel():
        factor = factor * weight[classes]
    return positive, factor


@torch.no_grad()
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the elementwise focal loss of logits ``input`` (N, C) with labels ``target`` (N,) into ``output``."""
    logits = _at_least_float32(input)
    positive, factor = _focal_terms(logits, target, weight, alpha)
    signed = torch.where(positive, logits, -logits)
    output.copy_(factor * torch.sigmoid(-signed).pow(gamma) * F.softplus(-signed))


@torch.no_grad()
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of the elementwise focal loss with respect to the logits into ``grad_input`` (N, C)."""
    logits = _at_least_float32(input)
    positive, factor = _focal_terms(logits, target, weight, alpha)
    signed = torch.where(positive, logits, -logits)
    wrong = torch.sigmoid(-signed)
    slope = wrong.pow(gamma) * (gamma * (1 - wrong) * F.softplus(-signed) + wrong)
    grad_input.copy_(factor * torch.where(positive, -slope, slope))
