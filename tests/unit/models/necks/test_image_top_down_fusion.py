from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from benchmarks._plain_lens import plain_neck
from mmpluld.models.necks import ImageTopDownFusion, TopDownFusion
from mmpluld.registry import MODELS


def stacked(images: torch.Tensor) -> torch.Tensor:
    """(B, D, C, H, W) to (B, C * D, H, W), channel before image."""
    return images.transpose(1, 2).flatten(1, 2)


def test_parameters_of_the_full_size():
    with torch.device("meta"):
        neck = MODELS.build({"type": "ImageTopDownFusion"})
        (fused,) = neck([torch.zeros(1, 3 * c, s, s) for c, s in ((256, 128), (512, 64), (1024, 32))])
    assert sum(p.numel() for p in neck.fusion.parameters()) == 786_944
    assert sum(p.numel() for p in neck.parameters()) == 919_040 + 786_944
    assert neck.fusion.weight.shape == (512, 1536, 1, 1)
    assert fused.shape == (1, 512, 128, 128)


@settings(max_examples=20)
@given(
    num_images=st.sampled_from([1, 3, 5]),
    batch=st.integers(0, 2),
    sizes=st.sampled_from([((8, 12), (4, 6), (2, 3)), ((33, 17), (16, 8), (8, 4))]),
)
def test_equals_pyramids_first_and_fusion_after(num_images, batch, sizes):
    torch.manual_seed(0)
    neck = ImageTopDownFusion(num_images, (2, 3, 4), 5)
    maps = [torch.rand(batch, num_images, c, *size) for c, size in zip((2, 3, 4), sizes, strict=True)]
    (pyramids,) = TopDownFusion.forward(neck, [x.flatten(0, 1) for x in maps])
    expected = F.conv2d(pyramids.unflatten(0, (batch, num_images)).flatten(1, 2), neck.fusion.weight, neck.fusion.bias)
    (found,) = neck([stacked(x) for x in maps])
    assert torch.allclose(found, expected, atol=1e-5)
    with torch.no_grad():
        (without_gradients,) = neck([stacked(x) for x in maps])
        (from_lists,) = neck([x.unbind(1) for x in maps])
        plain = plain_neck(neck, [x.flatten(0, 1) for x in maps])
    assert torch.allclose(without_gradients, expected, atol=1e-5)
    assert torch.allclose(plain, expected, atol=1e-5)  # the benchmark's reference
    assert torch.equal(from_lists, without_gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_precision_takes_maps_of_either_type(dtype):
    neck = ImageTopDownFusion(3, (2, 3, 4), 5)
    maps = [torch.rand(2, 3 * c, s, s) for c, s in ((2, 8), (3, 4), (4, 2))]
    with torch.no_grad():
        (expected,) = neck(maps)
        with torch.autocast("cpu", torch.bfloat16):
            (found,) = neck([x.to(dtype) for x in maps])
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected, atol=0.05)


def test_start_values():
    neck = ImageTopDownFusion(3, (300, 30, 3), 100)
    neck.init_weights()
    assert neck.fusion.bias.abs().max() == 0
    assert neck.fusion.weight.abs().max().item() == pytest.approx((3 / 300) ** 0.5, rel=1e-2)


def test_gradients_reach_everything():
    neck = ImageTopDownFusion(3, (2, 3, 4), 5)
    neck([torch.rand(1, 3 * c, s, s) for c, s in ((2, 8), (3, 4), (4, 2))])[0].square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in neck.parameters())


def test_wrong_number_of_maps_fails():
    with pytest.raises(ValueError, match="zip"):
        ImageTopDownFusion(3, (2, 4), 3)([torch.zeros(1, 6, 4, 4)])
