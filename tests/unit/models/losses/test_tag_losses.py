"""Losses of tags: against sums written down by hand, and what they leave out."""

from __future__ import annotations

import math

import pytest
import torch

from mmpluld.errors import InputError
from mmpluld.models.losses import BalancedTagLoss, RelationalHardTagLoss

NAN = float("nan")


def cross_entropy(logit: float, truth: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -math.log(p if truth else 1 - p)


class TestBalanced:
    def test_weights_by_hand(self) -> None:
        loss = BalancedTagLoss(loss_weight=2.0, max_weight=3.0)
        loss.set_counts(torch.tensor([2.0, 1.0, 0.0, 10.0]), 10)
        # 10 / (2 * 2), 10 / (2 * 1) cut at 3, endless cut at 3, 10 / (2 * 10); negatives 10 / (2 * 8) and so on.
        positive, negative = [2.5, 3.0, 3.0, 0.5], [10 / 16, 10 / 18, 0.5, 3.0]
        logits = torch.tensor([[0.3, -1.0, 2.0, 0.5], [9.0, 9.0, 9.0, 9.0], [-0.7, 0.1, 0.4, -2.0]])
        truth = torch.tensor([[1.0, 0.0, 1.0, 0.0], [NAN] * 4, [0.0, 1.0, 0.0, 1.0]])
        expected = 0.0
        for row in (0, 2):
            for tag in range(4):
                t = float(truth[row, tag])
                weight = positive[tag] if t else negative[tag]
                expected += weight * cross_entropy(float(logits[row, tag]), t)
        assert float(loss(logits, truth)) == pytest.approx(2 * expected / 8, rel=1e-5)

    def test_masked_answers_are_left_out(self) -> None:
        logits = torch.tensor([[0.3, -1.0, 2.0]])
        truth = torch.tensor([[1.0, NAN, 0.0]])
        expected = (cross_entropy(0.3, 1) + cross_entropy(2.0, 0)) / 2
        assert float(BalancedTagLoss()(logits, truth)) == pytest.approx(expected, rel=1e-5)

    def test_without_counts_is_plain(self) -> None:
        logits, truth = torch.tensor([[0.3, -1.0]]), torch.tensor([[1.0, 0.0]])
        expected = (cross_entropy(0.3, 1) + cross_entropy(-1.0, 0)) / 2
        assert float(BalancedTagLoss()(logits, truth)) == pytest.approx(expected, rel=1e-5)

    def test_lesions_without_tags_and_empty_batches_teach_nothing(self) -> None:
        for rows in (3, 0):
            logits = torch.randn(rows, 4, requires_grad=True)
            value = BalancedTagLoss()(logits, torch.full((rows, 4), NAN))
            value.backward()
            assert float(value.detach()) == 0
            assert torch.equal(logits.grad, torch.zeros_like(logits))

    def test_counts_are_not_in_checkpoints(self) -> None:
        loss = BalancedTagLoss()
        loss.set_counts(torch.tensor([2.0, 1.0]), 10)
        assert loss.state_dict() == {}


class TestHard:
    def drawn(self, loss: RelationalHardTagLoss, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Share of the gradient that each pair gets of each unit of its own error, that is how often it was drawn."""
        logits = logits.clone().requires_grad_()
        loss(logits, truth).backward()
        error = logits.detach().sigmoid() - truth.nan_to_num()
        return logits.grad / error

    def test_pairs_are_drawn_by_squared_error_among_the_trusted(self) -> None:
        torch.manual_seed(0)
        loss = RelationalHardTagLoss(num_pairs=200_000)
        exclusive = torch.zeros(4, 4, dtype=torch.bool)
        exclusive[0, 2] = exclusive[2, 0] = True
        loss.set_exclusive(exclusive)
        logits = torch.tensor([[0.5, 1.5, 1.0, -1.0], [0.2, 0.4, 0.6, 0.8]])
        truth = torch.tensor([[1.0, 0.0, 0.0, 1.0], [NAN] * 4])
        share = self.drawn(loss, logits, truth)
        error = (logits[0].sigmoid() - truth[0]).abs()
        trusted = torch.tensor([1.0, 0.0, 1.0, 1.0])  # tag 1 was not mentioned, and nothing mentioned excludes it
        chances = error**2 * trusted
        torch.testing.assert_close(share[0], chances / chances.sum(), atol=0.01, rtol=0)
        assert not share[1].any()

    def test_without_exclusive_tags_only_positives_count(self) -> None:
        torch.manual_seed(0)
        share = self.drawn(RelationalHardTagLoss(1000), torch.tensor([[0.5, 1.5]]), torch.tensor([[1.0, 0.0]]))
        torch.testing.assert_close(share, torch.tensor([[1.0, 0.0]]))

    def test_two_mentioned_tags_do_not_deny_each_other(self) -> None:
        loss = RelationalHardTagLoss(100)
        loss.set_exclusive(~torch.eye(2, dtype=torch.bool))
        value = loss(torch.tensor([[20.0, 20.0]]), torch.ones(1, 2))
        assert float(value) == pytest.approx(0, abs=1e-6)

    def test_masked_answers_are_not_trusted(self) -> None:
        loss = RelationalHardTagLoss(50)
        loss.set_exclusive(~torch.eye(3, dtype=torch.bool))
        # The first excludes the other two, but nobody knows of the second; it would be the most wrong.
        value = loss(torch.tensor([[20.0, 9.0, -1.0]]), torch.tensor([[1.0, NAN, 0.0]]))
        assert float(value) == pytest.approx(cross_entropy(-1.0, 0), rel=1e-3)

    @pytest.mark.parametrize("rows", [2, 0])
    def test_nothing_to_trust(self, rows: int) -> None:
        logits = torch.randn(rows, 3, requires_grad=True)
        value = RelationalHardTagLoss()(logits, torch.full((rows, 3), NAN))
        value.backward()
        assert float(value.detach()) == 0

    def test_bad_number_of_pairs(self) -> None:
        with pytest.raises(InputError, match="num_pairs is 0"):
            RelationalHardTagLoss(num_pairs=0)
