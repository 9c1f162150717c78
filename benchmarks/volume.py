"""Whole-volume detection: features shared between the stacks of neighbouring slices against one stack at a time.

With 9 slices as 3 images, the image of three slices is part of three stacks. Sharing computes it once; boxes stay the
same to the last bit. The neck, the proposal head and the box head see a fused map of each key slice and share nothing,
so backbone and neck are also timed on their own. Weights are random, as in ``benchmarks.detectors``.

Run: python -m benchmarks.volume
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch

from benchmarks.detectors import _build, _data, _peak_memory_mb
from mmpluld.compat.allocator import tune_allocator
from mmpluld.engine.config_check import load_config
from mmpluld.engine.run import find_config
from mmpluld.inference import VolumeDetector
from mmpluld.structures import CTVolume

CONFIG = "lens-afp_densenet121_9s_8e_deeplesion"
SMALL_CONFIG = "lens-afp_densenet121_9s_phantom"
NUM_SLICES, SIZE = 24, 512
MEMORY_SLICES, MEMORY_SIZE = (100, 400), 96
# Table III of LENS, ms per slice on its GPU.
PAPER_MS = {"rpn": 62, "centernet": 59, "fcos": 54, "afp": 54}
REPEATS = 3


def _volume(num_slices: int, size: int, pixel_mm: float) -> CTVolume:
    """Noise in the range of soft tissue, on the 2 mm grid."""
    rng = np.random.default_rng(0)
    array = rng.integers(-200, 300, (num_slices, size, size), dtype=np.int16)
    return CTVolume.from_canonical(array, (2.0, pixel_mm, pixel_mm))


def _compare(num_slices: int, size: int) -> dict[str, float]:
    """Seconds per key slice both ways, of the whole detector and of backbone and neck, and whether boxes are equal."""
    tune_allocator()
    model, _ = _build(CONFIG)
    config = load_config(find_config(CONFIG))
    volume = _volume(num_slices, size, 0.8)
    ways = {share: VolumeDetector(config, model, score_thr=0.0, share=share) for share in (False, True)}
    spent = {False: [0.0], True: [0.0]}
    extract, features = model.extract_feat, model.backbone.image_features
    depth = 0

    def timed(work: Callable[..., Any], share: bool) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            nonlocal depth
            start, depth = time.perf_counter(), depth + 1
            found = work(*args)
            depth -= 1
            if not depth:  # features of images are made within the backbone too
                spent[share][0] += time.perf_counter() - start
            return found

        return run

    seconds, findings = {}, {}
    ways[True].detect(_volume(9, size, 0.8))
    for share, detector in ways.items():
        model.extract_feat, model.backbone.image_features = timed(extract, share), timed(features, share)
        start = time.perf_counter()
        findings[share] = detector.detect(volume)
        seconds[share] = time.perf_counter() - start
    return {
        "alone": seconds[False] / num_slices,
        "shared": seconds[True] / num_slices,
        "alone_trunk": spent[False][0] / num_slices,
        "shared_trunk": spent[True][0] / num_slices,
        "boxes": len(findings[True]),
        "equal": float(findings[True] == findings[False]),
    }


def _memory(num_slices: int, size: int) -> float:
    """Peak memory in MB of detection in a volume, less the volume; to be run in a process of its own."""
    tune_allocator()
    model, _ = _build(SMALL_CONFIG)
    detector = VolumeDetector(load_config(find_config(SMALL_CONFIG)), model, score_thr=1.0)
    volume = _volume(num_slices, size, 2.8)
    detector.detect(volume)
    return _peak_memory_mb() - volume.array.nbytes / 1e6


def _proposals(names: list[str], size: int) -> dict[str, float]:
    """Shortest time in seconds of one stack, of each detector, in turns."""
    tune_allocator()
    models = {name: _build(f"lens-{name}_densenet121_9s_8e_deeplesion") for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(REPEATS + 1):
        for name, (model, num_slices) in models.items():
            data = _data(num_slices, size)
            start = time.perf_counter()
            with torch.inference_mode():
                model.test_step(data)
            times[name].append(time.perf_counter() - start)
    return {name: min(values[1:]) for name, values in times.items()}


def _apart(work: Callable[..., Any], *args: Any) -> Any:
    """The result of ``work`` in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def run(num_slices: int = NUM_SLICES, size: int = SIZE) -> dict[str, Any]:
    """Measure all; at the full size it takes some minutes."""
    logging.disable(logging.INFO)
    load = os.getloadavg()[0]
    found = _apart(_compare, num_slices, size)
    peaks = [_apart(_memory, count, MEMORY_SIZE) for count in MEMORY_SLICES]
    proposals = _apart(_proposals, list(PAPER_MS), size)
    whole, trunk = found["shared"] / found["alone"], found["shared_trunk"] / found["alone_trunk"]
    growth = peaks[1] - peaks[0]
    rows: list[dict[str, Any]] = [
        {"what": "load of the machine before", "value": load, "unit": "processes", "ok": ""},
        {"what": "whole detector, one stack at a time", "value": found["alone"], "unit": "s per slice", "ok": ""},
        {"what": "whole detector, shared", "value": found["shared"], "unit": "s per slice", "ok": ""},
        {"what": "whole detector, shared / alone", "value": whole, "unit": "", "ok": whole <= 0.45},
        {
            "what": "backbone + neck, one stack at a time",
            "value": found["alone_trunk"],
            "unit": "s per slice",
            "ok": "",
        },
        {"what": "backbone + neck, shared", "value": found["shared_trunk"], "unit": "s per slice", "ok": ""},
        {"what": "backbone + neck, shared / alone", "value": trunk, "unit": "", "ok": ""},
        {
            "what": f"all {found['boxes']} findings equal",
            "value": found["equal"],
            "unit": "bool",
            "ok": found["equal"] == 1,
        },
    ]
    for count, peak in zip(MEMORY_SLICES, peaks, strict=True):
        what = f"peak memory less the volume, {count} slices of {MEMORY_SIZE} x {MEMORY_SIZE}"
        rows.append({"what": what, "value": peak, "unit": "MB", "ok": ""})
    rows.append({"what": "more for the longer volume", "value": growth, "unit": "MB", "ok": growth < 20})
    for name, seconds in proposals.items():
        paper = PAPER_MS[name] / PAPER_MS["afp"]
        what = f"{name} / afp, time of a slice (paper: {PAPER_MS[name]} ms, ratio {paper:.2f})"
        rows.append({"what": what, "value": seconds / proposals["afp"], "unit": "", "ok": ""})
    return {
        "name": f"Whole volumes with LENS, {num_slices} slices of {size} x {size}",
        "bar": "shared at most 0.45 of the time of one stack at a time, equal findings; no more memory for more slices",
        "rows": rows,
    }


if __name__ == "__main__":
    report = run()
    print(report["name"], f"(bar: {report['bar']})", sep="\n")
    for row in report["rows"]:
        print(f"  {row['what']:<75}{row['value']:>10.4g} {row['unit']} {row['ok']}")
