from __future__ import annotations

import pytest
import torch

from mmpluld.models.necks import TopDownFusion
from mmpluld.registry import MODELS


def test_parameters_of_the_full_size():
    with torch.device("meta"):
        neck = MODELS.build({"type": "TopDownFusion"})
    assert sum(p.numel() for p in neck.parameters()) == 919_040


def test_sums_upsampled_projections():
    neck = TopDownFusion((1, 1, 1), 1)
    for level, factor in ((2, 1.0), (3, 10.0), (4, 100.0)):
        lateral = getattr(neck, f"lateral{level}")
        torch.nn.init.constant_(lateral.weight, factor)
        torch.nn.init.zeros_(lateral.bias)
    fine = torch.arange(16.0).view(1, 1, 4, 4)
    middle = torch.arange(4.0).view(1, 1, 2, 2)
    (fused,) = neck((fine, middle, torch.ones(1, 1, 1, 1)))
    assert fused[0, 0, 0].tolist() == [100.0, 101.0, 112.0, 113.0]
    assert fused[0, 0, 3].tolist() == [132.0, 133.0, 144.0, 145.0]


def test_odd_sizes_and_empty_batch():
    neck = TopDownFusion((2, 4, 8), 3)
    maps = [torch.zeros(0, 2, 33, 17), torch.zeros(0, 4, 16, 8), torch.zeros(0, 8, 8, 4)]
    assert neck(maps)[0].shape == (0, 3, 33, 17)


def test_start_values():
    torch.manual_seed(0)
    neck = TopDownFusion((300, 30, 3), 200)
    neck.init_weights()
    assert neck.lateral2.bias.abs().max() == 0
    assert neck.lateral2.weight.abs().max().item() == pytest.approx((3 / 300) ** 0.5, rel=1e-2)


def test_wrong_number_of_maps_fails():
    with pytest.raises(ValueError, match="zip"):
        TopDownFusion((2, 4), 3)([torch.zeros(1, 2, 4, 4)])
