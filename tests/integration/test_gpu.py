"""The commands on a CUDA device: training, mixed precision, resuming, and the same detections as on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpluld.inference import Detector
from mmpluld.structures import DetectionSet

pytestmark = pytest.mark.gpu

CONFIG = "pluld-a3d_densenet121-fpn_7s_phantom"
MODEL = f"zoo:{CONFIG}"
SMALL = ["train_cfg.max_epochs=2", "train_dataloader.batch_size=2"]
EXACT = {"NVIDIA_TF32_OVERRIDE": "0"}  # float32 on the GPU with all its digits
BOX_ATOL_PX, SCORE_ATOL = 0.05, 1e-3


def mmpluld(*arguments: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mmpluld", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working folder with a small converted phantom dataset, one scan, and two epochs of training on the GPU."""
    folder = tmp_path_factory.mktemp("home")
    size = ["--set", "size=64", "max_slices=12"]
    mmpluld("phantom", "deeplesion", "data/phantom", "--patients", 3, 1, 1, *size, cwd=folder)
    mmpluld("convert", "deeplesion", "data/phantom", cwd=folder)
    mmpluld("phantom", "scan", "scan.nii.gz", "--seed", 7, *size, cwd=folder)
    mmpluld("train", CONFIG, "--work-dir", "run", "--cfg-options", *SMALL, cwd=folder)
    return folder


def test_trains_on_the_gpu(home):
    log = next((home / "run").glob("*/*.log")).read_text()
    assert "memory: " in log  # the runner writes it where the model is on a GPU


def test_mixed_precision_and_resuming(home):
    options = ["--work-dir", "amp", "--amp", "--cfg-options", *SMALL]
    mmpluld("train", CONFIG, *options, "train_cfg.max_epochs=1", cwd=home)
    mmpluld("train", CONFIG, *options, "--resume", cwd=home)
    state = torch.load(home / "amp/epoch_2.pth", weights_only=False)
    assert state["meta"]["epoch"] == 2
    assert state["optimizer"]["loss_scaler"]["scale"] >= 1
    assert all(value.isfinite().all() for value in state["state_dict"].values() if value.is_floating_point())


def test_a_test_gives_the_same_on_both(home):
    mmpluld("test", CONFIG, MODEL, "--out", "gpu.json", "--work-dir", "run", cwd=home, **EXACT)
    mmpluld("test", CONFIG, MODEL, "--out", "cpu.json", "--work-dir", "run", cwd=home, CUDA_VISIBLE_DEVICES="")
    gpu, cpu = (DetectionSet.load(home / name) for name in ("gpu.json", "cpu.json"))
    assert sum(len(found.boxes) for found in cpu.volumes.values()) > 10
    for name, found in cpu.volumes.items():
        assert_same(gpu.volumes[name].boxes, gpu.volumes[name].scores, found.boxes, found.scores)


def test_detect_gives_the_same_on_both(home):
    options = ["--config", CONFIG, "--checkpoint", MODEL, "--score-thr", "0.05", "--formats", "json"]
    mmpluld("detect", "scan.nii.gz", *options, "-o", "out-gpu", cwd=home, **EXACT)
    mmpluld("detect", "scan.nii.gz", *options, "-o", "out-cpu", "--device", "cpu", cwd=home)
    (gpu,), (cpu,) = (
        DetectionSet.load(home / name / "detections.json").volumes.values() for name in ("out-gpu", "out-cpu")
    )
    assert len(cpu.boxes)
    assert_same(gpu.boxes, gpu.scores, cpu.boxes, cpu.scores)


@pytest.mark.usefixtures("full_precision")
def test_batches_and_half_precision_find_what_one_slice_at_a_time_finds(home):
    settings = {"config": CONFIG, "checkpoint": MODEL, "device": "cuda", "score_thr": 0.05}
    one, many, rough = (
        Detector(**settings, **more)(home / "scan.nii.gz")
        for more in ({"batch_size": 1}, {"batch_size": 5}, {"precision": "bf16"})
    )
    assert len(one)
    assert_same(*arrays(many), *arrays(one))
    boxes, scores = arrays(rough)
    in_plane = [0, 1, 3, 4]  # along z a slice more or less has a score that passes
    best, score = arrays(one)[0][0], arrays(one)[1][0]
    near = np.abs(boxes - best)[:, in_plane].max(1) < 1
    assert np.abs(scores[near] - score).min() < 0.1


def arrays(findings):
    """Boxes (N, 6) and scores (N,) of findings."""
    (found,) = findings.detections.volumes.values()
    return np.asarray(found.boxes), np.asarray(found.scores)


def assert_same(boxes, scores, wanted_boxes, wanted_scores):
    """Every wanted box but the faintest, which a last digit can push off the list, is there with its score."""
    kept = wanted_scores > np.min(wanted_scores) + SCORE_ATOL
    assert abs(len(boxes) - len(wanted_boxes)) <= max(1, 0.02 * len(wanted_boxes))
    for box, score in zip(wanted_boxes[kept], wanted_scores[kept], strict=True):
        near = (np.abs(boxes - box) <= BOX_ATOL_PX).all(1) & (np.abs(scores - score) <= SCORE_ATOL)
        assert near.any(), (box, score)
