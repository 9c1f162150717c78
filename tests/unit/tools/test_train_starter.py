"""The starter's scans are made once, recognised, and refused when they are others."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from mmpluld.engine.option_values import parse_value
from mmpluld.errors import InputError

tool = runpy.run_path(str(Path(__file__).resolve().parents[3] / "tools/train_starter.py"))
ensure_scans = tool["ensure_scans"]


def test_scans_may_lie_in_a_folder_of_any_name():
    for name in ("data/scans", "scans, new", "'quoted'", " [1]"):
        option = tool["train_arguments"](Path(name), "runs", [])[-1]
        assert parse_value("data_root", option.removeprefix("data_root=")) == name


def test_scans_are_made_once_and_others_refused(tmp_path):
    root = tmp_path / "scans"
    ensure_scans(root, (1, 1))
    made = {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}
    assert {path.name for path in made} >= {"train_0001.npy", "val_0001.npy", "train.json", "val.json"}
    ensure_scans(root, (1, 1))
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.*")} == made
    with pytest.raises(InputError, match=r"num_patients.*choose another --data"):
        ensure_scans(root, (2, 1))


def test_interrupted_scans_are_made_anew(tmp_path):
    root = tmp_path / "scans"
    ensure_scans(root, (1, 1))
    (root / "volumes/train_0001.npy").unlink()
    (root / ".unfinished-phantom.json").touch()
    ensure_scans(root, (1, 1))
    assert (root / "volumes/train_0001.npy").is_file()
