"""The Dice loss of the mask head."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.models.losses import MaskDiceLoss
from mmpluld.registry import MODELS


def loss_of(pred: torch.Tensor, target: torch.Tensor, labels: list[int] | None = None) -> torch.Tensor:
    index = torch.zeros(len(pred), dtype=torch.long) if labels is None else torch.tensor(labels)
    return MODELS.build({"type": "MaskDiceLoss"})(pred, target, index)


def test_value_by_hand():
    pred = torch.tensor([[[[0.0, math.log(3)]]]])  # sigmoid 0.5, 0.75
    target = torch.tensor([[[1.0, 0.5]]])
    dice = (2 * (0.5 + 0.375) + 0.01) / (1.25 + 1.5 + 0.01)
    assert loss_of(pred, target).item() == pytest.approx(1 - dice, rel=1e-6)


def test_the_mean_is_over_rois_with_a_target():
    torch.manual_seed(0)
    pred, target = torch.randn(3, 1, 4, 4), torch.rand(3, 4, 4)
    target[1] = 0
    single = [loss_of(pred[i : i + 1], target[i : i + 1]) for i in (0, 2)]
    torch.testing.assert_close(loss_of(pred, target), torch.stack(single).mean())


def test_the_channel_of_the_label_is_compared():
    pred = torch.stack([torch.full((2, 2), -20.0), torch.full((2, 2), 20.0)])[None]
    assert loss_of(pred, torch.ones(1, 2, 2), [1]).item() == pytest.approx(0, abs=1e-4)
    assert loss_of(pred, torch.ones(1, 2, 2), [0]).item() == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("count", [0, 2])
def test_without_a_target_it_is_zero_with_a_graph(count):
    pred = torch.randn(count, 1, 4, 4, requires_grad=True)
    value = loss_of(pred, torch.zeros(count, 4, 4))
    assert value.item() == 0.0
    value.backward()
    assert pred.grad is not None and not pred.grad.any()


def test_half_precision_is_computed_in_float32():
    pred = torch.full((1, 1, 28, 28), 12.0, dtype=torch.float16)
    value = loss_of(pred, torch.ones(1, 28, 28))
    assert value.dtype == torch.float32
    assert 0 <= value.item() < 1e-4


def test_weight_scales_it():
    pred, target = torch.zeros(1, 1, 2, 2), torch.ones(1, 2, 2)
    index = torch.zeros(1, dtype=torch.long)
    torch.testing.assert_close(MaskDiceLoss(loss_weight=3.0)(pred, target, index), 3 * loss_of(pred, target))


@settings(max_examples=40)
@given(st.integers(0, 2**31 - 1))
def test_properties(seed):
    """Between 0 and 1, and it falls when a logit moves towards its binary target."""
    generator = torch.Generator().manual_seed(seed)
    pred = torch.randn(2, 1, 5, 5, generator=generator)
    target = (torch.rand(2, 5, 5, generator=generator) < 0.5).float()
    target[:, 0, 0] = 1
    before = loss_of(pred, target)
    assert 0 <= before.item() <= 1
    assert loss_of(pred + (2 * target[:, None] - 1), target) < before
