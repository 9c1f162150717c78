"""Whole-volume detection: features shared between the stacks of neighbouring slices against one stack at a time.

With 9 slices as 3 images, the image of three slices is part of three stacks. Sharing computes it once; boxes stay the
same to the last bit. One stack at a time is timed twice: as a plain formulation (``_plain_lens``) that runs as PyTorch
runs by default, in a process of its own, and as our code without sharing. The neck, the proposal head and the box head
see a fused map of each key slice and share nothing, so the backbone is also timed on its own, and what remains without
it bounds what sharing alone can give. All ways take turns slice by slice, so that other load on the machine meets all.
Weights are random, as in ``benchmarks.detectors``.

The proposal networks are those of Table III, trained on four datasets with a head for each, on one stack alone.

Run: python -m benchmarks.volume
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from benchmarks._apart import apart, peak_memory_mb
from benchmarks._plain_lens import make_plain
from benchmarks.detectors import _build, _data
from mmpluld.compat.allocator import tune_allocator
from mmpluld.engine.config import load_config
from mmpluld.inference import DetectionSettings, VolumeDetector
from mmpluld.structures import CTVolume

CONFIG = "lens-afp_densenet121_9s_8e_deeplesion"
SMALL_CONFIG = "lens-afp_densenet121_9s_phantom"
NUM_SLICES, SIZE = 24, 512
MEMORY_SLICES, MEMORY_SIZE = (100, 400), 96
PROPOSALS = "lens-{}_densenet121_4datasets_9s_8e_deeplesion"
# Table III of LENS, ms per slice on its GPU.
PAPER_MS = {"rpn": 62, "centernet": 59, "fcos": 54, "fcos-1stage": 29, "afp": 54}
REPEATS = 2
BAR = 0.45


def _volume(num_slices: int, size: int, pixel_mm: float) -> CTVolume:
    """Noise in the range of soft tissue, on the 2 mm grid."""
    rng = np.random.default_rng(0)
    array = rng.integers(-200, 300, (num_slices, size, size), dtype=np.int16)
    return CTVolume.from_canonical(array, (2.0, pixel_mm, pixel_mm))


class _Clock:
    """Adds up the time spent in some functions, together; calls within each other count once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, counted."""

        def run(*args: Any, **kwargs: Any) -> Any:
            start, self._depth = time.perf_counter(), self._depth + 1
            try:
                return work(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.perf_counter() - start

        return run


def _serve_plain(connection: Connection, num_slices: int, size: int) -> None:
    """Send (seconds, boxes, scores) of the next slice in the plain formulation, whenever something comes."""
    model, _ = _build(CONFIG)
    detector = VolumeDetector(load_config(CONFIG), model, share=False)
    make_plain(detector)
    detector.detect(_volume(9, size, 0.8))
    volume = _volume(num_slices, size, 0.8)
    slices = detector.examine(detector.grid(volume), volume.source)
    connection.send("ready")
    for _ in range(num_slices):
        connection.recv()
        start = time.perf_counter()
        boxes, scores = next(slices)[:2]
        connection.send((time.perf_counter() - start, boxes, scores))


def _without_partner(ours: tuple[Any, Any], plain: tuple[Any, Any]) -> int:
    """How many of our boxes have no box of the plain formulation within 0.01 pixels and a thousandth of the score."""
    apart = np.abs(ours[0][:, None] - plain[0][None]).max(2)
    score = np.abs(ours[1][:, None] - plain[1][None]) / plain[1][None]
    return int((~((apart < 0.01) & (score < 1e-3)).any(1)).sum())


def _compare(num_slices: int, size: int) -> dict[str, dict[str, float]]:
    """Seconds per key slice of the detector's parts each way, and how many 2D boxes there are and differ."""
    tune_allocator()
    connection, other = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    context.Process(target=_serve_plain, args=(other, num_slices, size), daemon=True).start()
    other.close()  # so that the end of that process ends the wait for it
    connection.recv()
    model, _ = _build(CONFIG)
    config = load_config(CONFIG)
    backbone = _Clock()
    model.backbone.forward = backbone.timed(model.backbone.forward)
    model.backbone.image_features = backbone.timed(model.backbone.image_features)
    clocks = {"whole": _Clock(), "backbone": backbone}
    ways = {name: VolumeDetector(config, model, share=name == "shared") for name in ("alone", "shared")}
    ways["shared"].detect(_volume(9, size, 0.8))
    volume = _volume(num_slices, size, 0.8)
    slices = {name: way.examine(way.grid(volume), volume.source) for name, way in ways.items()}
    spent = {name: dict.fromkeys(clocks, 0.0) for name in ("plain", *ways)}
    boxes = differing = strange = 0
    for number in range(num_slices):
        found = {}
        for name in list(ways)[:: 1 if number % 2 else -1]:
            before = {part: clock.seconds for part, clock in clocks.items()}
            found[name] = clocks["whole"].timed(next)(slices[name])[:2]
            for part, clock in clocks.items():
                spent[name][part] += (clock.seconds - before[part]) / num_slices
        connection.send("next")
        seconds, *plain = connection.recv()
        spent["plain"]["whole"] += seconds / num_slices
        equal = all(np.array_equal(*pair) for pair in zip(found["alone"], found["shared"], strict=True))
        boxes += len(found["alone"][1])
        differing += 0 if equal else len(found["alone"][1])
        strange += _without_partner(found["shared"], tuple(plain))
    return {**spent, "boxes": {"all": boxes, "differing": differing, "strange": strange}}


