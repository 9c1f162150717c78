"""The pure-torch operators against mmcv's compiled ones where those are installed, else against plain loops."""

from __future__ import annotations

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmpluld.compat import torch_ops
from mmpluld.compat.ops import ops_in_use

COMPILED = ops_in_use() == "compiled"
if COMPILED:
    from mmcv import _ext


def random_boxes(count: int, seed: int, tie_scores: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 80
    size = torch.rand(count, 2, generator=generator) * 40 + 5
    scores = torch.rand(count, generator=generator)
    if tie_scores:
        scores = (scores * 4).round() / 4
    return torch.cat([corner, corner + size], dim=1), scores


def iou(a: list[float], b: list[float], offset: int) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union else math.nan


def reference_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    if COMPILED:
        return _ext.nms(boxes, scores, iou_threshold=iou_threshold, offset=offset)
    rows, kept = boxes.tolist(), []
    for index in sorted(range(len(rows)), key=lambda i: -scores[i]):
        if not any(iou(rows[index], rows[other], offset) > iou_threshold for other in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


class TestNMS:
    @pytest.mark.parametrize("offset", [0, 1])
    @pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
    @pytest.mark.parametrize("count", [1, 2, 127, 128, 129, 700])
    def test_equals_reference(self, count: int, threshold: float, offset: int) -> None:
        boxes, scores = random_boxes(count, seed=count)
        expected = reference_nms(boxes, scores, threshold, offset)
        assert torch.equal(torch_ops.nms(boxes, scores, threshold, offset), expected)

    def test_by_hand(self) -> None:
        boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30], [0, 0, 10, 9]])
        scores = torch.tensor([0.9, 0.8, 0.95, 0.7])
        assert torch_ops.nms(boxes, scores, 0.5, 0).tolist() == [2, 0, 1]  # IoU 0.5 is not above 0.5; 0.9 is
        assert torch_ops.nms(boxes, scores, 0.49, 0).tolist() == [2, 0]

    def test_offset_counts_the_last_pixel(self) -> None:
        boxes, scores = torch.tensor([[0.0, 0, 1, 1], [1, 0, 2, 1]]), torch.tensor([0.9, 0.8])
        assert torch_ops.nms(boxes, scores, 0.3, 0).tolist() == [0, 1]
        assert torch_ops.nms(boxes, scores, 0.3, 1).tolist() == [0]  # 2 of 6 pixels in common

    def test_empty_and_degenerate(self) -> None:
        assert torch_ops.nms(torch.empty(0, 4), torch.empty(0), 0.5, 0).shape == (0,)
        points = torch.ones(3, 4)
        assert torch_ops.nms(points, torch.tensor([0.1, 0.3, 0.2]), 0.5, 0).tolist() == [1, 2, 0]

    def test_half_precision_boxes(self) -> None:
        boxes, scores = random_boxes(50, seed=3)
        boxes = boxes.bfloat16()
        assert torch.equal(torch_ops.nms(boxes, scores, 0.5, 0), torch_ops.nms(boxes.float(), scores, 0.5, 0))

    @settings(max_examples=50)
    @given(st.integers(0, 300), st.integers(0, 10_000), st.sampled_from([0.2, 0.5, 0.8]), st.booleans())
    def test_survivors_do_not_overlap_and_explain_the_removed(
        self, count: int, seed: int, threshold: float, ties: bool
    ) -> None:
        boxes, scores = random_boxes(count, seed, ties)
        kept = torch_ops.nms(boxes, scores, threshold, 0)
        assert torch.equal(scores[kept], scores[kept].sort(descending=True).values)
        overlap = torch_ops._pairwise_iou(torch_ops._with_area(boxes, 0), torch_ops._with_area(boxes, 0), 0)
        among = overlap[kept][:, kept] - torch.eye(len(kept))
        assert not (among > threshold).any()
        removed = torch.ones(count, dtype=torch.bool)
        removed[kept] = False
        better = scores[kept][:, None] >= scores[None, removed]
        assert ((overlap[kept][:, removed] > threshold) & better).any(dim=0).all()

    def test_speed(self) -> None:
        boxes, scores = random_boxes(6000, seed=0)
        began = time.process_time()
        torch_ops.nms(boxes * 5, scores, 0.7, 0)
        assert time.process_time() - began < 3  # about 0.1 s; a loop over boxes takes minutes


