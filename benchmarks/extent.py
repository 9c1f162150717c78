"""Extent of findings along z against the truth of phantoms: 2D boxes cut before linking, and findings cut after it.

A lesion's boxes score less towards its ends. Where 2D boxes below the score of findings are dropped before they are
linked, findings are too short; where boxes of any score are linked, they grow beyond the lesion through noise. The 2D
boxes of each scan are found once and linked by each rule. The scans are of seeds of their own, which no training, test
or demo uses; lesions are drawn as those of the training data of the weights.

A finding finds a lesion when its key slice is one of the lesion's and its box there overlaps the lesion's box by more
than half (IoU). Neither depends on the extent. Of several findings of a lesion, the one with the best score counts.

Run: python -m benchmarks extent
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mmpluld.compat.allocator import tune_allocator
from mmpluld.engine.config import load_config
from mmpluld.inference import DetectionSettings, VolumeDetector
from mmpluld.inference.grid_source import GridSliceSource
from mmpluld.inference.lesions_3d import Lesion3D, SliceBoxes, link_lesions
from mmpluld.phantom import make_phantom
from mmpluld.reproduce.twin_data import SETTINGS
from mmpluld.structures import pairwise_overlap
from mmpluld.typing import FloatArray
from mmpluld.zoo.download import local_checkpoint

Examined = tuple[GridSliceSource, list[SliceBoxes], FloatArray]

MODEL = "pluld-a3d_densenet121-fpn_7s_phantom"
# What a single scan takes of the settings that the weights were trained with.
PHANTOM = {name: SETTINGS[name] for name in ("lesions_per_series", "min_long_mm", "contrast_hu", "max_slices")}
SEEDS = range(9000, 9024)
SCORE_THRS = (0.3, 0.5)
LINK_SCORE_THRS = (0.2, 0.1, 0.05, 0.02, 0.01, 5e-5)
OVERLAP = 0.5
BAR = (0.9, 1.1)


def _examined(seeds: Sequence[int]) -> Iterator[Examined]:
    """Of each scan the grid, the 2D boxes of all its slices, and the lesions (n, 6) in slices of the scan."""
    detector = VolumeDetector(load_config(MODEL), local_checkpoint(f"zoo:{MODEL}"), batch_size=4)
    for seed in seeds:
        case = make_phantom(seed, **PHANTOM)
        grid = detector.grid(case.volume)
        truth = np.array([lesion.box for lesion in case.lesions], dtype=np.float64).reshape(-1, 6)
        yield grid, list(detector.examine(grid, f"phantom {seed}")), truth


def found_lesions(lesions: Sequence[Lesion3D], truth: FloatArray) -> dict[int, Lesion3D]:
    """For each true box (n, 6) that is found, by its row, the best finding that finds it."""
    found: dict[int, Lesion3D] = {}
    for lesion in lesions:
        overlap = pairwise_overlap(lesion.found.key_box[None], truth[:, [0, 1, 3, 4]])[0]
        overlap[(lesion.found.key_slice < truth[:, 2]) | (lesion.found.key_slice >= truth[:, 5])] = 0
        if len(overlap) and overlap.max() > OVERLAP:
            found.setdefault(int(overlap.argmax()), lesion)
    return found


def _row(scans: Sequence[Examined], settings: DetectionSettings, rule: str) -> dict[str, Any]:
    """Findings of all scans by one rule, and how long they are."""
    count, extents = 0, []
    for grid, slices, truth in scans:
        lesions = link_lesions(slices, grid, settings)
        count += len(lesions)
        for number, lesion in found_lesions(lesions, truth).items():
            spans = [box[5] - box[2] for box in (lesion.found.box, truth[number])]
            extents.append([span * grid.source.spacing_mm[0] for span in spans])
    found, true = np.array(extents).T
    ratio = found / true
    return {
        "score of findings": settings.score_thr,
        "rule": rule,
        "linked from": settings.link_score_thr,
        "findings": count,
        "lesions found": len(ratio),
        "extent / true, mean": float(ratio.mean()),
        "median": float(np.median(ratio)),
        "10 to 90 %": "{:.2f} to {:.2f}".format(*np.quantile(ratio, [0.1, 0.9])),
        "error, mm": float((found - true).mean()),
        "size of error, mm": float(np.abs(found - true).mean()),
        "ok": "",
    }


def run(seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Measure all; it takes some minutes."""
    tune_allocator()
    scans = list(_examined(seeds))
    usual = DetectionSettings().link_score_thr
    rows = []
    for score_thr in SCORE_THRS:
        rows.append(_row(scans, DetectionSettings(score_thr, score_thr), "cut before linking"))
        for link in LINK_SCORE_THRS:
            rows.append(_row(scans, DetectionSettings(link, score_thr), "cut after linking"))
            if link == usual:
                rows[-1]["ok"] = BAR[0] <= rows[-1]["extent / true, mean"] <= BAR[1]
    lesions = sum(len(truth) for *_, truth in scans)
    return {
        "name": "Extent of findings along z, phantom scans",
        "bar": f"linked from {usual}: mean of extent / true extent {BAR[0]} to {BAR[1]} "
        f"({len(scans)} scans with {lesions} lesions)",
        "rows": rows,
    }
