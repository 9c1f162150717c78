"""Anchors against the shapes that the published code has."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.task_modules.prior_generators import anchor_inside_flags

from mmpluld.engine.config import load_config
from mmpluld.models.task_modules import RoundedRatioAnchorGenerator
from mmpluld.registry import TASK_UTILS


def test_published_shapes_and_centres() -> None:
    generator = RoundedRatioAnchorGenerator(
        strides=[4], base_sizes=[4], scales=[4, 6, 8, 12, 24], ratios=[0.5, 1.0, 2.0]
    )
    (anchors,) = generator.grid_priors([(2, 3)], device="cpu")
    anchors = anchors.view(6, 15, 4)
    sizes = (anchors[..., 2:] - anchors[..., :2]).int().tolist()
    flat = [[24, 12], [36, 18], [48, 24], [72, 36], [144, 72]]
    square = [[16, 16], [24, 24], [32, 32], [48, 48], [96, 96]]
    tall = [[height, width] for width, height in flat]
    assert sizes == [flat + square + tall] * 6
    inclusive_centres = (anchors[..., :2] + anchors[..., 2:] - 1) / 2
    cells = torch.tensor([[x, y] for y in (1.5, 5.5) for x in (1.5, 5.5, 9.5)])
    torch.testing.assert_close(inclusive_centres, cells[:, None].expand(6, 15, 2))


def described(ratio: float, size: float, column: int, row: int, stride: int = 4) -> list[float]:
    """An anchor as the published code describes it, last pixels inclusive; the far edge is one further."""
    last = (stride - 1) / 2  # the 4 x 4 window covers pixels 0 to 3
    width = round((stride * stride / ratio) ** 0.5)
    height = round(width * ratio)
    half_width, half_height = width * size / stride / 2 - 0.5, height * size / stride / 2 - 0.5
    x, y = last + stride * column, last + stride * row
    return [x - half_width, y - half_height, x + half_width + 1, y + half_height + 1]


@pytest.mark.parametrize(
    "name",
    ["mulan_densenet121_9s", "mulan_densenet121_detection-only_9s", "lens-rpn_densenet121_4datasets_9s"],
)
def test_configs_of_the_paper_size_have_the_published_anchors(name: str) -> None:
    model = load_config(f"{name}_8e_deeplesion").model
    head = model.rpn_head.get("head", model.rpn_head)
    (anchors,) = TASK_UTILS.build(head.anchor_generator).grid_priors([(3, 5)], device="cpu")
    sizes = (16, 24, 32, 48, 96)
    expected = [
        described(ratio, size, column, row)
        for row in range(3)
        for column in range(5)
        for ratio in (0.5, 1.0, 2.0)
        for size in sizes
    ]
    torch.testing.assert_close(anchors, torch.tensor(expected))
    # Those that reach from the first to the last pixel are trained, those that go on are not.
    inside = anchor_inside_flags(anchors, torch.ones(len(anchors), dtype=torch.bool), (24, 24), 0.5)
    whole = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] <= 24).all(1)
    assert model.train_cfg.rpn.allowed_border == 0.5
    assert torch.equal(inside, whole)
    assert whole.any()
    assert not whole.all()