class TestSoftNMS:
    @pytest.mark.parametrize("method", [0, 1, 2])
    @pytest.mark.parametrize("count", [1, 40])
    def test_equals_reference(self, method: int, count: int) -> None:
        boxes, scores = random_boxes(count, seed=method)
        dets = torch.zeros(count, 5)
        kept = torch_ops.softnms(boxes, scores, dets, 0.3, 0.5, 0.05, method, 0)
        dets = dets[: len(kept)]
        assert torch.equal(dets[:, :4], boxes[kept])
        if COMPILED:
            compiled = torch.zeros(count, 5)
            options = {"iou_threshold": 0.3, "sigma": 0.5, "min_score": 0.05, "method": method, "offset": 0}
            expected = _ext.softnms(boxes.clone(), scores.clone(), compiled, **options)
            assert torch.equal(kept, expected)
            torch.testing.assert_close(dets, compiled[: len(expected)])
        else:
            torch.testing.assert_close(dets[:, 4], self.decayed(boxes, scores, method))

    @staticmethod
    def decayed(boxes: Tensor, scores: Tensor, method: int) -> Tensor:
        rows, left, result = boxes.tolist(), dict(enumerate(scores.tolist())), []
        while left:
            best = max(left, key=left.__getitem__)
            result.append(left.pop(best))
            for other in list(left):
                overlap = iou(rows[best], rows[other], 0)
                if method == 2:
                    left[other] *= math.exp(-(overlap**2) / 0.5)
                elif overlap >= 0.3:
                    left[other] *= 1 - overlap if method == 1 else 0
                if left[other] < 0.05:
                    del left[other]
        return torch.tensor(result)

    def test_empty(self) -> None:
        assert len(torch_ops.softnms(torch.empty(0, 4), torch.empty(0), torch.empty(0, 5), 0.3, 0.5, 0.0, 1, 0)) == 0


class TestNMSMatch:
    def test_groups_are_a_partition_led_by_the_survivors(self) -> None:
        boxes, scores = random_boxes(120, seed=5)
        groups = torch_ops.nms_match(torch.cat([boxes, scores[:, None]], dim=1), 0.4)
        assert sorted(sum(groups, [])) == list(range(120))
        if COMPILED:
            assert groups == [list(g) for g in _ext.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.4)]
        else:
            assert [group[0] for group in groups] == reference_nms(boxes, scores, 0.4, 0).tolist()


def roi_align(feature: Tensor, rois: Tensor, ratio: int, aligned: bool, scale: float = 0.25, size: int = 7) -> Tensor:
    output = feature.new_zeros(len(rois), feature.shape[1], size, size)
    none = feature.new_zeros(0)
    torch_ops.roi_align_forward(feature, rois, output, none, none, size, size, scale, ratio, 1, aligned)
    return output


def roi_align_gradient(grad: Tensor, rois: Tensor, shape: torch.Size, ratio: int, aligned: bool) -> Tensor:
    result = torch.zeros(shape)
    none = grad.new_zeros(0)
    torch_ops.roi_align_backward(grad, rois, none, none, result, 7, 7, 0.25, ratio, 1, aligned)
    return result


