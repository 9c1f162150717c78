"""The partial-label loss against its equation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmpluld.models.losses import PartialLabelLoss
from mmpluld.registry import MODELS

BCE = {"type": "CrossEntropyLoss", "use_sigmoid": True}
LESION, BACKGROUND = 0, 1  # labels of a one-class head


def build(**changes: object) -> PartialLabelLoss:
    return MODELS.build({"type": "PartialLabelLoss", "use_sigmoid": True, "loss": BCE, **changes})


def column(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1)


@pytest.mark.parametrize(
    ("logit", "lesion", "background"),
    [(0.0, 0.693147, 0.415888), (40.0, 4.248354e-18, 24.0), (-200.0, 200.0, 0.0)],
)
def test_values_of_the_equation(logit: float, lesion: float, background: float) -> None:
    loss = build(keep_prob=1.0)
    labels = torch.tensor([LESION, BACKGROUND])
    values = loss(column(logit, logit), labels, reduction_override="none")
    torch.testing.assert_close(values, column(lesion, background), rtol=1e-6, atol=1e-8)


def test_gradient_of_the_equation() -> None:
    logits = column(0.0, 0.0, 40.0, 40.0, -200.0, -200.0).requires_grad_()
    labels = torch.tensor([LESION, BACKGROUND] * 3)
    build(keep_prob=1.0, pos_weight=2.0)(logits, labels, reduction_override="sum").backward()
    torch.testing.assert_close(logits.grad, column(-1.0, 0.3, 0.0, 0.6, -2.0, 0.0))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(-1e4, 1e4, width=32), st.booleans()), min_size=1, max_size=20))
def test_finite_for_any_logit(samples: list[tuple[float, bool]]) -> None:
    logits = column(*[logit for logit, _ in samples]).requires_grad_()
    labels = torch.tensor([LESION if lesion else BACKGROUND for _, lesion in samples])
    loss = build()(logits, labels, torch.ones(len(samples)), avg_factor=len(samples))
    loss.backward()
    assert torch.isfinite(loss) and loss >= 0
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad.abs() <= 1).all()


@pytest.mark.parametrize("inner", [BCE, {"type": "FocalLoss", "use_sigmoid": True, "loss_weight": 2.0}])
@pytest.mark.parametrize("avg_factor", [None, 7])
def test_switched_off_equals_the_wrapped_loss_bit_for_bit(inner: dict, avg_factor: int | None) -> None:
    torch.manual_seed(0)
    logits = torch.randn(50, 1, requires_grad=True)
    labels = torch.randint(0, 2, (50,))
    weight = torch.randint(0, 2, (50,)).float()
    state = torch.get_rng_state()
    off = build(loss=inner, neg_weight=1, keep_prob=1)(logits, labels, weight, avg_factor=avg_factor)
    assert torch.equal(torch.get_rng_state(), state)
    stock = MODELS.build(inner)(logits, labels, weight, avg_factor=avg_factor)
    assert torch.equal(off, stock)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (off, stock)]
    assert torch.equal(*gradients)


def test_mask_drops_negatives_only_and_keeps_the_divisor() -> None:
    logits, labels = torch.zeros(4000, 1), torch.arange(4000) % 2
    values = build(neg_weight=1.0, keep_prob=0.3)(logits, labels, reduction_override="none")[:, 0]
    torch.testing.assert_close(values[labels == LESION], torch.full((2000,), math.log(2)))
    kept = values[labels == BACKGROUND] > 0
    assert abs(kept.float().mean() - 0.3) < 0.05
    torch.manual_seed(1)
    mean = build(neg_weight=1.0, keep_prob=0.3)(logits, labels, torch.ones(4000), avg_factor=4000)
    torch.manual_seed(1)
    total = build(neg_weight=1.0, keep_prob=0.3)(logits, labels, torch.ones(4000), reduction_override="sum")
    torch.testing.assert_close(mean, total / 4000)


def test_mask_is_new_in_each_call_and_repeats_with_the_seed() -> None:
    loss, logits, labels = build(), torch.zeros(200, 1), torch.full((200,), BACKGROUND)
    torch.manual_seed(3)
    first, second = (loss(logits, labels, reduction_override="none") for _ in range(2))
    torch.manual_seed(3)
    again = loss(logits, labels, reduction_override="none")
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_supplied_generator_leaves_the_default_one_alone() -> None:
    loss, logits, labels = build(), torch.zeros(50, 1), torch.full((50,), BACKGROUND)
    state = torch.get_rng_state()
    values = [
        loss(logits, labels, reduction_override="none", generator=torch.Generator().manual_seed(1)) for _ in range(2)
    ]
    assert torch.equal(*values)
    assert torch.equal(torch.get_rng_state(), state)


def test_keep_prob_zero_leaves_no_negative() -> None:
    logits, labels = column(2.0, 2.0), torch.tensor([LESION, BACKGROUND])
    values = build(keep_prob=0.0)(logits, labels, reduction_override="none")
    assert values[0] > 0
    assert values[1] == 0


def test_no_mask_in_evaluation() -> None:
    loss = build(neg_weight=0.5).eval()
    values = loss(torch.zeros(100, 1), torch.full((100,), BACKGROUND), reduction_override="none")
    torch.testing.assert_close(values, torch.full((100, 1), 0.5 * math.log(2)))


def test_renorm_divides_by_what_the_mask_left() -> None:
    logits, labels = torch.zeros(100, 1), torch.full((100,), BACKGROUND)
    labels[:10] = LESION
    weight = torch.ones(100)
    weight[50:] = 0  # not sampled: 10 lesions and 40 negatives count
    torch.manual_seed(0)
    values = build(neg_weight=1.0)(logits, labels, weight, reduction_override="none")
    kept = int((values > 0).sum())
    assert 10 < kept < 50
    torch.manual_seed(0)
    loss = build(neg_weight=1.0, renorm_by_kept=True)(logits, labels, weight, avg_factor=50)
    torch.testing.assert_close(loss, values.sum() / kept)
    for reduction, expected in (("sum", values.sum()), ("none", values)):  # these divide by nothing
        torch.manual_seed(0)
        renormed = build(neg_weight=1.0, renorm_by_kept=True)
        torch.testing.assert_close(renormed(logits, labels, weight, reduction_override=reduction), expected)


def test_unsampled_anchors_count_for_nothing() -> None:
    logits = column(1e4, -1e4, 0.0).requires_grad_()
    loss = build()(logits, torch.tensor([BACKGROUND, LESION, LESION]), torch.tensor([0.0, 0.0, 1.0]), avg_factor=1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)
    assert logits.grad.flatten().tolist()[:2] == [0, 0]


def test_several_classes_are_weighted_per_logit() -> None:
    loss = build(neg_weight=0.5, keep_prob=1.0)
    values = loss(torch.zeros(3, 2), torch.tensor([0, 1, 2]), reduction_override="none")
    expected = torch.tensor([[1.0, 0.5], [0.5, 1.0], [0.5, 0.5]]) * math.log(2)
    torch.testing.assert_close(values, expected)


def test_targets_of_the_logits_own_shape() -> None:
    loss = build(neg_weight=0.5, keep_prob=1.0)
    from_labels = loss(torch.zeros(2, 1), torch.tensor([LESION, BACKGROUND]), reduction_override="none")
    from_targets = loss(torch.zeros(2, 1), column(1.0, 0.0), reduction_override="none")
    assert torch.equal(from_labels, from_targets)


def test_float32_under_autocast() -> None:
    logits, labels = torch.linspace(-9, 9, 40).view(-1, 1).bfloat16(), torch.arange(40) % 2
    loss = build(keep_prob=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = loss(logits, labels, reduction_override="none")
    assert values.dtype == torch.float32
    assert torch.equal(values, loss(logits.float(), labels, reduction_override="none"))


def test_no_anchors() -> None:
    loss = build()(
        torch.zeros(0, 1, requires_grad=True), torch.zeros(0, dtype=torch.long), torch.zeros(0), avg_factor=1
    )
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neg_weight": 1.5}, "neg_weight is 1.5; it must be between 0 and 1"),
        ({"neg_weight": math.nan}, "neg_weight is nan"),
        ({"keep_prob": -0.1}, "keep_prob is -0.1; it must be between 0 and 1"),
        ({"pos_weight": -1}, "pos_weight is -1; it must be at least 0"),
        ({"loss": {"type": "CrossEntropyLoss"}}, "CrossEntropyLoss must be a sigmoid loss"),
        ({"use_sigmoid": False}, "is False, but .* CrossEntropyLoss is True; write use_sigmoid=True beside type"),
        (
            {"loss": {"type": "GaussianFocalLoss"}},
            "is True, but .* GaussianFocalLoss is False; write use_sig.*=False",
        ),
        ({"loss": {"type": "FocalLoss"}, "renorm_by_kept": True}, "renorm_by_kept has no meaning for .* FocalLoss"),
        ({"loss": {**BCE, "avg_non_ignore": True}}, "must not set avg_non_ignore"),
    ],
)
def test_bad_settings(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_loss_that_is_not_elementwise() -> None:
    class Scalar(torch.nn.Module):
        use_sigmoid = True

        def forward(self, cls_score: Tensor, *_: object, **__: object) -> Tensor:
            return cls_score.sum()

    with pytest.raises(
        ValueError,
        match=r"Scalar returned shape \(\) for targets of shape \(4, 1\); it must return one value per logit",
    ):
        PartialLabelLoss(loss=Scalar(), use_sigmoid=True)(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))
