"""Backbones of the papers' size on a GPU: evaluation and a training step, and A3D's plain formulation beside ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from benchmarks.a3d_backbone import plain_forward
from benchmarks.cuda._modes import INTERVAL_MM, REPEATS, Mode, build, measured, modes
from mmpluld.datasets.steps import num_slices
from mmpluld.engine.config import load_config
from mmpluld.models.data_preprocessors import SliceStacks

BACKBONES = {
    "A3D": "a3d_densenet121-fpn_7s_20e_deeplesion",
    "AlignShift": "alignshift_densenet121-fpn_7s_20e_deeplesion",
    "LENS": "lens-afp_densenet121_9s_8e_deeplesion",
    "ResNet-50": "faster-rcnn_r50-fpn_3s_20e_deeplesion",
}
PLAIN = "A3D, plain"
STACKS = 4
BAR = 1.05


def _row(
    label: str, forward: Callable[[Tensor], Any], model: Any, mode: Mode, x: Tensor, repeats: int
) -> dict[str, Any]:
    """Time of evaluation and of a step, and memory of the step."""
    device = x.device.type

    def evaluate() -> None:
        with torch.inference_mode(), mode.autocast(device):
            forward(x)

    def step() -> None:
        with mode.autocast(device):
            loss = sum(part.float().square().mean() for part in forward(x))
        loss.backward()
        model.zero_grad()

    model.eval()
    evaluation, _ = measured(evaluate, device, repeats)
    model.train()
    training, memory = measured(step, device, repeats)
    return {
        "backbone": label,
        "slices": x.shape[1],
        "precision": mode.precision,
        "layout": mode.layout,
        "evaluation, ms": evaluation * 1e3 / len(x),
        "training step, ms": training * 1e3 / len(x),
        "memory of training, MB": round(memory),
    }


def _forward(model: Any, config: Config) -> Callable[[Tensor], Any]:
    """The backbone as a function of images alone; AlignShift also has to know the slice interval."""
    aligned = config.model.data_preprocessor.type == "ThicknessPreprocessor"

    def forward(images: Tensor) -> Any:
        return model(SliceStacks(images, images.new_full((len(images),), INTERVAL_MM)) if aligned else images)

    return forward


def run(device: str = "cuda", size: int = 512, repeats: int = REPEATS) -> dict[str, Any]:
    """Measure all on ``STACKS`` stacks of ``size`` x ``size`` at once; times are those of one."""
    rows = []
    for label, name in BACKBONES.items():
        config = load_config(name)
        for mode in modes("fp32", "bf16", "fp16"):
            model = mode.prepare(build(config.model.backbone).to(device))
            x = mode.laid_out(torch.randn(STACKS, num_slices(config) or 1, size, size, device=device))
            rows.append(_row(label, _forward(model, config), model, mode, x, repeats))
            if label == "A3D":
                rows.append(_row(PLAIN, partial(plain_forward, model), model, mode, x, repeats))
    plain = {(row["precision"], row["layout"]): row for row in rows if row["backbone"] == PLAIN}
    for row in rows:
        other = plain[row["precision"], row["layout"]]
        for what in ("evaluation", "training step"):
            ratio = row[f"{what}, ms"] / other[f"{what}, ms"]
            row[f"{what} / plain"] = ratio if row["backbone"].startswith("A3D") else "-"
    return {
        "name": f"Backbones, {STACKS} stacks of {size} x {size} at a time, ms per stack",
        "bar": f"A3D takes at most {BAR} of the time of its plain formulation (einsum mixing, 1 x k x k convolutions)",
        "rows": rows,
    }
