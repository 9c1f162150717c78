"""Proposals on disk: writing and reading shards of simulated series, CPU time and memory per slice.

Run: python -m benchmarks.proposals
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._apart import apart, peak_memory_mb
from mmpluld.io.proposals import ProposalHeader, ProposalStore, VolumeProposals
from mmpluld.postprocess import number_tracklets

NUM_SLICES = (10_000, 100_000)
PER_VOLUME, PER_SLICE = 100, 60  # grid slices of a volume; boxes of four experts on one, half of them fused away
EXPERTS = ("deeplesion", "luna16", "lits", "nih-ln")


def simulate(number: int) -> VolumeProposals:
    """Boxes of lesions and look-alikes that go through some slices, and of noise, linked as ``propose`` does."""
    draw = np.random.default_rng(number)
    count = PER_VOLUME * PER_SLICE
    tracks = np.arange(count) // 4 % (count // 20)
    grid = np.minimum(tracks * 7 % PER_VOLUME + np.arange(count) // 4 // (count // 20), PER_VOLUME - 1)
    corner = np.random.default_rng([number, 1]).uniform(0, 450, (count // 20, 2))[tracks] + draw.normal(
        0, 1, (count, 2)
    )
    boxes = np.hstack([corner, corner + draw.uniform(18, 22, (count, 2))]).astype(np.float32).astype(np.float64)
    scores = draw.random(count).astype(np.float32).astype(np.float64)
    order = np.argsort(grid, kind="stable")
    grid, boxes, scores = grid[order], boxes[order], scores[order]
    tracklet = np.full(count, -1)
    fused = np.flatnonzero(scores > 0.5)
    cuts = np.searchsorted(grid[fused], np.arange(1, PER_VOLUME))
    numbers = number_tracklets(np.split(boxes[fused], cuts), np.split(scores[fused], cuts))
    tracklet[fused] = np.concatenate(numbers)
    return VolumeProposals(
        volume=f"{number:06d}_01_01",
        gap_mm=2.0,
        interval_mm=2.0,
        runs=np.array([[1, PER_VOLUME]]),
        boxes=boxes,
        scores=scores,
        expert=np.arange(count) % 4,
        run=np.zeros(count, np.int64),
        grid=grid,
        slice=grid + 1,
        tracklet=tracklet,
    )


def measure(num_slices: int) -> dict[str, Any]:
    """Write and read the shards of so many slices, one volume at a time; to be run in a process of its own.

    CPU time is measured, which other work does not change.
    """
    volumes = num_slices // PER_VOLUME
    header = ProposalHeader("simulated", "0" * 64, "none", "0" * 64, "none", "0" * 64, EXPERTS, {"iou_thr": 0.5})
    with tempfile.TemporaryDirectory() as folder:
        store = ProposalStore.create(folder, header)
        made = written = 0.0
        for number in range(volumes):
            start = time.process_time()
            proposals = simulate(number)
            made += time.process_time() - start
            start = time.process_time()
            store.save(proposals)
            written += time.process_time() - start
        start = time.process_time()
        boxes = sum(len(store.load(volume).scores) for volume in store.volumes)
        read = time.process_time() - start
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.npz"))
    return {
        "slices": num_slices,
        "boxes": boxes,
        "link s": made,
        "write s": written,
        "read s": read,
        "us to write and read a slice": (written + read) / num_slices * 1e6,
        "MB on disk": size / 1e6,
        "peak memory, MB": peak_memory_mb(),
    }


def run() -> dict[str, Any]:
    """Ten times the slices must take about ten times as long, and no more memory."""
    rows = [apart(measure, count) for count in NUM_SLICES]
    few, many = rows[0], rows[-1]
    many["ok"] = bool(
        many["us to write and read a slice"] < 1.3 * few["us to write and read a slice"]
        and many["peak memory, MB"] < few["peak memory, MB"] + 20
    )
    few["ok"] = True
    return {
        "name": f"Proposals on disk, volumes of {PER_VOLUME} slices with {PER_SLICE} boxes each, simulated",
        "bar": "of ten times the slices, one takes at most 1.3 times as long, in at most 20 MB more memory",
        "rows": rows,
    }


if __name__ == "__main__":
    report = run()
    print(report["name"], f"(bar: {report['bar']})", sep="\n")
    for row in report["rows"]:
        print("  " + ", ".join(f"{key} {value:.5g}" for key, value in row.items()))
