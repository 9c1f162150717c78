"""``mmpluld reproduce`` on a tiny phantom: trains, tests, reports, then only renders; survives an interrupt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmpluld.cli.main import main
from mmpluld.datasets.converters import convert_deeplesion
from mmpluld.phantom import write_deeplesion_layout

RUN = "a3d_densenet121-fpn_7s_phantom/seed0"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reproduce") / "phantom"
    settings = {"size": 64, "max_slices": 12, "lesions_per_series": 4, "min_long_mm": 14, "contrast_hu": 180}
    write_deeplesion_layout(root, (1, 1, 1), seed=2, workers=1, **settings)
    convert_deeplesion(root)
    return root


def arguments(phantom: Path, work_dir: Path, epochs: int) -> list[str]:
    paths = ["--data-root", str(phantom), "--work-dir", str(work_dir)]
    options = [
        "--cfg-options",
        f"train_cfg.max_epochs={epochs}",
        "train_dataloader.batch_size=2",
        "model.test_cfg.rcnn.max_per_img=5",
    ]
    return [
        "reproduce",
        "table2",
        "--twins",
        "--rows",
        "a3d",
        "--seeds",
        "1",
        "--jobs",
        "1",
        "--pretrained",
        "none",
        *paths,
        *options,
    ]


def test_trains_tests_and_reports_then_only_renders(phantom, tmp_path, capfd):
    command = [*arguments(phantom, tmp_path, 1), "--export", str(tmp_path / "results")]
    assert main(command) == 0
    out = capfd.readouterr().out
    assert "A3D" in out
    assert "not run" in out  # the rows that were not asked for
    result = json.loads((tmp_path / RUN / "result.json").read_text())
    assert result["seed"] == 0
    assert 0 <= result["average"] <= 1
    assert result["seconds"]["train"] > 0
    exported = tmp_path / "results" / "table2-twins"
    assert len((exported / "runs.csv").read_text().splitlines()) == 2
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / RUN).rglob("*")}
    report = (tmp_path / "table2-twins.md").read_bytes()
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / RUN).rglob("*")} == before
    assert (tmp_path / "table2-twins.md").read_bytes() == report
    assert main(arguments(phantom, tmp_path, 2)) == 2  # the same folder, another config
    assert "choose another --work-dir" in capfd.readouterr().err


@pytest.mark.slow
def test_interrupted_run_resumes(phantom, tmp_path):
    command = [sys.executable, "-m", "mmpluld", *arguments(phantom, tmp_path, 16)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (tmp_path / RUN / "epoch_1.pth").is_file():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error
    record = json.loads((tmp_path / RUN / "run.json").read_text())
    assert not record.get("trained")
    assert record["seconds"]["train"] > 0
    assert not (tmp_path / RUN / "result.json").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert again.returncode == 0, again.stdout + again.stderr
    log = (tmp_path / RUN / "train.log").read_text()
    assert "resumed epoch" in log
    assert log.count("Epoch(train)  [1]") <= 1
    assert (tmp_path / RUN / "result.json").is_file()
