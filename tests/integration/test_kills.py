"""Commands that are killed at random moments: run again, they leave what they would have left without the kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
KILLS = 5
SMALL = ["--set", "size=64", "max_slices=12", "lesions_per_series=4", "min_long_mm=14", "enhancement_hu=180"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(arguments: Sequence[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "mmpluld", *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(arguments: Sequence[str]) -> float:
    """Run a command to its end and return the seconds it took."""
    begin = time.monotonic()
    process = start(arguments)
    out, _ = process.communicate(timeout=280)
    assert process.returncode == 0, out
    return time.monotonic() - begin


def contents(root: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones included; the volume store notes where it got its scans."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(file.relative_to(root)): file.read_bytes().replace(bytes(root), b"ROOT") for file in files}


def killed(
    tmp_path: Path,
    seed: int,
    prepare: Callable[[Path], None],
    arguments: Callable[[Path], list[str]],
    result: Callable[[Path], dict[str, object]],
) -> None:
    """Run a command in fresh folders, once without a kill, and with one at random moments."""
    moments = np.random.default_rng(seed)
    prepare(tmp_path / "whole")
    seconds = finish(arguments(tmp_path / "whole"))
    expected = result(tmp_path / "whole")
    assert expected
    for number in range(KILLS):
        root = tmp_path / f"killed{number}"
        prepare(root)
        process = start(arguments(root))
        time.sleep(seconds * moments.uniform(0.2, 1.0))
        process.kill()
        process.communicate()
        if result(root) != expected:  # else the kill came too late
            finish(arguments(root))
        found = result(root)
        assert found.keys() == expected.keys()
        assert found == expected


@pytest.mark.parametrize("layout", ["deeplesion", "luna16"])
def test_phantom(tmp_path, layout):
    patients = ["4", "1", "2"] if layout == "deeplesion" else ["5"]

    def arguments(root: Path) -> list[str]:
        return ["phantom", layout, str(root / "out"), "--patients", *patients, *SMALL]

    killed(tmp_path, 1, Path.mkdir, arguments, contents)


@pytest.mark.parametrize("layout", ["deeplesion", "lits"])
def test_convert(tmp_path, layout):
    raw = tmp_path / "raw"
    finish(["phantom", layout, str(raw), "--patients", *(["4", "1", "2"] if layout == "deeplesion" else ["6"]), *SMALL])
    killed(
        tmp_path,
        2,
        lambda root: shutil.copytree(raw, root),
        lambda root: ["convert", layout, str(root)],
        contents,
    )


def test_detect(tmp_path):
    scan = tmp_path / "scan.nii.gz"
    finish(["phantom", "scan", str(scan), *SMALL])
    weights = next((Path(__file__).parents[2] / "checkpoints").glob("a3d_*.pth"))
    options = ["--config", "a3d_densenet121-fpn_7s_phantom", "--checkpoint", str(weights)]
    killed(
        tmp_path,
        3,
        Path.mkdir,
        lambda root: ["detect", str(scan), *options, "--out", str(root / "out")],
        contents,
    )


def test_reproduce(tmp_path):
    data = tmp_path / "data"
    finish(["phantom", "deeplesion", str(data), "--patients", "1", "1", "1", *SMALL])
    finish(["convert", "deeplesion", str(data)])
    options = ["train_cfg.max_epochs=2", "train_dataloader.batch_size=2", "model.test_cfg.rcnn.max_per_img=5"]

    def arguments(root: Path) -> list[str]:
        chosen = ["--rows", "a3d", "--seeds", "1", "--jobs", "1", "--data-root", str(data)]
        return ["reproduce", "table2", "--twins", *chosen, "--work-dir", str(root), "--cfg-options", *options]

    def result(root: Path) -> dict[str, object]:
        """Detections, figures and report; logs and seconds are not the same twice."""
        run = root / "a3d_densenet121-fpn_7s_phantom" / "seed0"
        found: dict[str, object] = {path.name: path.read_bytes() for path in root.glob("table2-twins.*")}
        if (run / "result.json").exists():
            found["figures"] = {**json.loads((run / "result.json").read_text()), "seconds": None}
            found["detections"] = (run / "detections.json").read_bytes()
        found["left"] = [str(path) for path in root.rglob("*") if path.name.startswith((".tmp-", ".lock"))]
        return found

    killed(tmp_path, 4, Path.mkdir, arguments, result)
