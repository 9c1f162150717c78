"""The classifier of patches."""

import math

import pytest
import torch

from mmpluld.models.classifiers import PatchClassifier

BACKBONE = {"type": "InflatedResNet", "channels": 2, "num_blocks": (1, 1, 1, 1), "stem_stride": 1, "stem_pool": False}


@pytest.fixture
def model(mmpluld_scope):
    torch.manual_seed(0)
    return PatchClassifier(BACKBONE, fc_channels=4).eval()


def test_focal_loss_by_hand(model):
    torch.nn.init.zeros_(model.logit.weight)
    for bias, label in ((0.0, 1), (0.0, 0), (2.0, 1), (2.0, 0)):
        torch.nn.init.constant_(model.logit.bias, bias)
        right = 1 / (1 + math.exp(-bias if label else bias))
        losses = model(torch.zeros(1, 1, 4, 8, 8), torch.tensor([[2.0, 2, 1, 6, 6, 3]]), torch.tensor([label]), "loss")
        # alpha 0.5 weights both kinds alike.
        assert losses["loss_cls"].item() == pytest.approx(-0.5 * (1 - right) ** 2 * math.log(right), rel=1e-5)


def test_predictions_are_scores_with_the_labels_that_are_known(model):
    inputs, boxes = torch.randn(3, 1, 4, 8, 8), torch.tensor([[2.0, 2, 1, 6, 6, 3]] * 3)
    logits = model(inputs, boxes)
    found = model(inputs, boxes, torch.tensor([1, 0, 1]), "predict")
    assert [item["score"] for item in found] == pytest.approx(logits.sigmoid().tolist())
    assert [item["label"] for item in found] == [1, 0, 1]
    assert model(inputs, boxes, mode="predict")[0]["label"] is None


def test_the_box_is_pooled_from_blocks_1_to_3_and_the_whole_patch_from_block_4(model):
    inputs = torch.randn(1, 1, 4, 16, 16)
    boxes = [torch.tensor([box]) for box in ([1.0, 1, 0, 5, 5, 2], [8.0, 8, 1, 15, 15, 4])]
    assert model(inputs, boxes[0]).item() != model(inputs, boxes[1]).item()
    for fc in model.fcs[:3]:
        torch.nn.init.zeros_(fc.weight)
    assert model(inputs, boxes[0]).item() == model(inputs, boxes[1]).item()
    assert model(inputs, boxes[0]).item() != model(inputs + 1, boxes[0]).item()


def test_a_step_of_training_reaches_every_weight(model):
    model.train()
    losses = model(
        torch.randn(4, 1, 4, 8, 8), torch.tensor([[2.0, 2, 1, 6, 6, 3]] * 4), torch.tensor([1, 0, 0, 1]), "loss"
    )
    losses["loss_cls"].backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in model.parameters())
