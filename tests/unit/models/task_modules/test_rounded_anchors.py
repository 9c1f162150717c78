"""Anchors against the shapes that the published code has."""

from __future__ import annotations

import torch

from mmpluld.models.task_modules import RoundedRatioAnchorGenerator


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
