from __future__ import annotations

import pytest
import torch

from mmpluld.errors import InputError
from mmpluld.models.backbones.domain_attention import DomainAttention


def test_adapters_are_mixed_by_the_image():
    """Two adapters with constant outputs, chosen by the sign of the first channel's mean."""
    attention = DomainAttention(channels=4, num_adapters=2, reduction=2)
    with torch.no_grad():
        for adapter, value in zip(attention.adapters, (20.0, -20.0), strict=True):
            adapter[2].weight.zero_()
            adapter[2].bias.fill_(value)
        attention.assignment.weight.zero_()
        attention.assignment.bias.zero_()
        attention.assignment.weight[:, 0] = torch.tensor([1000.0, -1000.0])
    x = torch.ones(1, 4, 3, 2, 2)
    x[:, :, 1] = -1
    x[:, :, 2] = 0
    found = attention(x)
    assert torch.allclose(found[:, :, 0], x[:, :, 0])  # scaled by sigmoid(20)
    assert found[:, :, 1].abs().max() < 1e-6  # by sigmoid(-20)
    assert torch.equal(found[:, :, 2], torch.zeros_like(found[:, :, 2]))
    x[:, 1:, 2] = 1  # both alike: sigmoid(0)
    assert torch.allclose(attention(x)[:, 1:, 2], torch.full((1, 3, 2, 2), 0.5))


def test_images_do_not_see_each_other():
    torch.manual_seed(0)
    attention = DomainAttention(channels=16)
    x = torch.randn(2, 16, 3, 4, 5)
    alone = torch.stack([attention(x[:, :, d : d + 1])[:, :, 0] for d in range(3)], 2)
    assert torch.allclose(attention(x), alone, atol=1e-6)


@pytest.mark.parametrize("settings", [{"num_adapters": 0}, {"reduction": 0}, {"reduction": 17}])
def test_nothing_left(settings):
    with pytest.raises(InputError, match="domain_attention: .* for 16 channels; allowed"):
        DomainAttention(channels=16, **settings)
