"""Loading a stack of slices from 16-bit PNGs: LoadSliceStack against a loop over its positions.

The time is that of decoding. LoadSliceStack reads each file once, and several files at a time where cores are idle.

Run: python -m benchmarks.slice_loading
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mmpluld.datasets.transforms import LoadSliceStack
from mmpluld.io.slice_stack import plan_indices, plan_stack

FloatArray = NDArray[np.float32]
SIZE, NUM_SERIES_SLICES, NUM_SLICES, GAP_MM = 512, 40, 7, 2.0
INTERVALS_MM = (5.0, 2.5, 1.25, 1.0)
# So far apart that no two stacks share a slice: nothing is won by keeping slices.
KEYS = (6, 20, 33)
ROUNDS = 8


def write_series(folder: Path) -> int:
    """Write slices as hard to decode as DeepLesion's (about 230 KB each); return the mean file size in bytes."""
    rng = np.random.default_rng(0)
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE - 0.5
    body = (x / 0.42) ** 2 + (y / 0.3) ** 2 < 1
    options = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_ALL_FILTERS]
    sizes = []
    for index in range(NUM_SERIES_SLICES):
        width = 0.12 + 0.001 * index
        lungs = (((np.abs(x) - 0.2) / width) ** 2 + (y / 0.2) ** 2 < 1) & body
        hu = np.where(lungs, -850.0, np.where(body, 40.0, -1000.0))
        noise = cv2.GaussianBlur(rng.normal(0, 100, hu.shape), (0, 0), 1.0)
        hu = cv2.GaussianBlur(hu, (0, 0), 1.0) + np.where(body, noise, noise / 4)
        hu = np.maximum(hu.round(), -1024)  # what lies below is cut off when it is read, by us alone
        path = folder / f"{index:03d}.png"
        cv2.imwrite(str(path), (hu.astype(np.int32) + 32768).astype(np.uint16), options)
        sizes.append(path.stat().st_size)
    return round(float(np.mean(sizes)))


def plain_loader(folder: Path, key: int, interval_mm: float) -> FloatArray:
    """Read the slices below and above each position on their own and blend them."""
    half = NUM_SLICES // 2
    planes = []
    for step in range(-half, half + 1):
        offset = step * GAP_MM / interval_mm
        lower, upper = math.floor(offset), math.ceil(offset)
        plane = _read(folder, key + lower)
        if upper != lower:
            weight = np.float32(offset - lower)
            plane = (1 - weight) * plane + weight * _read(folder, key + upper)
        planes.append(plane)
    return np.stack(planes, axis=-1)


def _read(folder: Path, index: int) -> FloatArray:
    stored = np.asarray(cv2.imread(str(folder / f"{index:03d}.png"), cv2.IMREAD_UNCHANGED), np.float32)
    return stored - 32768


def run() -> dict[str, Any]:
    """Time both at the slice intervals that DeepLesion has, on slices that are in the system's file cache."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_series(folder)
        for interval_mm in INTERVALS_MM:
            rows.append(_compare(folder, interval_mm))
    summed = ("files read, plain", "files read, LoadSliceStack", "plain, ms", "LoadSliceStack, ms")
    total = {name: sum(row[name] for row in rows) for name in summed}
    speed = total["plain, ms"] / total["LoadSliceStack, ms"]
    difference = max(row["largest difference, HU"] for row in rows)
    rows.append(
        {"interval": "all", **total, "speed-up": speed, "largest difference, HU": difference}
        | {"ok": speed >= 2 and all(row["ok"] for row in rows)}
    )
    return {
        "name": f"Slice loading, {NUM_SLICES} slices of {SIZE} x {SIZE}, 16-bit PNGs",
        "bar": "over all intervals at least 2 times as fast as one position after the other; equal to 0.001 HU "
        f"(a PNG has {size // 1000} KB)",
        "rows": rows,
    }


def _compare(folder: Path, interval_mm: float) -> dict[str, Any]:
    loader = LoadSliceStack(NUM_SLICES, GAP_MM)
    source = {"kind": "png16", "path": str(folder)}

    def ours(key: int) -> FloatArray:
        sample = {"source": source, "spacing_mm": (interval_mm, 0.8, 0.8), "key_slice": key}
        stack: FloatArray = loader(sample)["img"]
        return stack

    def plain(key: int) -> FloatArray:
        return plain_loader(folder, key, interval_mm)

    difference = max(float(np.abs(ours(key) - plain(key)).max()) for key in KEYS)
    slow, fast = _milliseconds(plain, ours)
    steps = [abs(step) * GAP_MM / interval_mm for step in range(-(NUM_SLICES // 2), NUM_SLICES // 2 + 1)]
    needed = plan_indices(plan_stack(KEYS[0], interval_mm, range(NUM_SERIES_SLICES), NUM_SLICES, GAP_MM))
    return {
        "interval": f"{interval_mm:g} mm",
        "files read, plain": sum(1 if offset == int(offset) else 2 for offset in steps),
        "files read, LoadSliceStack": len(needed),
        "plain, ms": slow,
        "LoadSliceStack, ms": fast,
        "speed-up": slow / fast,
        "largest difference, HU": difference,
        "ok": difference < 1e-3,
    }


def _milliseconds(*loaders: Callable[[int], Any]) -> list[float]:
    """Shortest time of a stack, averaged over the key slices; in turns, so that other load meets all alike."""
    rounds: list[list[float]] = [[] for _ in loaders]
    for _ in range(ROUNDS):
        for load, times in zip(loaders, rounds, strict=True):
            start = time.perf_counter()
            for key in KEYS:
                load(key)
            times.append((time.perf_counter() - start) / len(KEYS) * 1e3)
    return [min(times) for times in rounds]


if __name__ == "__main__":
    report = run()
    print(report["name"], f"(bar: {report['bar']})", sep="\n")
    for row in report["rows"]:
        print("  " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
