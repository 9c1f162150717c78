"""Whole detectors of the papers' size on a GPU: from slice stacks to boxes and masks.

Weights are random and norms have the statistics of a small input, as in ``benchmarks.detectors``: proposals, boxes and
masks are as many as the config allows.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.cuda._modes import REPEATS, Mode, batch, measured, modes
from benchmarks.detectors import _build
from mmpluld.engine.config import load_config

DETECTORS = {
    "A3D": "a3d_densenet121-fpn_7s_20e_deeplesion",
    "AlignShift": "alignshift_densenet121-fpn_7s_20e_deeplesion",
    "LENS, four datasets": "lens-afp_densenet121_4datasets_9s_8e_deeplesion",
    "Faster R-CNN": "faster-rcnn_r50-fpn_3s_20e_deeplesion",
}
BATCHES = (1, 16)


def _row(label: str, name: str, mode: Mode, count: int, device: str, size: int, repeats: int) -> dict[str, Any]:
    model, _ = _build(name)
    mode.prepare(model.to(device))
    data = batch(load_config(name), count, size, with_truth=False)
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
