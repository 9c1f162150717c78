"""Training steps of detectors of the papers' size on a GPU, with the batch, optimiser and clipping of their configs.

The data is in memory: what loading takes is measured by ``benchmarks.slice_loading``.
"""

from __future__ import annotations

from typing import Any

from mmengine.optim import build_optim_wrapper

from benchmarks.cuda._modes import REPEATS, Mode, batch, build, measured, modes
from mmpluld.engine.config import load_config

DETECTORS = {
    "A3D + partial-label loss": ("pluld-a3d_densenet121-fpn_7s_20e_deeplesion", 2),
    "LENS, four datasets": ("lens-afp_densenet121_4datasets_9s_8e_deeplesion", 4),
    "Faster R-CNN + partial-label loss": ("pluld-faster-rcnn_r50-fpn_3s_20e_deeplesion", 2),
}


def _row(label: str, name: str, count: int, mode: Mode, device: str, size: int, repeats: int) -> dict[str, Any]:
    config = load_config(name)
    model = mode.prepare(build(config.model).to(device)).train()
    wrapper = config.optim_wrapper.to_dict()
    if mode.dtype is not None:  # as `mmpluld train --amp` does, which takes fp16
        dtype = {"fp16": "float16", "bf16": "bfloat16"}[mode.precision]
        wrapper |= {"type": "AmpOptimWrapper", "loss_scale": "dynamic", "dtype": dtype}
    optimiser = build_optim_wrapper(model, wrapper)
    data = batch(config, count, size, with_truth=True)
    seconds, memory = measured(lambda: model.train_step(data, optimiser), device, repeats)
    return {
        "detector": label,
        "batch": count,
        "precision": mode.precision,
        "layout": mode.layout,
        "images/s": count / seconds,
        "ms per step": seconds * 1e3,
        "memory, MB": round(memory),
    }


def run(device: str = "cuda", size: int = 512, repeats: int = REPEATS) -> dict[str, Any]:
    """Measure all on stacks of ``size`` x ``size``."""
    rows = [
        _row(label, name, count, mode, device, size, repeats)
        for label, (name, count) in DETECTORS.items()
        for mode in modes("fp32", "bf16", "fp16")
    ]
    return {
        "name": f"Training, stacks of {size} x {size}, batches of one GPU of two (LENS: of one)",
        "bar": "none; there is no other implementation to compare with on this machine",
        "rows": rows,
    }
