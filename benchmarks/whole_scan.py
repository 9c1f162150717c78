"""A scan from the file to its findings: what everything beside the network takes, and how much memory.

Each row is a process of its own that does what ``mmpluld detect scan.nii.gz -o out`` does: it imports the libraries,
reads a NIfTI file, loads the weights, runs the network over all slices, links boxes and writes the files of the
default formats. The network's own time is that of its forward passes, with masks, suppression and the fusion of
experts. Weights are random, as in ``benchmarks.detectors``: there are as many boxes as the config allows, and the 300
best findings are reported, which is far more than a trained detector finds.

The time is that of the papers' detectors. Memory is that of the starter detector, on scans of few and many slices: it
can grow with the scan alone. Linux only.

Run: python -m benchmarks.whole_scan
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._apart import apart, peak_memory_mb
from benchmarks.detectors import _build
from benchmarks.volume import _Clock
from mmpluld.inference.running import Precision

DETECTORS = {"A3D": "a3d_densenet121-fpn_7s_20e_deeplesion", "LENS": "lens-afp_densenet121_4datasets_9s_8e_deeplesion"}
LIGHT = "fcos-25d_densenet-narrow_7s_12e_starter"
# The faster the network, the more what is beside it weighs; fp32 is told from a short scan, where start weighs most.
NUM_SLICES: dict[Precision, int] = {"fp32": 60, "bf16": 300}
SIZE = 512
MEMORY_SLICES = (300, 1000)
FINDINGS = 300
INTERVAL_MM, PIXEL_MM = 2.0, 0.8
BAR, BESIDE_BAR, MEMORY_BAR_GB = 1.1, 0.05, 4.0


def _write_scan(path: Path, num_slices: int, size: int) -> None:
    """Noise in the range of soft tissue, as a compressed NIfTI file."""
    import SimpleITK as sitk

    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.integers(-200, 300, (num_slices, size, size), dtype=np.int16))
    image.SetSpacing((PIXEL_MM, PIXEL_MM, INTERVAL_MM))
    sitk.WriteImage(image, str(path), useCompression=True)


def _write_weights(path: Path, config: str) -> None:
    """Random weights of a config's model."""
    import torch

    model, _ = _build(config)
    torch.save({"state_dict": model.state_dict()}, path)


def _examine(config: str, precision: Precision, scan: Path, weights: Path, out: Path, start: float) -> dict[str, float]:
    """Seconds of the steps since ``start``, and the peak memory; to be run in a process of its own."""
    from mmpluld.inference import Detector
    from mmpluld.inference.formats import DEFAULT_FORMATS
    from mmpluld.io import read_scan

    made = Detector(
        config=config,
        checkpoint=weights,
        device="cpu",
        precision=precision,
        score_thr=0.05,
        max_boxes=FINDINGS,
    )
    times = [time.perf_counter()]
    volume = read_scan(scan)
    times.append(time.perf_counter())
    made.load()
    network, detector = _Clock(), made.volume_detector
    detector._run = network.timed(detector._run)
    times.append(time.perf_counter())
    found = made.examine(volume, "scan")
    times.append(time.perf_counter())
    found.write(out, DEFAULT_FORMATS)
    times.append(time.perf_counter())
    reading, loading, detecting, writing = np.diff(times).tolist()
    return {
        "total": times[-1] - start,
        "network": network.seconds,
        "start": times[0] - start + loading,
        "reading": reading,
        "linking": detecting - network.seconds,
        "writing": writing,
        "findings": len(found),
        "peak_mb": peak_memory_mb(),
    }


def _row(
    label: str, config: str, precision: Precision, num_slices: int, size: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """One row of the table, and what it is made of."""
    with tempfile.TemporaryDirectory() as folder:
        scan, weights, out = Path(folder, "scan.nii.gz"), Path(folder, "weights.pth"), Path(folder, "out")
        out.mkdir()
        _write_scan(scan, num_slices, size)
        _write_weights(weights, config)
        found = apart(_examine, config, precision, scan, weights, out, time.perf_counter())
    total = found["total"]
    row = {
        "detector": label,
        "precision": precision,
        "slices": num_slices,
        "total, s": total,
        "network, s": found["network"],
        "total / network": total / found["network"],
        "start and weights, s": found["start"],
        "reading, s": found["reading"],
        "stacks and linking, s": found["linking"],
        "report, s": found["writing"],
        "findings": int(found["findings"]),
        "peak memory, MB": round(found["peak_mb"]),
    }
    return row, found


def run(
    num_slices: Mapping[Precision, int] = NUM_SLICES, size: int = SIZE, memory_slices: tuple[int, ...] = MEMORY_SLICES
) -> dict[str, Any]:
    """Measure all; at the full size it takes 25 minutes on two cores.

    Args:
        num_slices: Slices of the scan of the papers' detectors, for each precision that is measured.
        size: Pixels along x and y.
        memory_slices: Slices of the scans of the starter detector.
    """
    rows = []
    for (label, config), precision in product(DETECTORS.items(), num_slices):
        row, found = _row(label, config, precision, num_slices[precision], size)
        beside = (found["linking"] + found["writing"]) / found["total"]
        good = row["total / network"] <= BAR and beside <= BESIDE_BAR
        rows.append({**row, "ok": good})
    for count in memory_slices:
        row, found = _row("starter", LIGHT, "fp32", count, size)
        rows.append({**row, "ok": found["peak_mb"] / 1e3 <= MEMORY_BAR_GB})
    return {
        "name": f"A scan of {size} x {size} from file to findings",
        "bar": f"papers' detectors: total at most {BAR} of the network's time, linking and report at most "
        f"{BESIDE_BAR:.0%} of the total; starter: at most {MEMORY_BAR_GB:g} GB",
        "rows": rows,
    }


if __name__ == "__main__":
    for line in run()["rows"]:
        print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in line.items()))
