"""Published answers to compare with; they need the real data folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def oracle(real_data: Path) -> Callable[[int], dict[str, Any]]:
    """Load the published 2D or 3D FROC example as edge boxes by image, plus the expected values."""

    def load(dim: int) -> dict[str, Any]:
        folder = real_data / "deeplesion"
        data = json.loads((folder / f"froc_example_{dim}d.json").read_text())
        keys = data["volumes" if dim == 3 else "images"]
        truth = data.get("truth")
        if dim == 3:
            truth = json.loads((folder / data["truth_file"]).read_text())[data["truth_split"]]
        predictions = [np.array(data["predictions"][key]).reshape(-1, 2 * dim + 1) for key in keys]
        return {
            "keys": keys,
            "boxes": [_edges(rows[:, :-1], dim) for rows in predictions],
            "scores": [rows[:, -1] for rows in predictions],
            "truth": [_edges(np.array(truth[key]).reshape(-1, 2 * dim), dim) for key in keys],
            "levels": tuple(data["fp_per_volume_points" if dim == 3 else "fp_per_image_points"]),
            "expected": data["expected"],
        }

    return load


def _edges(boxes: np.ndarray, dim: int) -> np.ndarray:
    """Far edges one past the last pixel, which the published files include."""
    return np.hstack([boxes[:, :dim], boxes[:, dim:] + 1.0])
