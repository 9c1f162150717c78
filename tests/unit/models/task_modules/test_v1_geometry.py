"""Boxes of MMDetection 1.x against its formulas, written down for inclusive corners as they were published."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from mmpluld.models.task_modules import V1AnchorGenerator, V1DeltaXYWHBBoxCoder  # first: it makes mmdet importable

from mmcv.ops import nms  # isort: skip
from mmdet.models.task_modules.assigners import MaxIoUAssigner  # isort: skip
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder  # isort: skip
from mmdet.models.task_modules.prior_generators import anchor_inside_flags  # isort: skip

FAR = np.array([0, 0, 1, 1])  # inclusive corners plus this are edges


def generator() -> V1AnchorGenerator:
    return V1AnchorGenerator(strides=[4], base_sizes=[4], scales=[4, 6, 8, 12, 24, 48], ratios=[0.5, 1.0, 2.0])


class TestAnchors:
    def test_published_corners(self) -> None:
        base = generator().base_anchors[0].numpy() - FAR
        halves = base[:, 2:].astype(int).tolist()
        square = [[side, side] for side in (8, 12, 16, 24, 48, 96)]
        wide = [[11, 5], [16, 8], [22, 11], [33, 16], [67, 33], [135, 67]]
        assert halves == wide + square + [half[::-1] for half in wide]
        np.testing.assert_array_equal(base[:, :2], -base[:, 2:])

    def test_small_map_in_order(self, published: SimpleNamespace) -> None:
        (anchors,) = generator().grid_priors([(3, 2)], device="cpu")
        np.testing.assert_array_equal(anchors.numpy() - FAR, published.anchors(3, 2))

    def test_empty_map(self) -> None:
        (anchors,) = generator().grid_priors([(0, 5)], device="cpu")
        assert anchors.shape == (0, 4)


BOXES = st.lists(
    st.tuples(st.floats(0, 60), st.floats(0, 60), st.floats(0, 40), st.floats(0, 40)), min_size=1, max_size=5
).map(lambda rows: np.array([[x, y, x + w, y + h] for x, y, w, h in rows]))


class TestCoder:
    def test_hand_computed(self) -> None:
        coder = V1DeltaXYWHBBoxCoder()
        # Inclusive (10, 10, 19, 19), 10 wide; moved by half its width and doubled in height.
        boxes = torch.tensor([[10.0, 10.0, 20.0, 20.0]])
        deltas = torch.tensor([[0.5, 0.0, 0.0, np.log(2.0)]], dtype=torch.float32)
        inclusive = coder.decode(boxes, deltas).numpy() - FAR
        np.testing.assert_allclose(inclusive, [[15, 5, 24, 24]], atol=1e-5)

    @settings(max_examples=30)
    @given(BOXES, st.integers(0, 1000))
    def test_encoding_and_decoding_of_the_published_code(
        self, published: SimpleNamespace, boxes: np.ndarray, seed: int
    ) -> None:
        random = np.random.default_rng(seed)
        coder = V1DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
        stds = np.array([0.1, 0.1, 0.2, 0.2])
        truth = boxes + random.uniform(0, 3, boxes.shape) * [-1, -1, 1, 1]
        edges, true_edges = torch.tensor(boxes + FAR), torch.tensor(truth + FAR)
        encoded = coder.encode(edges, true_edges).numpy()
        np.testing.assert_allclose(encoded, published.encode(boxes, truth) / stds, atol=1e-3)
        deltas = random.normal(0, 8, boxes.shape)
        decoded = coder.decode(edges, torch.tensor(deltas), max_shape=(64, 80)).numpy() - FAR
        np.testing.assert_allclose(decoded, published.decode(boxes, deltas * stds, 64, 80), atol=1e-3)

    def test_box_beyond_the_border_keeps_a_pixel(self) -> None:
        """The stock coder leaves it without area, and the RPN then drops it."""
        boxes, deltas = torch.tensor([[60.0, 10.0, 70.0, 20.0]]), torch.tensor([[3.0, 0.0, 0.0, 0.0]])
        clipped = V1DeltaXYWHBBoxCoder().decode(boxes, deltas, max_shape=(64, 64))
        assert clipped.tolist() == [[63.0, 10.0, 64.0, 20.0]]
        assert DeltaXYWHBBoxCoder().decode(boxes, deltas, max_shape=(64, 64)).tolist() == [[64.0, 10.0, 64.0, 20.0]]

    def test_several_classes_and_none(self) -> None:
        coder = V1DeltaXYWHBBoxCoder()
        boxes = torch.tensor([[10.0, 10.0, 20.0, 20.0]])
        both = coder.decode(boxes, torch.tensor([[0.5, 0, 0, 0, 9, 9, 0, 0]]), max_shape=(64, 64))
        assert both.tolist() == [[15.0, 10.0, 25.0, 20.0, 63.0, 63.0, 64.0, 64.0]]
        assert coder.decode(torch.zeros(0, 4), torch.zeros(0, 8), max_shape=(64, 64)).shape == (0, 8)


class TestOverlap:
    """Boxes as edges need no other overlap: stock NMS and assigner see what the published +1 formulas see."""

    def test_suppression_that_needs_the_last_pixel(self, published: SimpleNamespace) -> None:
        one, other = np.array([0.0, 0.0, 3.0, 3.0]), np.array([0.0, 0.0, 3.0, 2.0])
        assert published.iou(one, other[None])[0] == 0.75  # 12 of 16 pixels; 6 / 9 when the last pixel is forgotten
        inclusive = torch.tensor(np.array([one, other]), dtype=torch.float32)
        scores = torch.tensor([0.9, 0.8])
        assert nms(inclusive, scores, 0.7, offset=0)[1].tolist() == [0, 1]
        edges = inclusive + torch.tensor(FAR)
        assert nms(edges, scores, 0.7, offset=0)[1].tolist() == [0]
        assert nms(edges, scores, 0.76, offset=0)[1].tolist() == [0, 1]

    @settings(max_examples=30)
    @given(BOXES, BOXES)
    def test_assigner_sees_published_overlaps(
        self, published: SimpleNamespace, boxes: np.ndarray, truth: np.ndarray
    ) -> None:
        assigner = MaxIoUAssigner(pos_iou_thr=0.7, neg_iou_thr=0.3)
        found = assigner.assign(
            InstanceData(priors=torch.tensor(boxes + FAR)),
            InstanceData(bboxes=torch.tensor(truth + FAR), labels=torch.zeros(len(truth), dtype=torch.long)),
        )
        best = [published.iou(box, truth).max() for box in boxes]
        np.testing.assert_allclose(found.max_overlaps.numpy(), best, atol=1e-9)


def test_published_border_rule_is_half_a_pixel_of_allowance() -> None:
    """Inclusive x2 < W is edge x2 <= W; anchors are whole-numbered, so half a pixel admits these and no others."""
    inclusive = np.array([[0, 0, 63, 63], [-1, 0, 63, 63], [0, 0, 64, 63], [0, 0, 63, 64]], dtype=float)
    published = (inclusive[:, :2] >= 0).all(1) & (inclusive[:, 2:] < 64).all(1)
    edges = torch.tensor(inclusive + FAR)
    ours = anchor_inside_flags(edges, torch.ones(4, dtype=torch.bool), (64, 64), allowed_border=0.5)
    assert ours.tolist() == published.tolist() == [True, False, False, False]


@pytest.mark.parametrize("kind", ["list", "tuple"])
def test_shape_of_the_image_in_either_form(kind: str) -> None:
    shape = [64, 80] if kind == "list" else (64, 80)
    boxes = V1DeltaXYWHBBoxCoder().decode(torch.tensor([[-9.0, -9.0, 99.0, 99.0]]), torch.zeros(1, 4), shape)
    assert boxes.tolist() == [[0.0, 0.0, 80.0, 64.0]]
