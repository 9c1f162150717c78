"""A phantom of four patients, and finished runs on it whose detections are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmpluld.datasets.converters import convert_deeplesion
from mmpluld.phantom import write_deeplesion_layout
from mmpluld.reproduce.plan import plan
from mmpluld.reproduce.runner import Run
from mmpluld.reproduce.tables import TABLES, Row, Table
from mmpluld.structures import AnnotationSet, Detections, DetectionSet

MINI = Table(
    "mini",
    "A table of two rows",
    tuple(TABLES["table1"].row(key) for key in ("a3d", "pluld-a3d")),
    (("pluld-a3d", "a3d"),),
)
CURVE = Table(
    "curve",
    "A curve of two points",
    (
        TABLES["table1"].row("a3d"),
        Row("mask-only", "neg_weight 1.0", "pluld-a3d_densenet121-fpn_mask-only_7s", x=1.0),
        Row("pluld-a3d", "neg_weight 0.6", "pluld-a3d_densenet121-fpn_7s", x=0.6),
    ),
    (("pluld-a3d", "a3d"), ("mask-only", "a3d")),
    x_label="neg_weight",
)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients for training, none for validation, three for the test; 64 pixels, 16 slices."""
    root = tmp_path_factory.mktemp("reproduce") / "phantom"
    settings = {"size": 64, "max_slices": 16, "lesions_per_series": 12, "min_long_mm": 14, "contrast_hu": 180}
    write_deeplesion_layout(root, (2, 0, 3), seed=3, workers=1, **settings)
    convert_deeplesion(root)
    return root


@pytest.fixture
def planned(phantom: Path, tmp_path: Path) -> Callable[..., list[Run]]:
    """Function that plans runs of the mini table on the phantom."""

    def make(table: Table = MINI, seeds: int = 2, **changes: object) -> list[Run]:
        settings = {"twins": True, "data_root": phantom, **changes}
        return plan(table.rows, seeds, tmp_path / "work", table.protocol, **settings)

    return make


@pytest.fixture
def finish() -> Callable[[Run, float], None]:
    """Function that makes a run finished, with detections that find a given share of the lesions."""

    def make(run: Run, share: float) -> None:
        truth = AnnotationSet.load(run.truth)
        rng = np.random.default_rng(run.seed)
        boxes: dict[str, list[tuple[float, ...]]] = {}
        for lesion in truth.lesions:
            x1, y1, z1, x2, y2, z2 = lesion.box
            hit = rng.random() < share
            boxes.setdefault(lesion.volume, []).append(lesion.box if hit else (0, 0, z1, x2 - x1 - 1, y2 - y1 - 1, z2))
        record = DetectionSet(
            {name: Detections(np.array(found), rng.random(len(found))) for name, found in boxes.items()}
        )
        run.folder.mkdir(parents=True)
        record.save(run.detections)
        seconds = {"train": 12.4, "test": 3.0}
        (run.folder / "run.json").write_text(
            json.dumps({"identity": run.identity, "trained": True, "seconds": seconds})
        )
        levels = [0.5, 1, 2, 4, 8, 16]
        result = {"levels": levels, "sensitivity": [share] * 6, "average": share, "seconds": seconds, "version": "1"}
        (run.folder / "result.json").write_text(json.dumps({**run.identity, **result}))
        run.state = "done"

    return make
