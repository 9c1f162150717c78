"""The partial-label loss around every kind of elementwise loss, against formulas written out per logit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpluld.registry import MODELS

CLASSES = 2
# Anchors: one of each class, one of quality 0, one background, one that is not sampled.
LABELS = torch.tensor([0, 1, 1, CLASSES, 0])
QUALITY = torch.tensor([0.9, 0.4, 0.0, 0.0, 0.7])
WEIGHT = torch.tensor([1.0, 1.0, 0.5, 1.0, 0.0])
ONE_HOT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
SOFT = ONE_HOT * QUALITY[:, None]
HEAT = torch.tensor([[1.0, 0.0], [0.8, 1.0], [0.3, 0.999], [0.0, 0.0], [1.0, 0.2]])
LOGITS = torch.tensor([[0.0, 1.5], [-2.0, 0.3], [4.0, -1.0], [0.7, -0.7], [2.0, 2.0]])


def cross(p: float, target: float) -> float:
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def cross_entropy(p: float, target: float, lesion: bool) -> float:
    return cross(p, float(lesion))


def focal(p: float, target: float, lesion: bool) -> float:
    return 0.25 * (1 - p) ** 2 * cross(p, 1) if lesion else 0.75 * p**2 * cross(p, 0)


def quality_focal(p: float, target: float, lesion: bool) -> float:
    return abs((target if lesion else 0) - p) ** 2 * cross(p, target if lesion else 0)


def varifocal(p: float, target: float, lesion: bool) -> float:
    return target * cross(p, target) if lesion else 0.75 * p**2 * cross(p, 0)


def gaussian(p: float, target: float, lesion: bool) -> float:
    return (1 - p) ** 2 * cross(p, 1) if lesion else (1 - target) ** 4 * p**2 * cross(p, 0)


# name: wrapped loss, what the head hands over as target, targets per logit, which logits are lesions, formula
CASES: dict[str, tuple[str, Any, Tensor, Tensor, Any]] = {
    "cross entropy": ("CrossEntropyLoss", LABELS, ONE_HOT, ONE_HOT > 0, cross_entropy),
    "focal": ("FocalLoss", LABELS, ONE_HOT, ONE_HOT > 0, focal),
    "focal, one-hot": ("FocalLoss", ONE_HOT, ONE_HOT, ONE_HOT > 0, focal),
    "quality focal": ("QualityFocalLoss", (LABELS, QUALITY), SOFT, ONE_HOT > 0, quality_focal),
    "quality focal, soft": ("QualityFocalLoss", SOFT, SOFT, SOFT > 0, quality_focal),
    "varifocal": ("VarifocalLoss", SOFT, SOFT, SOFT > 0, varifocal),
    "Gaussian focal": ("GaussianFocalLoss", HEAT, HEAT, HEAT == 1, gaussian),
}


def build(kind: str, **changes: object) -> torch.nn.Module:
    flag = {} if kind == "GaussianFocalLoss" else {"use_sigmoid": True}
    return MODELS.build({"type": "PartialLabelLoss", "loss": {"type": kind, **flag}, **flag, **changes})


def inputs(kind: str, target: Any) -> tuple[Tensor, Tensor]:
    """Scores as the head hands them over, and weights in a form that the wrapped loss takes."""
    if kind == "GaussianFocalLoss":
        return LOGITS.sigmoid(), WEIGHT[:, None]
    per_anchor = isinstance(target, tuple) or target.dim() == 1 or kind == "QualityFocalLoss"
    return LOGITS.clone(), WEIGHT if per_anchor else WEIGHT[:, None]


@pytest.mark.parametrize("name", CASES)
def test_every_logit_against_its_formula(name: str) -> None:
    kind, target, per_logit, lesion, formula = CASES[name]
    scores, weight = inputs(kind, target)
    values = build(kind, neg_weight=0.6, keep_prob=1.0, pos_weight=2.0)(
        scores, target, weight, reduction_override="none"
    )
    expected = torch.zeros(len(LOGITS), CLASSES)
    for i in range(len(LOGITS)):
        for j in range(CLASSES):
            value = formula(LOGITS[i, j].sigmoid().item(), per_logit[i, j].item(), bool(lesion[i, j]))
            expected[i, j] = WEIGHT[i] * (2.0 if lesion[i, j] else 0.6) * value
    torch.testing.assert_close(values, expected.sum(1) if kind == "QualityFocalLoss" else expected)


@pytest.mark.parametrize("name", CASES)
def test_reductions_keep_the_divisor(name: str) -> None:
    kind, target, *_ = CASES[name]
    scores, weight = inputs(kind, target)
    loss = build(kind, keep_prob=1.0)
    values = loss(scores, target, weight, reduction_override="none")
    torch.testing.assert_close(loss(scores, target, weight, avg_factor=3.0), values.sum() / 3)
    torch.testing.assert_close(loss(scores, target, weight), values.mean())
    torch.testing.assert_close(loss(scores, target, weight, reduction_override="sum"), values.sum())


@pytest.mark.parametrize("name", CASES)
def test_switched_off_equals_the_wrapped_loss_bit_for_bit(name: str) -> None:
    kind, target, *_ = CASES[name]
    scores, weight = inputs(kind, target)
    scores.requires_grad_()
    loss = build(kind, neg_weight=1, keep_prob=1)
    values = [module(scores, target, weight=weight, avg_factor=3.0) for module in (loss, loss.loss)]
    assert torch.equal(*values)
    assert torch.equal(*[torch.autograd.grad(value, scores)[0] for value in values])


@pytest.mark.parametrize("name", CASES)
def test_factor_one_changes_nothing_but_the_order_of_sums(name: str) -> None:
    """The path that weights single logits, with weights of one, meets the wrapped loss's own path."""
    kind, target, *_ = CASES[name]
    scores, weight = inputs(kind, target)
    loss = build(kind, neg_weight=1.0, keep_prob=1 - 1e-7)
    stock = loss.loss(scores, target, weight=weight, avg_factor=3.0)
    torch.testing.assert_close(loss(scores, target, weight, avg_factor=3.0), stock)