def reference_roi_align(feature: Tensor, rois: Tensor, ratio: int, aligned: bool) -> Tensor:
    """Average of bilinear samples, written with the sampling operator of torch; differentiable."""
    _, channels, height, width = feature.shape
    pooled = []
    for image, *box in rois.tolist():
        x1, y1, x2, y2 = (v * 0.25 - (0.5 if aligned else 0) for v in box)
        w, h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1), max(y2 - y1, 1))
        nx, ny = (ratio, ratio) if ratio else (math.ceil(w / 7), math.ceil(h / 7))
        if nx * ny == 0:
            pooled.append(feature.new_zeros(channels, 7, 7))
            continue
        x = x1 + (torch.arange(7 * nx) + 0.5) * w / (7 * nx)
        y = y1 + (torch.arange(7 * ny) + 0.5) * h / (7 * ny)
        inside = ((y >= -1) & (y <= height))[:, None] & ((x >= -1) & (x <= width))[None]
        grid_y = y.clamp(0, height - 1) / (height - 1) * 2 - 1
        grid_x = x.clamp(0, width - 1) / (width - 1) * 2 - 1
        grid = torch.stack(torch.meshgrid(grid_y, grid_x, indexing="ij")[::-1], dim=-1)
        values = torch.nn.functional.grid_sample(feature[int(image)][None], grid[None], align_corners=True)[0]
        pooled.append((values * inside).view(channels, 7, ny, 7, nx).mean(dim=(2, 4)))
    return torch.stack(pooled)


