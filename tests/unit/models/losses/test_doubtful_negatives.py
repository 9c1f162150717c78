"""Losses that look at the score of a negative, by hand and in the heads that take them."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor

from mmpluld.engine.config import load_config
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

BCE = {"type": "CrossEntropyLoss", "use_sigmoid": True}
SOFTMAX = {"type": "CrossEntropyLoss", "use_sigmoid": False}
FOCAL = {"type": "FocalLoss", "use_sigmoid": True}
KINDS = ("IgnoreHardNegatives", "BackgroundRecalibrationLoss")
LESION, BACKGROUND = 0, 1
LABELS = torch.tensor([LESION, BACKGROUND, BACKGROUND, BACKGROUND])
LOGITS = torch.tensor([[2.0], [2.0], [-1.0], [0.0]])  # scores 0.88, 0.88, 0.27, 0.5


@pytest.fixture
def hub() -> MessageHub:
    """What a runner would keep its count in."""
    return MessageHub.get_instance("test_doubtful_negatives")


def build(kind: str, loss: dict[str, Any] = BCE, threshold: float = 0.5, **changes: object) -> torch.nn.Module:
    flag = {"use_sigmoid": True} if loss["use_sigmoid"] else {}
    return MODELS.build({"type": kind, "loss": loss, "threshold": threshold, **flag, **changes})


def cross(logit: float, target: int) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -math.log(p if target else 1 - p)


def focal(logit: float, target: int) -> float:
    p = 1 / (1 + math.exp(-logit))
    return 0.25 * (1 - p) ** 2 * -math.log(p) if target else 0.75 * p**2 * -math.log(1 - p)


@pytest.mark.parametrize(("loss", "formula"), [(BCE, cross), (FOCAL, focal)])
def test_values_by_hand(loss: dict[str, Any], formula: Any) -> None:
    ignored = build("IgnoreHardNegatives", loss)(LOGITS, LABELS, reduction_override="none")
    expected = [formula(2, 1), 0.0, formula(-1, 0), formula(0, 0)]  # a score at the threshold is not above it
    torch.testing.assert_close(ignored, torch.tensor(expected).view(-1, 1))
    recalibrated = build("BackgroundRecalibrationLoss", loss)(LOGITS, LABELS, reduction_override="none")
    expected[1] = formula(2, 1)
    torch.testing.assert_close(recalibrated, torch.tensor(expected).view(-1, 1))


def test_gradient_of_a_negative_vanishes_or_turns_round_at_the_threshold() -> None:
    logits = torch.tensor([[1.0], [1.0], [-1.0]], requires_grad=True)
    labels = torch.tensor([LESION, BACKGROUND, BACKGROUND])
    p = torch.tensor(1.0).sigmoid()
    build("IgnoreHardNegatives", threshold=0.7)(logits, labels, reduction_override="sum").backward()
    torch.testing.assert_close(logits.grad, torch.stack([p - 1, 0 * p, 1 - p]).view(-1, 1))
    logits.grad = None
    build("BackgroundRecalibrationLoss", threshold=0.7)(logits, labels, reduction_override="sum").backward()
    torch.testing.assert_close(logits.grad, torch.stack([p - 1, p - 1, 1 - p]).view(-1, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_than_the_limit_for_each_positive_and_the_highest_scores_first(kind: str) -> None:
    # Two positives that count; negatives with scores 0.99, 0.95 (not sampled), 0.88, 0.95, 0.73, 0.5.
    logits = torch.tensor([[2.0], [2.0], [2.0], [5.0], [3.0], [2.0], [3.0], [1.0], [0.0]])
    labels = torch.tensor([LESION] * 3 + [BACKGROUND] * 6)
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    plain = MODELS.build(BCE)(logits, labels, weight, reduction_override="none").flatten()
    for limit, doubtful in (
        (0.4, []),
        (0.5, [3]),
        (1.4, [3, 6]),
        (1.5, [3, 6, 5]),
        (9, [3, 6, 5, 7]),
        (None, [3, 6, 5, 7]),
    ):
        loss = build(kind, limit=limit)(logits, labels, weight, reduction_override="none").flatten()
        assert (loss != plain).nonzero().flatten().tolist() == sorted(doubtful)


def test_a_dense_head_does_not_run_away_with_a_limit() -> None:
    """A field of scores with one bias for all: with a limit the many hold it down, without it goes up."""
    torch.manual_seed(0)
    features = torch.randn(2000, 4)
    labels = torch.where(torch.arange(2000) < 10, LESION, BACKGROUND)
    features[:20] += torch.tensor([2.0, 0, 0, 0])  # ten more like the ten marked
    shares = {}
    for limit in (None, 1.0):
        weight, bias = torch.zeros(4, 1, requires_grad=True), torch.full((1,), 0.9, requires_grad=True)
        optimizer = torch.optim.SGD([weight, bias], 0.5)
        module = build("BackgroundRecalibrationLoss", FOCAL, 0.3, limit=limit)
        for _ in range(300):
            optimizer.zero_grad()
            module(features @ weight + bias, labels, avg_factor=10).backward()
            optimizer.step()
        shares[limit] = float(((features @ weight + bias).sigmoid() > 0.5).float().mean())
    assert shares[None] == 1.0
    assert shares[1.0] < 0.05


def test_softmax_by_hand() -> None:
    logits = torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0]], requires_grad=True)
    labels = torch.tensor([LESION, BACKGROUND, BACKGROUND])
    right, wrong = -math.log(1 / (1 + math.exp(-3))), -math.log(1 / (1 + math.exp(3)))
    values = {}
    for kind in KINDS:
        loss = build(kind, SOFTMAX, 0.9)
        values[kind] = loss(logits, labels, torch.ones(3), avg_factor=3)
        torch.testing.assert_close(build(kind, SOFTMAX, 0.96)(logits, labels), torch.tensor((2 * right + wrong) / 3))
    torch.testing.assert_close(values[KINDS[0]], torch.tensor(2 * right / 3))  # the divisor stays
    torch.testing.assert_close(values[KINDS[1]], torch.tensor(3 * right / 3))
    (gradient,) = torch.autograd.grad(values[KINDS[0]], logits)
    assert gradient[1].tolist() == [0.0, 0.0]


def test_the_most_likely_class_counts_and_a_lesion_is_never_doubtful() -> None:
    logits = torch.tensor([[-3.0, 2.0], [1.0, 2.0], [3.0, -3.0]])
    labels = torch.tensor([2, 0, 2])  # background, a lesion of class 0 with a higher score of class 1, background
    stock = MODELS.build(FOCAL)
    recalibrated = build(KINDS[1], FOCAL)(logits, labels, reduction_override="none")
    assert torch.equal(recalibrated, stock(logits, torch.tensor([1, 0, 0]), reduction_override="none"))
    ignored = build(KINDS[0], FOCAL)(logits, labels, reduction_override="none")
    assert (ignored[[0, 2]] == 0).all()
    assert torch.equal(ignored[1], stock(logits, labels, reduction_override="none")[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("loss", [BCE, FOCAL, SOFTMAX])
def test_no_negative_above_the_threshold_gives_the_wrapped_loss_bit_for_bit(kind: str, loss: dict[str, Any]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(60, 1 if loss["use_sigmoid"] else 2, requires_grad=True)
    labels, weight = torch.randint(0, 2, (60,)), torch.randint(0, 2, (60,)).float()
    state = torch.get_rng_state()
    values = [
        module(logits, labels, weight, avg_factor=7.0)
        for module in (build(kind, loss, 0.9999), build(kind, loss, 0.2).eval(), MODELS.build(loss))
    ]
    assert torch.equal(values[0], values[2]) and torch.equal(values[1], values[2])
    assert torch.equal(*[torch.autograd.grad(value, logits)[0] for value in values[::2]])
    assert not torch.equal(build(kind, loss, 0.2)(logits, labels, weight, avg_factor=7.0), values[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_unsampled_anchors_stay_out() -> None:
    logits = torch.tensor([[5.0], [5.0], [-5.0]], requires_grad=True)
    for kind in KINDS:
        value = build(kind)(logits, torch.tensor([1, 0, 1]), torch.tensor([0.0, 1.0, 1.0]), avg_factor=2)
        assert torch.autograd.grad(value, logits)[0][0] == 0


def test_around_the_partial_label_loss() -> None:
    inner = {"type": "PartialLabelLoss", "use_sigmoid": True, "loss": BCE, "neg_weight": 0.6, "keep_prob": 1.0}
    recalibrated = build(KINDS[1], inner)(LOGITS, LABELS, reduction_override="none")
    expected = [cross(2, 1), cross(2, 1), 0.6 * cross(-1, 0), 0.6 * cross(0, 0)]
    torch.testing.assert_close(recalibrated, torch.tensor(expected).view(-1, 1))


def test_quality_focal_loss_can_be_ignored_only() -> None:
    inner = {"type": "QualityFocalLoss", "use_sigmoid": True}
    values = build(KINDS[0], inner)(LOGITS, (LABELS, torch.zeros(4)), torch.ones(4), reduction_override="none")
    assert values[1] == 0 and (values[[0, 2, 3]] > 0).all()
    with pytest.raises(ValueError, match="cannot wrap QualityFocalLoss; take a loss whose target is a class index"):
        build(KINDS[1], inner)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_extreme_logits_and_no_anchors(kind: str) -> None:
    logits = torch.tensor([[1e4], [-1e4], [3.0]]).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = build(kind)(logits, torch.tensor([1, 1, 0]), torch.ones(3), avg_factor=3.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    nothing = build(kind)(
        torch.zeros(0, 1, requires_grad=True), torch.zeros(0, dtype=torch.long), torch.zeros(0), avg_factor=1
    )
    assert nothing.item() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_is_a_share_of_the_runners_iterations(kind: str, hub: MessageHub) -> None:
    loss, stock = build(kind, warmup=0.25), MODELS.build(BCE)(LOGITS, LABELS)
    hub.update_info("max_iters", 100)
    for iteration, warm in ((0, False), (24, False), (25, True), (99, True)):
        hub.update_info("iter", iteration)
        assert torch.equal(loss(LOGITS, LABELS), stock) != warm


def test_warm_up_without_a_runner_is_refused() -> None:
    MessageHub.get_instance("test_doubtful_negatives_empty")
    with pytest.raises(ValueError, match="warmup is 0.2, but no mmengine Runner counts .* set it to 0"):
        build(KINDS[0], warmup=0.2)(LOGITS, LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": None}, "loss is None; it is the config of the wrapped loss"),
        ({"threshold": 0.0}, "threshold is 0.0; it is a score above 0 and below 1"),
        ({"threshold": True}, "threshold is True"),
        ({"threshold": math.nan}, "threshold is nan"),
        ({"warmup": 1.0}, "warmup is 1.0; it is a share of the training"),
        ({"warmup": -0.1}, "warmup is -0.1"),
        ({"limit": 0}, "limit is 0; it is a number above 0"),
        ({"limit": True}, "limit is True"),
        ({"limit": math.nan}, "limit is nan"),
        ({"use_sigmoid": False}, "is False, but .* CrossEntropyLoss is True; write use_sigmoid=True beside type"),
        ({"loss": {"type": "VarifocalLoss", "use_sigmoid": True}}, "cannot wrap VarifocalLoss"),
        ({"loss": {"type": "GaussianFocalLoss"}, "use_sigmoid": False}, "cannot wrap GaussianFocalLoss"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_settings(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{kind}: .*{message}"):
        MODELS.build({"type": kind, "loss": BCE, "threshold": 0.5, "use_sigmoid": True, **changes})


def test_soft_targets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"targets of shape \(4, 1\), torch.float32; it works on class indices"):
        build(KINDS[0])(LOGITS, torch.zeros(4, 1))


# name of a config, and where its classification losses are
PLACES = {
    "a3d_densenet121-fpn_7s_phantom": ("rpn_head", "roi_head.bbox_head"),
    "retinanet-a3d_densenet121-fpn_7s_phantom": ("bbox_head",),
    "fcos-a3d_densenet121-fpn_7s_phantom": ("bbox_head",),
    "lens-afp_densenet121_9s_phantom": ("rpn_head", "roi_head.bbox_head"),
    "lens-afp_densenet121_4datasets_9s_phantom": ("rpn_head.head", "roi_head.bbox_head"),
}


def detector(name: str, kind: str | None, threshold: float) -> torch.nn.Module:
    config = load_config(name)
    for place in PLACES[name]:
        head = config.model
        for key in place.split("."):
            head = head[key]
        stock = head.loss_cls.to_dict()
        if kind is not None:
            flag = {"use_sigmoid": stock["use_sigmoid"]}
            head.loss_cls = ConfigDict(type=kind, **flag, loss=stock, threshold=threshold)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    return model.train()


def trained(name: str, kind: str | None, threshold: float) -> dict[str, Tensor]:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    model = detector(name, kind, threshold)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    slices = 9 if "lens" in name else 7
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        sample = DetDataSample(metainfo={"img_shape": (64, 64), "ori_shape": (64, 64), "scale_factor": (1.0, 1.0)})
        sample.set_metainfo({"dataset": "deeplesion"})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[20.0, 24.0, 36.0, 40.0]]), labels=torch.zeros(1, dtype=torch.long)
        )
        mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
        mask[0, 24:40, 20:36] = 1
        sample.gt_instances.masks = BitmapMasks(mask.numpy(), 64, 64)
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        image = torch.rand(slices, 64, 64, generator=generator) * 255 - 50
        model.train_step({"inputs": [image], "data_samples": [sample]}, wrapper)
    return model.state_dict()


@pytest.mark.parametrize("name", PLACES)
def test_in_every_detector_by_config_alone(name: str, tmp_path: Path) -> None:
    stock, off = trained(name, None, 0.5), trained(name, KINDS[0], 1 - 1e-6)
    assert stock.keys() == off.keys()  # no state of its own, so weights fit with and without
    assert all(torch.equal(stock[key], off[key]) for key in stock)
    for kind in KINDS:
        on = trained(name, kind, 1e-3)
        assert any(not torch.equal(stock[key], on[key]) for key in stock if key.startswith("backbone."))
        assert all(torch.isfinite(value).all() for value in on.values())
    assert all(map(torch.equal, on.values(), trained(name, KINDS[1], 1e-3).values()))
    torch.save(on, tmp_path / "weights.pth")
    detector(name, KINDS[0], 0.5).load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))


class Witness(BaseModel):
    """One layer under the loss; notes in which iterations the loss looks at scores, and fails in one of them."""

    def __init__(self, fails_in: int | None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.loss = build(KINDS[0], warmup=0.5)
        self.fails_in = fails_in
        self.seen: list[bool] = []

    def forward(self, inputs: list[Tensor], mode: str = "loss") -> dict[str, Tensor]:
        if MessageHub.get_current_instance().get_info("iter") == self.fails_in:
            raise RuntimeError("killed")
        logits = 0 * self.layer(torch.stack(inputs)) + 2  # a score of 0.88
        value = self.loss(logits, torch.ones(len(inputs), dtype=torch.long))
        self.seen.append(value.item() == 0)
        return {"loss": value}


def test_warm_up_of_a_resumed_training_goes_on(tmp_path: Path) -> None:
    loader = {"batch_size": 1, "dataset": [{"inputs": torch.ones(1)}], "sampler": {"type": "DefaultSampler"}}
    models = {name: Witness(2 if name == "killed" else None) for name in ("whole", "killed", "resumed")}
    for name, model in models.items():
        runner = Runner(
            model=model,
            work_dir=str(tmp_path / ("whole" if name == "whole" else "killed")),
            train_dataloader=loader,
            train_cfg={"by_epoch": True, "max_epochs": 4},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
            default_hooks={"checkpoint": {"type": "SafeCheckpointHook", "interval": 1}},
            default_scope="mmpluld",
            experiment_name=f"warm-up-{name}",
            log_level="ERROR",
            resume=name == "resumed",
        )
        with pytest.raises(RuntimeError, match="killed") if name == "killed" else nullcontext():
            runner.train()
    seen = {name: model.seen for name, model in models.items()}
    assert seen == {"whole": [False, False, True, True], "killed": [False, False], "resumed": [True, True]}
