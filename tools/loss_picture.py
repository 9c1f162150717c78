"""Draw docs/images/factor.png: ``python tools/loss_picture.py OUT.png``. What a factor on negatives can change."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import mmpluld.registry  # isort: skip  makes mmdet importable where mmcv has no compiled operators
import numpy as np
import torch
from torch import Tensor, nn

import mmpluld.models  # noqa: F401  registers the losses
from mmpluld.registry import MODELS
from mmpluld.visualization.figures import COLOURS, figure_at, tidy

CROSS_ENTROPY = {"type": "CrossEntropyLoss", "use_sigmoid": True}
FACTORS: dict[str, dict[str, Any]] = {
    "factor 1": CROSS_ENTROPY,
    "factor 0.6": {"type": "PartialLabelLoss", "neg_weight": 0.6, "keep_prob": 1.0},
    "factor 0.3": {"type": "PartialLabelLoss", "neg_weight": 0.3, "keep_prob": 1.0},
    "factor 0.6, half masked": {"type": "PartialLabelLoss", "neg_weight": 0.6, "keep_prob": 0.5},
}
REMEDIES = {"ignored": "IgnoreHardNegatives", "recalibrated": "BackgroundRecalibrationLoss"}
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
DRAWS = 6
LINES = ("-", "--", "-.", ":")


def build(settings: dict[str, Any]) -> nn.Module:
    """The loss of these settings, around a cross entropy where it is a wrapper."""
    wrapper = {} if settings is CROSS_ENTROPY else {"loss": CROSS_ENTROPY, "use_sigmoid": True}
    return MODELS.build({**settings, **wrapper})


def fit(features: Tensor, lesion: Tensor, weight: Tensor, stages: list[tuple[nn.Module, int]]) -> Tensor:
    """Weights of a logistic model after full-batch training: stages of (loss, steps) in turn."""
    weights = torch.zeros(features.size(1), 1, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.1)
    for loss, steps in stages:
        for _ in range(steps):
            optimizer.zero_grad()
            loss(features @ weights, (~lesion).long(), weight, avg_factor=float(weight.sum())).backward()
            optimizer.step()
    return weights.detach()


def all_appearances() -> tuple[Tensor, Tensor]:
    """Probability to be a lesion, and to be marked as one, of 2 kinds with 30 contrasts each; all equally frequent."""
    lesion = torch.sigmoid(torch.linspace(-4, 3, 30)).repeat(2)
    marked = lesion * torch.tensor([0.5, 0.15]).repeat_interleave(30)
    return lesion, marked


def optimum(settings: dict[str, Any]) -> Tensor:
    """Score of each appearance where each has its own: no limit of the model, and nothing left to chance."""
    torch.manual_seed(0)
    _, marked = all_appearances()
    copies = 100 if settings.get("keep_prob", 1) < 1 else 1  # so that masks average out
    identity = torch.eye(60).repeat(2 * copies, 1)
    target = torch.tensor([True, False]).repeat_interleave(60).repeat(copies)
    weight = torch.cat([marked, 1 - marked]).repeat(copies)
    return fit(identity, target, weight, [(build(settings), 400)])[:, 0].sigmoid()


def few_examples(settings: dict[str, Any], draw: int, complete: bool = False) -> float:
    """Area under the ROC curve of a logistic model of 40 features, of which one tells lesions, after 600 examples.

    10 % are lesions, of which 20 % are marked at random. The first half of the steps is warm-up.
    """
    torch.manual_seed(draw)
    lesion, test_lesion, drawn = torch.rand(600) < 0.1, torch.rand(5000) < 0.1, torch.rand(600) < 0.2
    x, test = torch.randn(600, 41), torch.randn(5000, 41)
    for features, is_lesion in ((x, lesion), (test, test_lesion)):
        features[:, 0] += 3 * is_lesion
        features[:, -1] = 1
    stages = [(build(CROSS_ENTROPY), 75), (build(settings), 75)]
    score = (test @ fit(x, lesion if complete else lesion & drawn, torch.ones(600), stages))[:, 0]
    false, true = roc(score, test_lesion.float())
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))


def mean_area(settings: dict[str, Any], complete: bool = False) -> float:
    """Mean of ``few_examples`` over draws of the examples."""
    return float(np.mean([few_examples(settings, draw, complete) for draw in range(DRAWS)]))


def roc(score: Tensor, weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate by falling score; ``weight`` is the probability to be a lesion."""
    order = torch.argsort(score, descending=True, stable=True)
    true, false = weight[order].double().cumsum(0), (1 - weight[order].double()).cumsum(0)
    start = torch.zeros(1, dtype=torch.float64)
    return torch.cat([start, false / false[-1]]).numpy(), torch.cat([start, true / true[-1]]).numpy()


def draw(out: Path) -> None:
    """Write the three plots."""
    lesion, marked = all_appearances()
    with figure_at(out, (11.0, 3.8), font_size=9, dpi=110) as figure:
        left, middle, right = figure.subplots(1, 3)
        order = torch.argsort(marked)
        for (name, settings), colour, line in zip(FACTORS.items(), COLOURS, LINES, strict=False):
            score, style = optimum(settings), {"color": colour, "linestyle": line, "label": name}
            left.plot(marked[order], score[order], **style)
            middle.plot(*roc(score, lesion), **style)
        left.set(xlabel="share of such places that is marked", ylabel="score at the optimum", title="scores differ ...")
        middle.set(xlabel="false positive rate", ylabel="sensitivity, complete truth", title="... their order does not")
        right.axhline(mean_area(CROSS_ENTROPY, complete=True), color="#999999", linestyle="--", label="complete labels")
        for name, colour, line in (("factor 1", COLOURS[0], "-"), ("factor 0.6, half masked", COLOURS[3], ":")):
            right.axhline(mean_area(FACTORS[name]), color=colour, linestyle=line, label=name)
        for (name, kind), colour in zip(REMEDIES.items(), COLOURS[4:6], strict=True):
            areas = [mean_area({"type": kind, "threshold": threshold}) for threshold in THRESHOLDS]
            right.plot(THRESHOLDS, areas, marker=".", color=colour, label=f"negatives above it {name}")
        right.set(xlabel="threshold of the score", ylabel="area under the ROC curve", title="losses that look at it")
        for axes, place in ((left, "upper left"), (middle, "lower right"), (right, (0.3, 0.65))):
            axes.legend(fontsize=8, loc=place)
            tidy(axes)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw what a factor on negatives changes, and what it cannot change.")
    parser.add_argument("out", type=Path, help="PNG file to write")
    torch.set_num_threads(1)  # sums in one order
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
