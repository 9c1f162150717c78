from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mmpluld.models.slice_mixers import A3DMixer


def mixer(weight: torch.Tensor) -> A3DMixer:
    """A mixer with the given weights (D, D, C)."""
    result = A3DMixer(weight.shape[2], weight.shape[0])
    with torch.no_grad():
        result.weight.copy_(weight)
    return result


def test_starts_near_the_identity():
    torch.manual_seed(0)
    noise = A3DMixer(500, 3).weight - torch.eye(3)[:, :, None]
    assert noise.abs().max() <= 0.1
    assert noise.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.05)


def test_identity_keeps_the_input():
    x = torch.randn(2, 4, 3, 5, 6)
    assert torch.equal(mixer(torch.eye(3)[:, :, None].repeat(1, 1, 4))(x), x)


def test_source_index_comes_before_target_index():
    weight = torch.zeros(3, 3, 2)
    for target in range(2):
        weight[target + 1, target] = 1.0  # target slice k takes source slice k + 1
    x = torch.randn(1, 2, 3, 4, 4)
    assert torch.equal(mixer(weight)(x), F.pad(x, (0, 0, 0, 0, 0, 1))[:, :, 1:])


def test_equals_the_written_out_sum():
    weight, x = torch.randn(3, 3, 2, dtype=torch.double), torch.randn(2, 2, 3, 2, 2, dtype=torch.double)
    expected = torch.zeros_like(x)
    for c in range(2):
        for d in range(3):
            for k in range(3):
                expected[:, c, k] += weight[d, k, c] * x[:, c, d]
    torch.testing.assert_close(mixer(weight).double()(x), expected)


def test_gradients():
    module = A3DMixer(2, 3).double()
    x = torch.randn(2, 2, 3, 2, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(module, {"weight": w}, x), (x, module.weight)
    )


def test_empty_batch():
    assert A3DMixer(2, 3)(torch.zeros(0, 2, 3, 4, 4)).shape == (0, 2, 3, 4, 4)


def test_other_number_of_slices_fails():
    with pytest.raises(RuntimeError):
        A3DMixer(2, 3)(torch.zeros(1, 2, 5, 4, 4))