@pytest.fixture
def rois() -> Tensor:
    """Regions inside, across every border, far outside, tiny, of zero size, and larger than the map."""
    return torch.tensor(
        [
            [0, 8.0, 8.0, 40.0, 60.0],
            [1, -20.0, -12.0, 30.0, 20.0],
            [1, 60.0, 70.0, 120.0, 110.0],
            [0, 300.0, 300.0, 350.0, 340.0],
            [0, 20.0, 20.0, 20.5, 20.5],
            [1, 33.0, 17.0, 33.0, 17.0],
            [0, -50.0, -60.0, 200.0, 220.0],
            [1, 0.0, 0.0, 96.0, 80.0],
        ]
    )


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
class TestRoIAlign:
    def test_equals_reference(self, rois: Tensor, ratio: int, aligned: bool) -> None:
        feature = torch.randn(2, 5, 20, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
        expected = reference_roi_align(feature, rois, ratio, aligned)
        grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
        (expected_grad,) = torch.autograd.grad(expected, feature, grad)
        actual = roi_align(feature.detach(), rois, ratio, aligned)
        actual_grad = roi_align_gradient(grad, rois, feature.shape, ratio, aligned)
        torch.testing.assert_close(actual, expected.detach(), rtol=1e-4, atol=2e-5)
        torch.testing.assert_close(actual_grad, expected_grad, rtol=1e-4, atol=2e-5)

    @pytest.mark.skipif(not COMPILED, reason="mmcv has no compiled operators here")
    def test_equals_compiled(self, rois: Tensor, ratio: int, aligned: bool) -> None:
        feature = torch.randn(2, 5, 20, 24, generator=torch.Generator().manual_seed(0))
        expected, none = torch.zeros(len(rois), 5, 7, 7), torch.zeros(0)
        options = {"aligned_height": 7, "aligned_width": 7, "spatial_scale": 0.25, "sampling_ratio": ratio}
        options |= {"pool_mode": 1, "aligned": aligned}
        _ext.roi_align_forward(feature, rois, expected, none, none, **options)
        torch.testing.assert_close(roi_align(feature, rois, ratio, aligned), expected, rtol=1e-5, atol=1e-6)
        grad, expected_grad = torch.randn(expected.shape), torch.zeros_like(feature)
        _ext.roi_align_backward(grad, rois, none, none, expected_grad, **options)
        actual_grad = roi_align_gradient(grad, rois, feature.shape, ratio, aligned)
        torch.testing.assert_close(actual_grad, expected_grad, rtol=1e-5, atol=1e-5)

    def test_chunks_do_not_change_the_result(
        self, rois: Tensor, ratio: int, aligned: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        feature = torch.randn(2, 3, 20, 24)
        whole = roi_align(feature, rois, ratio, aligned)
        whole_grad = roi_align_gradient(whole, rois, feature.shape, ratio, aligned)
        monkeypatch.setattr(torch_ops, "ROI_SAMPLES_PER_CHUNK", 1)
        assert torch.equal(roi_align(feature, rois, ratio, aligned), whole)
        split_grad = roi_align_gradient(whole, rois, feature.shape, ratio, aligned)
        # The sums run in another order, so float32 rounding scales with the largest sum.
        largest = float(whole_grad.abs().max())
        torch.testing.assert_close(split_grad, whole_grad, rtol=1e-5, atol=1e-6 * largest)


class TestRoIAlignEdges:
    def test_constant_map_gives_the_constant(self) -> None:
        feature = torch.full((1, 2, 16, 16), 3.0)
        pooled = roi_align(feature, torch.tensor([[0, 4.0, 4.0, 50.0, 60.0]]), 0, True)
        torch.testing.assert_close(pooled, torch.full((1, 2, 7, 7), 3.0))

    def test_ramp_by_hand(self) -> None:
        feature = torch.arange(16.0).expand(1, 1, 16, 16)  # the value at pixel i is i, its centre lies at i + 0.5
        pooled = roi_align(feature, torch.tensor([[0, 1.0, 2.0, 15.0, 9.0]]), 2, True, scale=1.0)
        torch.testing.assert_close(pooled[0, 0, 0], torch.arange(7) * 2 + 1.5)

    def test_no_regions(self) -> None:
        assert roi_align(torch.zeros(1, 4, 8, 8), torch.zeros(0, 5), 2, True).shape == (0, 4, 7, 7)

    def test_bfloat16_is_summed_in_float32(self, rois: Tensor) -> None:
        feature = torch.randn(2, 3, 20, 24).bfloat16()
        pooled = roi_align(feature, rois, 2, True)
        assert pooled.dtype == torch.bfloat16
        assert torch.equal(pooled, roi_align(feature.float(), rois, 2, True).bfloat16())

    def test_nan_region_yields_zeros(self) -> None:
        nan = torch.tensor([[0, math.nan, 0.0, 4.0, 4.0]])
        assert roi_align(torch.ones(1, 1, 8, 8), nan, 2, True).count_nonzero() == 0

    def test_max_pooling_is_refused(self) -> None:
        empty = torch.zeros(0)
        with pytest.raises(RuntimeError, match="pool_mode='max' needs compiled mmcv"):
            torch_ops.roi_align_forward(
                torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), empty, empty, empty, 7, 7, 1.0, 2, 0, True
            )

    def test_through_autograd_of_mmcv(self, rois: Tensor) -> None:
        from mmcv.ops import RoIAlign

        feature = torch.randn(2, 2, 20, 24, dtype=torch.double, requires_grad=True)
        layer = RoIAlign(3, spatial_scale=0.25, sampling_ratio=2)
        assert torch.autograd.gradcheck(lambda x: layer(x, rois[:3].double()), feature)


@pytest.mark.parametrize("class_weight", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_focal_loss_and_derivative(class_weight: Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 3, generator=generator, dtype=torch.double, requires_grad=True)
    target = torch.randint(0, 4, (50,), generator=generator)
    probability = logits.sigmoid()
    positive = torch.nn.functional.one_hot(target, 4)[:, :3]
    expected = -0.25 * positive * (1 - probability) ** 2 * probability.log()
    expected = expected - 0.75 * (1 - positive) * probability**2 * (1 - probability).log()
    if class_weight is not None:
        expected = expected * class_weight
    (expected_grad,) = torch.autograd.grad(expected.sum(), logits)
    weight = torch.empty(0) if class_weight is None else class_weight
    value, grad = torch.zeros_like(logits), torch.zeros_like(logits)
    torch_ops.sigmoid_focal_loss_forward(logits.detach(), target, weight, value, gamma=2.0, alpha=0.25)
    torch_ops.sigmoid_focal_loss_backward(logits.detach(), target, weight, grad, gamma=2.0, alpha=0.25)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(grad, expected_grad)