def _memory(num_slices: int, size: int) -> float:
    """Peak memory in MB of detection in a volume, less the volume; to be run in a process of its own."""
    tune_allocator()
    model, _ = _build(SMALL_CONFIG)
    detector = VolumeDetector(load_config(SMALL_CONFIG), model, DetectionSettings(link_score_thr=1.0, score_thr=1.0))
    volume = _volume(num_slices, size, 2.8)
    detector.detect(volume)
    return peak_memory_mb() - volume.array.nbytes / 1e6


def _proposals(names: list[str], size: int) -> dict[str, float]:
    """Shortest time in seconds of one stack, of each detector, in turns."""
    tune_allocator()
    models = {name: _build(PROPOSALS.format(name)) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(REPEATS + 1):
        for name, (model, num_slices) in models.items():
            data = _data(num_slices, size)
            start = time.perf_counter()
            with torch.inference_mode():
                model.test_step(data)
            times[name].append(time.perf_counter() - start)
    return {name: min(values[1:]) for name, values in times.items()}


def _row(what: str, value: float, unit: str = "", ok: bool | str = "") -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit, "ok": ok}


def _sharing_rows(found: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """What ``_compare`` found."""
    plain, alone, shared, boxes = (found[name] for name in ("plain", "alone", "shared", "boxes"))
    rows = [
        _row("whole detector, plain, one stack at a time", plain["whole"], "s per slice"),
        _row("whole detector, ours, one stack at a time", alone["whole"], "s per slice"),
        _row("whole detector, ours, shared", shared["whole"], "s per slice"),
        _row("backbone, ours, one stack at a time", alone["backbone"], "s per slice"),
        _row("backbone, ours, shared", shared["backbone"], "s per slice"),
    ]
    ratio = shared["whole"] / plain["whole"]
    rows.append(_row("whole detector, shared / plain", ratio, ok=ratio <= BAR))
    rows.append(_row("whole detector, shared / ours one stack at a time", shared["whole"] / alone["whole"]))
    rows.append(_row("the same, if shared features cost nothing", 1 - alone["backbone"] / alone["whole"]))
    rows.append(_row("backbone, shared / ours one stack at a time", shared["backbone"] / alone["backbone"]))
    what = f"of {boxes['all']} 2D boxes"
    rows.append(_row(f"{what}, not equal with and without sharing", boxes["differing"], ok=not boxes["differing"]))
    rows.append(_row(f"{what}, not those of the plain formulation", boxes["strange"]))
    return rows


def run(num_slices: int = NUM_SLICES, size: int = SIZE) -> dict[str, Any]:
    """Measure all; at the full size it takes some minutes."""
    logging.disable(logging.INFO)
    rows = [_row("load of the machine before", os.getloadavg()[0], "processes")]
    rows += _sharing_rows(apart(_compare, num_slices, size))
    peaks = [apart(_memory, count, MEMORY_SIZE) for count in MEMORY_SLICES]
    for count, peak in zip(MEMORY_SLICES, peaks, strict=True):
        rows.append(_row(f"peak memory less the volume, {count} slices of {MEMORY_SIZE} x {MEMORY_SIZE}", peak, "MB"))
    growth = peaks[1] - peaks[0]
    rows.append(_row("more for the longer volume", growth, "MB", growth < 20))
    proposals = apart(_proposals, list(PAPER_MS), size)
    rows.append(_row("afp, four datasets, time of a slice", proposals["afp"], "s"))
    for name, seconds in proposals.items():
        what = f"{name} / afp, four datasets (paper: {PAPER_MS[name]} ms, {PAPER_MS[name] / PAPER_MS['afp']:.2f})"
        rows.append(_row(what, seconds / proposals["afp"]))
    return {
        "name": f"Whole volumes with LENS, {num_slices} slices of {size} x {size}",
        "bar": f"whole detector, shared: at most {BAR} of the time of the plain formulation, one stack at a time; "
        "boxes equal with and without sharing; no more memory for more slices",
        "rows": rows,
    }


if __name__ == "__main__":
    report = run()
    print(report["name"], f"(bar: {report['bar']})", sep="\n")
    for row in report["rows"]:
        print(f"  {row['what']:<75}{row['value']:>10.4g} {row['unit']} {row['ok']}")