@pytest.mark.parametrize("name", CASES)
def test_mask_hits_negative_logits_only_each_by_itself(name: str) -> None:
    kind, target, _, lesion, _ = CASES[name]
    scores, _ = inputs(kind, target)
    copies = 400
    many = [
        part.repeat(copies, *[1] * (part.dim() - 1)) for part in (target if isinstance(target, tuple) else (target,))
    ]
    scores = scores.repeat(copies, 1).requires_grad_()
    torch.manual_seed(0)
    loss = build(kind, neg_weight=1.0, keep_prob=0.3)
    values = loss(scores, tuple(many) if isinstance(target, tuple) else many[0], reduction_override="sum")
    (gradient,) = torch.autograd.grad(values, scores)
    kept = (gradient != 0).view(copies, len(LOGITS), CLASSES).float().mean(0)
    torch.testing.assert_close(kept, torch.where(lesion, 1.0, 0.3), atol=0.09, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_weight_zero_is_an_exact_zero_and_extreme_logits_are_finite(name: str) -> None:
    kind, target, *_ = CASES[name]
    scores, weight = inputs(kind, target)
    extreme = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 1e4], [1e4, 1e4], [1e4, -1e4]])
    scores = (extreme.sigmoid() if kind == "GaussianFocalLoss" else extreme).requires_grad_()
    loss = build(kind)(scores, target, weight, avg_factor=3.0)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert (gradient[WEIGHT == 0] == 0).all()


@pytest.mark.parametrize("name", CASES)
def test_no_anchors(name: str) -> None:
    kind, target, *_ = CASES[name]
    empty = tuple(part[:0] for part in target) if isinstance(target, tuple) else target[:0]
    scores = torch.zeros(0, CASES[name][2].size(1), requires_grad=True)
    loss = build(kind)(scores, empty, avg_factor=1.0)
    loss.backward()
    assert loss.item() == 0


def test_heat_map_in_the_shape_of_the_head() -> None:
    heat = HEAT.T.reshape(1, CLASSES, 5, 1)
    scores = LOGITS.sigmoid().T.reshape(1, CLASSES, 5, 1)
    loss = build("GaussianFocalLoss", keep_prob=1.0)
    flat = loss(LOGITS.sigmoid(), HEAT, reduction_override="none")
    assert torch.equal(loss(scores, heat, reduction_override="none"), flat.T.reshape(heat.shape))
