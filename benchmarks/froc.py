"""FROC matching: whole-array code against one detection at a time, and the cost of a bootstrap.

Run: python -m benchmarks.froc
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpluld.evaluation.functional import (
    LENS_3D,
    bootstrap_sensitivity,
    froc_curve,
    match_detections,
    sensitivity_at,
)

FloatArray = NDArray[np.float64]
NUM_VOLUMES, NUM_DETECTIONS, NUM_LESIONS = 800, 200, 5


def make_case(
    seed: int, volumes: int, detections: int, lesions: float
) -> tuple[list[FloatArray], list[FloatArray], list[FloatArray]]:
    """Random boxes, a third of them near a lesion: per volume (N, 6) boxes, (N,) scores, (M, 6) lesions."""
    rng = np.random.default_rng(seed)
    boxes, scores, truth = [], [], []
    for _ in range(volumes):
        centres = rng.uniform((30, 30, 5), (480, 480, 60), (rng.poisson(lesions), 3))
        halves = rng.uniform((6, 6, 1), (30, 30, 6), centres.shape)
        truth.append(np.hstack([centres - halves, centres + halves]))
        middle = rng.uniform((30, 30, 5), (480, 480, 60), (detections, 3))
        reach = rng.uniform((6, 6, 1), (30, 30, 6), middle.shape)
        if len(centres):
            near = rng.integers(len(centres), size=detections // 3)
            middle[: len(near)] = centres[near] + rng.normal(0, 0.5, (len(near), 3)) * halves[near]
        boxes.append(np.hstack([middle - reach, middle + reach]))
        scores.append(rng.random(detections))
    return boxes, scores, truth


def reference_froc(
    boxes: Sequence[FloatArray], scores: Sequence[FloatArray], truth: Sequence[FloatArray], threshold: float
) -> tuple[FloatArray, FloatArray]:
    """Curve (sensitivity, false positives per volume) as the published evaluation walks it, IoBB in 3D."""
    volume = np.repeat(np.arange(len(boxes)), [len(part) for part in boxes])
    pooled, pooled_scores = np.concatenate(boxes), np.concatenate(scores)
    found = [np.zeros(len(part), dtype=bool) for part in truth]
    total = sum(map(len, truth))
    hits = false_positives = 0
    sensitivity, rate = [], []
    for index in np.argsort(pooled_scores, kind="stable")[::-1]:
        box, lesions, seen = pooled[index], truth[volume[index]], found[volume[index]]
        if len(lesions):
            sides = np.minimum(box[3:], lesions[:, 3:]) - np.maximum(box[:3], lesions[:, :3])
            overlap = np.prod(np.maximum(sides, 0), axis=1) / np.prod(box[3:] - box[:3])
        if not len(lesions) or overlap.max() < threshold:
            false_positives += 1
        else:
            for lesion, value in enumerate(overlap):
                if value >= threshold and not seen[lesion]:
                    seen[lesion] = True
                    hits += 1
        sensitivity.append(hits / total)
        rate.append(false_positives / len(boxes))
    return np.array(sensitivity), np.array(rate)


def run() -> dict[str, Any]:
    """Time both on the size of the LENS test set; the curves must be equal to the last bit."""
    boxes, scores, truth = make_case(0, NUM_VOLUMES, NUM_DETECTIONS, NUM_LESIONS)
    slow, (sensitivity, rate) = _seconds(lambda: reference_froc(boxes, scores, truth, LENS_3D.threshold), 1)
    fast, curve = _seconds(lambda: froc_curve(match_detections(boxes, scores, truth, LENS_3D)), 5)
    equal = np.array_equal(curve.sensitivity, sensitivity) and np.array_equal(curve.false_positives, rate)
    matches = match_detections(boxes, scores, truth, LENS_3D)
    equal &= np.array_equal(
        sensitivity_at(matches, LENS_3D.levels), np.interp(LENS_3D.levels, rate, sensitivity, left=0)
    )
    patients = np.arange(NUM_VOLUMES) * 519 // NUM_VOLUMES
    resampling, _ = _seconds(lambda: bootstrap_sensitivity(matches, patients.tolist(), LENS_3D), 3)
    return {
        "name": f"FROC, {NUM_VOLUMES} volumes x {NUM_DETECTIONS} detections, about {NUM_LESIONS} lesions each",
        "bar": "at least 20 times as fast as one detection at a time, equal results",
        "rows": [
            {"what": "one detection at a time", "value": slow, "unit": "s"},
            {"what": "mmpluld.evaluation.functional", "value": fast, "unit": "s"},
            {"what": "speed-up", "value": slow / fast, "unit": "x", "ok": slow / fast >= 20},
            {"what": "curves and level values equal", "value": float(equal), "unit": "bool", "ok": bool(equal)},
            {"what": "bootstrap, 1000 resamples of 519 patients", "value": resampling, "unit": "s"},
        ],
    }


def _seconds(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Shortest time of ``repeats`` runs, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


if __name__ == "__main__":
    report = run()
    print(report["name"], f"(bar: {report['bar']})", sep="\n")
    for row in report["rows"]:
        print(f"  {row['what']:<45}{row['value']:>10.4g} {row['unit']}")
