"""The commands as a user types them: phantom, convert, train, test, evaluate, detect, and their bad inputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmpluld.cli.main import main

CONFIG = "pluld-a3d_densenet121-fpn_7s_phantom"
SMALL = ["train_cfg.max_epochs=1", "train_dataloader.batch_size=2"]


def mmpluld(*arguments: object, cwd: Path, start: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *start, "-m", "mmpluld", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working folder with a small converted phantom dataset, one scan, and one epoch of training."""
    folder = tmp_path_factory.mktemp("home")
    size = ["--set", "size=64", "max_slices=12"]
    for arguments in (
        ["phantom", "deeplesion", "data/phantom", "--patients", "3", "1", "1", *size],
        ["convert", "deeplesion", "data/phantom"],
        ["phantom", "scan", "scan.nii.gz", "--seed", "7", *size],
        ["train", CONFIG, "--work-dir", "run", "--cfg-options", *SMALL],
    ):
        done = mmpluld(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def weights(home):
    return (home / "run/last_checkpoint").read_text()


@pytest.fixture
def refused_here(home, monkeypatch, capsys, mmpluld_scope):
    """Run in this process a command that must fail as bad input; return its one line."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("LOCAL_RANK", "0")  # train sets it

    def run(*arguments: object) -> str:
        status = main([str(argument) for argument in arguments])
        error = capsys.readouterr().err
        line = error.strip().splitlines()[-1]
        assert status == 2, line
        assert "Traceback" not in error
        assert line.startswith("mmpluld: error: ")
        return line

    return run


def test_test_writes_what_evaluate_reads(home, weights):
    options = ["--out", "found.json", "--work-dir", "run", "--show-dir", "shown", "--show-score-thr", "0.01"]
    done = mmpluld("test", CONFIG, weights, *options, cwd=home)
    assert done.returncode == 0, done.stderr[-2000:]
    keys = json.loads((home / "found.json").read_text())["volumes"]
    names = {path.name.rpartition("_")[0] for path in (home / "shown").glob("*.png")}
    assert names == keys.keys()
    printed = {line.split()[0]: float(line.split()[1]) for line in done.stdout.splitlines() if "froc/" in line[:5]}
    truth = "data/phantom/truth/test_key_slices.json"
    arguments = ["--protocol", "deeplesion-2d", "--bootstrap", "20", "--json", "froc.json", "--plot", "froc.png"]
    done = mmpluld("evaluate", "found.json", truth, *arguments, cwd=home)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((home / "froc.json").read_text())
    assert {"protocol", "levels", "sensitivity", "average"} <= result.keys()
    assert result["average"] == pytest.approx(printed["froc/avg"], abs=1e-4)
    assert (home / "froc.png").stat().st_size > 1000


def test_browse_draws_training_samples(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main(["browse", CONFIG, "--out", "browsed", "--number", "3"]) == 0
    assert capsys.readouterr().out == "browsed: 3 pictures\n"
    assert len(list((home / "browsed").glob("*.png"))) == 3


@pytest.mark.slow
def test_two_processes_train_and_test_together(home):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    arguments = ["--launcher", "pytorch", "--work-dir", "two"]
    done = mmpluld("train", CONFIG, *arguments, "--cfg-options", *SMALL, cwd=home, start=torchrun)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((home / "two").glob("*/vis_data"))) == 1
    weights = (home / "two/last_checkpoint").read_text()
    found = {}
    for name, start, launcher in (("one", (), "none"), ("both", torchrun, "pytorch")):
        options = ["--work-dir", "two", "--out", f"{name}.json", "--launcher", launcher]
        done = mmpluld("test", CONFIG, weights, *options, cwd=home, start=start)
        assert done.returncode == 0, done.stderr[-2000:]
        found[name] = json.loads((home / f"{name}.json").read_text())["volumes"]
    assert found["one"] == found["both"]


def test_detect_writes_a_report_and_keeps_what_exists(home, weights, refused_here):
    arguments = ["detect", "scan.nii.gz", "--config", CONFIG, "--checkpoint", weights, "--out", "findings"]
    done = mmpluld(*arguments, "--score-thr", "0.01", cwd=home)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(path.name for path in (home / "findings").iterdir()) == [
        "detections.json",
        "findings.csv",
        "report.html",
    ]
    before = (home / "findings/report.html").read_bytes()
    assert "--overwrite" in refused_here(*arguments)
    assert (home / "findings/report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("model.backbone.num_slics=7", "num_slices"),
        ("model.neck.type=TopDownFuson", "TopDownFusion"),
        ("train_dataloder.batch_size=2", "train_dataloader"),
        ("launcher=pytorch", "by --launcher alone"),
    ],
)
def test_option_that_does_nothing_is_refused_with_what_is_meant(home, refused_here, option, hint):
    assert hint in refused_here("train", CONFIG, "--work-dir", "typo", "--cfg-options", option)
    assert not (home / "typo").exists()


def test_unknown_config_names_the_nearest(refused_here):
    assert CONFIG in refused_here("train", "pluld-a3d_densenet121-fpn_7s_phantm")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_mixed_precision_needs_a_gpu(refused_here):
    assert "--amp: mixed precision trains on GPUs alone" in refused_here("train", CONFIG, "--amp")


def test_checkpoint_of_another_model(weights, refused_here):
    options = ["--cfg-options", "model.neck.out_channels=32", "model.rpn_head.in_channels=32"]
    options += ["model.roi_head.bbox_roi_extractor.out_channels=32", "model.roi_head.bbox_head.in_channels=32"]
    line = refused_here("test", CONFIG, weights, "--work-dir", "run", *options)
    assert weights in line
    assert "another model" in line


def test_pickled_checkpoint_with_foreign_code(home, refused_here):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(home / "owned"),))

    torch.save({"state_dict": {}, "meta": Evil()}, home / "evil.pth")
    arguments = ["detect", "scan.nii.gz", "--config", CONFIG, "--checkpoint", "evil.pth", "--out", "evil"]
    assert "refused" in refused_here(*arguments)
    assert not (home / "owned").exists()
    assert not (home / "evil").exists()


def test_missing_scan_and_truncated_scan(home, weights, refused_here):
    arguments = ["--config", CONFIG, "--checkpoint", weights, "--out", "never"]
    assert "missing.nii.gz" in refused_here("detect", "missing.nii.gz", *arguments)
    (home / "cut.nii.gz").write_bytes((home / "scan.nii.gz").read_bytes()[:5000])
    assert "cut.nii.gz" in refused_here("detect", "cut.nii.gz", *arguments)
    assert not (home / "never").exists()


def test_annotation_file_of_another_schema(home, refused_here):
    (home / "other.json").write_text('{"schema": "coco/1", "images": []}')
    line = refused_here("evaluate", "other.json", "other.json", "--protocol", "lens-3d")
    assert "other.json" in line
