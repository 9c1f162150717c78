"""The recipe of LENS from training to false-positive reduction on tiny phantoms, killed at every step."""

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
from mmpluld.reproduce.twin_datasets import ensure_lens_phantoms

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PATIENTS = {"deeplesion": (4, 1, 2), "luna16": (4,), "lits": (5,), "nih-ln": (4,)}
SETTINGS = {"size": 64, "max_slices": 10, "lesions_per_series": 14, "min_long_mm": 14, "contrast_hu": 150}
STEPS = (
    "propose", "embed-0.2", "mine-unlabeled", "propose-fold0", "propose-fold1", "harvest", "fpr_resnet18", "embedder",
)  # fmt: skip
RESULTS = ("lens-afp_densenet121_4datasets-mined_9s_phantom+lens-mined", "+lens-fpr-average")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mining") / "phantom-lens"

    def command(arguments: list[str], log: Path) -> None:
        assert main(arguments) == 0

    settings = dict.fromkeys(PATIENTS, SETTINGS) | {"deeplesion": {**SETTINGS, "max_studies": 2, "max_series": 2}}
    ensure_lens_phantoms(root, command, PATIENTS, settings)
    return root


def begin(phantoms: Path, work_dir: Path) -> subprocess.Popen[bytes]:
    """The whole recipe, one epoch of a few steps for each detector."""
    command = [sys.executable, "-m", "mmpluld", "reproduce", "lens-table2", "--twins", "--seeds", "1", "--jobs", "1"]
    command += ["--rows", "lens-fpr-average", "--pretrained", "none"]
    command += ["--data-root", str(phantoms), "--work-dir", str(work_dir)]
    few = "{deeplesion: 4, luna16: 4, lits: 4, nih-ln: 4}"
    command += ["--cfg-options", "train_cfg.max_epochs=1", f"train_dataloader.sampler.lengths={few}"]
    log = work_dir.with_suffix(".log").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def logs(work_dir: Path) -> set[Path]:
    """Outputs of the children that have begun."""
    return {path for name in ("train.log", "test.log", "step.log") for path in work_dir.rglob(name)}


def found(work_dir: Path) -> dict[str, object]:
    """What every run found, and what was mined; not the header, which names the checkpoint's file with its time."""
    results = {path.parts[-3]: json.loads(path.read_text())["sensitivity"] for path in work_dir.rglob("result.json")}
    mined = {path.parts[-3]: json.loads(path.read_text())["lesions"] for path in work_dir.rglob("mined.json")}
    return results | mined


def test_killed_at_every_step_and_resumed_it_finds_the_same(phantoms, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert begin(phantoms, whole).wait() == 0, whole.with_suffix(".log").read_text()[-3000:]
    assert {path.parent.parent.name for path in whole.rglob("step.json")} | {"embedder"} == set(STEPS) | {"steps"}
    kills = 0
    while True:
        seen, process = logs(killed), begin(phantoms, killed)
        while process.poll() is None and not logs(killed) - seen:
            time.sleep(0.05)
        if process.poll() is not None:
            break
        time.sleep(0.3 * (kills % 8))  # at another point of each step
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert process.returncode == 0, killed.with_suffix(".log").read_text()[-3000:]
    assert kills >= len(STEPS) + 5, "steps, trainings and tests"
    assert found(killed) == found(whole)
    assert any(name.endswith(RESULTS[1]) for name in found(whole))
