"""Whole detectors of the papers' size on a GPU: from slice stacks to boxes and masks.

Weights are random and norms have the statistics of a small input, as in ``benchmarks.detectors``: proposals, boxes and
masks are as many as the config allows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.cuda._modes import REPEATS, Mode, batch, build, measured, modes
from mmpluld.engine.config import load_config

DETECTORS = {
    "A3D": "a3d_densenet121-fpn_7s_20e_deeplesion",
    "AlignShift": "alignshift_densenet121-fpn_7s_20e_deeplesion",
    "LENS, four datasets": "lens-afp_densenet121_4datasets_9s_8e_deeplesion",
    "Faster R-CNN": "faster-rcnn_r50-fpn_3s_20e_deeplesion",
}
BATCHES = (1, 16)


def _built(name: str, device: str) -> tuple[Any, Any]:
    """The config, and the detector with random weights."""
    config = load_config(name)
    model = build(config.model).to(device)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model.train().extract_feat(model.data_preprocessor(batch(config, 1, 64, False))["inputs"])
    return config, model.eval()


def _row(label: str, name: str, mode: Mode, count: int, device: str, size: int, repeats: int) -> dict[str, Any]:
    config, model = _built(name, device)
    mode.prepare(model)
    data = batch(config, count, size, with_truth=False)
    boxes = []

    def detect() -> None:
        with torch.inference_mode(), mode.autocast(device):
            boxes.append(min(len(found.pred_instances) for found in model.test_step(data)))

    seconds, memory = measured(detect, device, repeats)
    return {
        "detector": label,
        "batch": count,
        "precision": mode.precision,
        "layout": mode.layout,
        "key slices/s": count / seconds,
        "ms per key slice": seconds * 1e3 / count,
        "boxes": min(boxes),
        "memory, MB": round(memory),
    }


def run(device: str = "cuda", size: int = 512, repeats: int = REPEATS) -> dict[str, Any]:
    """Measure all on stacks of ``size`` x ``size``."""
    rows = [
        _row(label, name, mode, count, device, size, repeats)
        for label, name in DETECTORS.items()
        for mode in modes("fp32", "bf16")
        for count in BATCHES
    ]
    return {
        "name": f"Whole detectors, stacks of {size} x {size}, random weights",
        "bar": "none; there is no other implementation to compare with on this machine",
        "rows": rows,
    }
