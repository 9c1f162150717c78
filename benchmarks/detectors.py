"""Whole detectors of the papers' size: key slices per second and peak memory, from slice stack to boxes and masks.

Preprocessing, backbone, proposals, heads and suppression run as ``mmpluld detect`` runs them, on one stack at a time.
Each model and precision has its own process, so that the memory is its own. Linux only: the peak is read in ``/proc``.

The weights are random and the norms' statistics those of a small input, so that boxes differ and none is ruled out by
its score: proposals, boxes and masks are as many as the config allows, and a trained detector has no more to do. The
partial-label loss is gone after training, so its detectors are those of this list.

Run: python -m benchmarks.detectors
"""

from __future__ import annotations

import logging
import statistics
import time
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from torch import nn

from benchmarks._apart import apart, peak_memory_mb
from mmpluld.compat.allocator import tune_allocator
from mmpluld.compat.half_precision import keep_boxes_exact
from mmpluld.datasets.steps import num_slices
from mmpluld.engine.config import load_config
from mmpluld.registry import MODELS

DETECTORS = {
    "A3D": "a3d_densenet121-fpn_7s_20e_deeplesion",
    "AlignShift": "alignshift_densenet121-fpn_7s_20e_deeplesion",
    "TSM": "tsm_densenet121-fpn_7s_20e_deeplesion",
    "2.5D": "25d_densenet121-fpn_7s_20e_deeplesion",
    "Faster R-CNN": "faster-rcnn_r50-fpn_3s_20e_deeplesion",
}
PRECISIONS = {"fp32": False, "bf16": True}
REPEATS = 3
SLICE_INTERVAL_MM = 5.0


def _data(num_slices: int, size: int) -> dict[str, Any]:
    """A stack of noise in the range that the window transform yields."""
    shape = {"img_shape": (size, size), "ori_shape": (size, size), "scale_factor": (1.0, 1.0)}
    sample = DetDataSample(metainfo={**shape, "slice_interval_mm": SLICE_INTERVAL_MM})
    return {"inputs": [torch.rand(num_slices, size, size) * 255 - 50], "data_samples": [sample]}


def _build(config_name: str) -> tuple[Any, int]:
    """A detector with random weights, and its number of slices."""
    torch.manual_seed(0)
    config = load_config(config_name)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        model = MODELS.build(config.model)
    logging.disable(logging.INFO)  # mmengine reports on every tensor
    model.init_weights()
    keep_boxes_exact(model)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    depth = num_slices(config) or 1
    with torch.no_grad():
        model.train().extract_feat(model.data_preprocessor(_data(depth, 64))["inputs"])
    return model.eval(), depth


def _measure(config_name: str, bf16: bool, size: int, repeats: int) -> dict[str, Any]:
    """Seconds, boxes and memory of one detector; to be run in a process of its own."""
    tune_allocator()
    model, num_slices = _build(config_name)

    def run_once() -> tuple[float, int]:
        data = _data(num_slices, size)
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            (result,) = model.test_step(data)
        return time.perf_counter() - start, len(result.pred_instances)

    run_once()
    runs = [run_once() for _ in range(repeats)]
    return {
        "slices": num_slices,
        "seconds": statistics.median(seconds for seconds, _ in runs),
        "boxes": min(boxes for _, boxes in runs),
        "peak_mb": peak_memory_mb(),
    }


def run(size: int = 512, repeats: int = REPEATS) -> dict[str, Any]:
    """Measure all detectors on stacks of ``size`` x ``size``; at 512 it takes some minutes."""
    rows = []
    for label, name in DETECTORS.items():
        for precision, bf16 in PRECISIONS.items():
            found = apart(_measure, name, bf16, size, repeats)
            rows.append(
                {
                    "detector": label,
                    "slices": found["slices"],
                    "precision": precision,
                    "key slices/s": 1 / found["seconds"],
                    "s per key slice": found["seconds"],
                    "boxes": found["boxes"],
                    "peak memory, MB": round(found["peak_mb"]),
                }
            )
    return {
        "name": f"Whole detectors, one stack of {size} x {size} at a time, random weights",
        "bar": "none; there is no other implementation to compare with on this machine",
        "rows": rows,
    }


if __name__ == "__main__":
    for row in run()["rows"]:
        print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
