"""What a factor on negatives can change at the optimum, and what a look at their score can.

Eight kinds of places, each with a score of its own, trained on all that there is of them; of each a share is marked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpluld.registry import MODELS

MARKED = torch.tensor([0.3, 0.02, 0.5, 0.1, 0.2, 0.7, 0.05, 0.4], dtype=torch.float64)
BCE = {"type": "CrossEntropyLoss", "use_sigmoid": True}
FOCAL = {"type": "FocalLoss", "use_sigmoid": True}


def total(settings: dict[str, Any], copies: int = 1) -> Callable[[Tensor], Tensor]:
    """The loss over all places, of logits (8,)."""
    labels = torch.tensor([0, 1]).repeat_interleave(8).repeat(copies)
    weight = torch.cat([MARKED, 1 - MARKED]).repeat(copies)
    loss = MODELS.build(settings)

    def value(logits: Tensor) -> Tensor:
        torch.manual_seed(0)  # the same mask in all steps
        return loss(logits.repeat(2 * copies).view(-1, 1), labels, weight, reduction_override="sum") / copies

    return value


def optimum(settings: dict[str, Any], copies: int = 1) -> Tensor:
    """Logits (8,) at which the loss over all places is least."""
    logits = torch.zeros(8, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )
    value = total(settings, copies)

    def closure() -> Tensor:
        optimizer.zero_grad()
        result = value(logits)
        result.backward()
        return result

    optimizer.step(closure)
    return logits.detach()


def weakened(loss: dict[str, Any], **changes: float) -> dict[str, Any]:
    settings = {"neg_weight": 1.0, "keep_prob": 1.0, **changes}
    return {"type": "PartialLabelLoss", "use_sigmoid": True, "loss": loss, **settings}


@pytest.mark.parametrize("factor", [0.6, 0.3])
def test_a_factor_multiplies_all_odds_by_the_same_number(factor: float) -> None:
    plain, other = optimum(BCE), optimum(weakened(BCE, neg_weight=factor))
    torch.testing.assert_close(plain.sigmoid(), MARKED, rtol=5e-3, atol=0)
    torch.testing.assert_close((other - plain).exp(), torch.full_like(plain, 1 / factor), rtol=1e-2, atol=0)
    assert torch.equal(other.argsort(), plain.argsort()) and torch.equal(plain.argsort(), MARKED.argsort())
    assert (other - plain > 0.5).all()  # the scores are others


@pytest.mark.parametrize("factor", [0.6, 0.3])
def test_the_order_stays_with_a_focal_loss_too(factor: float) -> None:
    plain, other = optimum(FOCAL), optimum(weakened(FOCAL, neg_weight=factor))
    assert torch.equal(other.argsort(), plain.argsort()) and torch.equal(plain.argsort(), MARKED.argsort())
    assert (other - plain > 0.1).all()


def test_a_random_mask_is_a_factor_on_average() -> None:
    masked = optimum(weakened(BCE, neg_weight=0.6, keep_prob=0.5), copies=2000)
    factor = optimum(weakened(BCE, neg_weight=0.3))
    torch.testing.assert_close(masked, factor, atol=0.15, rtol=0)
    assert torch.equal(masked.argsort(), factor.argsort())


@pytest.mark.parametrize("kind", ["IgnoreHardNegatives", "BackgroundRecalibrationLoss"])
def test_a_look_at_the_score_sends_all_above_the_threshold_to_the_top(kind: str) -> None:
    start, above = optimum(BCE), MARKED > 0.25
    value = total({"type": kind, "use_sigmoid": True, "loss": BCE, "threshold": 0.25})
    logits = start.clone().requires_grad_()
    for _ in range(300):
        (gradient,) = torch.autograd.grad(value(logits), logits)
        logits = (logits - gradient).detach().requires_grad_()
    torch.testing.assert_close(logits[~above].sigmoid(), MARKED[~above], rtol=5e-3, atol=0)
    assert (logits[above].sigmoid() > 0.95).all()
