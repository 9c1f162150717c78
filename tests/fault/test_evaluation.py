"""Damaged or foreign files given to the evaluation: one line that names the file, never a traceback or a number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.evaluation import evaluate_files
from mmpluld.structures.records import Detections, DetectionSet

BOX = [10.0, 10, 3, 30, 30, 4]


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    DetectionSet({"a_1": Detections(np.array([BOX]))}).save(tmp_path / "gt.json")
    return tmp_path / "gt.json"


def record(boxes: object, scores: object) -> str:
    return json.dumps({"schema": "mmpluld.detections/1", "volumes": {"a_1": {"boxes": boxes, "scores": scores}}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        record([BOX], [0.5])[:-10],
        "[]",
        '{"boxes": []}',
        record([BOX], [0.5, 0.6]),
        record([BOX[:4]], [0.5]),
        record([BOX], [float("nan")]),
        record([[float("nan"), *BOX[1:]]], [0.5]),
        record([BOX], ["high"]),
    ],
    ids=["empty", "cut", "list", "no-schema", "lengths", "2d", "nan-score", "nan-box", "text-score"],
)
@pytest.mark.parametrize("role", ["predictions", "truth"])
def test_bad_file_is_named_in_one_line(truth: Path, tmp_path: Path, text: str, role: str) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    good = tmp_path / "good.json"
    good.write_text(record([BOX], [0.5]))
    files = (bad, truth) if role == "predictions" else (good, bad)
    with pytest.raises(InputError, match=r"bad\.json") as error:
        evaluate_files(*files, "lens-3d")
    assert "\n" not in str(error.value)


def test_missing_file_is_named(truth: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json: cannot be read \(no such file"):
        evaluate_files(tmp_path / "gone.json", truth, "lens-3d")
    with pytest.raises(InputError, match=r"gone\.json: cannot be read \(no such file"):
        evaluate_files(truth, tmp_path / "gone.json", "lens-3d")


def test_annotations_given_as_predictions(truth: Path, tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_text('{"schema": "mmpluld.annotations/1", "dataset": {}, "volumes": [], "lesions": []}')
    with pytest.raises(InputError, match=r"annotations\.json: schema is 'mmpluld.annotations/1'"):
        evaluate_files(path, truth, "lens-3d")
