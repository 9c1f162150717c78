from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mmpluld.models.cpu.winograd import conv3x3


@settings(max_examples=25)
@given(
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 23)),
    seed=st.integers(0, 99),
)
def test_equals_the_convolution(channels, size, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(channels[0], *size, dtype=torch.float64, generator=generator)
    weight = torch.randn(channels[1], channels[0], 3, 3, dtype=torch.float64, generator=generator)
    bias = torch.randn(channels[1], dtype=torch.float64, generator=generator)
    expected = F.conv2d(x[None], weight, bias, padding=1)[0]
    found = conv3x3(x, weight, bias)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=0, atol=1e-11)


def test_rounding_in_single_precision():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(256, 32, 32), torch.randn(128, 256, 3, 3), torch.randn(128)
    expected = F.conv2d(x[None].double(), weight.double(), bias.double(), padding=1)[0]
    error = (conv3x3(x, weight, bias) - expected).abs().max() / expected.abs().max()
    assert error.item() == pytest.approx(0, abs=3e-5)
