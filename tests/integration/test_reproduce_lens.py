"""The gate and Figure 7 on tiny phantoms of four datasets, one epoch each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpluld.cli.main import main
from mmpluld.reproduce.twin_datasets import ensure_lens_phantoms

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PATIENTS = {"deeplesion": (2, 2, 1), "luna16": (5,), "lits": (5,), "nih-ln": (5,)}
SETTINGS = {"size": 64, "max_slices": 12, "lesions_per_series": 14, "min_long_mm": 14}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gate") / "phantom-lens"

    def command(arguments: list[str], log: Path) -> None:
        assert main(arguments) == 0

    ensure_lens_phantoms(root, command, PATIENTS, dict.fromkeys(PATIENTS, SETTINGS))
    return root


def reproduce(table: str, phantoms: Path, work_dir: Path, rows: str) -> int:
    paths = ["--data-root", str(phantoms), "--work-dir", str(work_dir)]
    options = ["--seeds", "1", "--jobs", "1", "--pretrained", "none", "--cfg-options", "train_cfg.max_epochs=1"]
    return main(["reproduce", table, "--twins", "--rows", rows, *paths, *options])


def result(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "seed0" / "result.json").read_text())
    return found


def test_gate_trains_both_detectors_and_ends_with_a_verdict(phantoms, tmp_path, capfd):
    rows = "lens-longer-complete,retinanet-complete,retinanet-oracle"
    assert reproduce("gate", phantoms, tmp_path, rows) == 0
    out = capfd.readouterr().out
    assert "inconclusive: DeepLesion alone, complete labels − DeepLesion alone, marked only" in out
    text = (tmp_path / "gate-twins.md").read_text()
    assert "7 of 7 conditions are not met or inconclusive." in text
    for name in ("gate-lens-twins.md", "gate-one-stage-twins.md"):
        assert "mmpluld reproduce gate --seeds 1 --twins" in (tmp_path / name).read_text()
    lens, one_stage = "lens-afp_densenet121_longer_9s_phantom", "retinanet-a3d_densenet121-fpn_7s_phantom"
    for name in (f"{lens}+lens-longer-complete", f"{one_stage}+retinanet-complete", f"{one_stage}+retinanet-oracle"):
        assert result(tmp_path / f"{name}-val")["num_patients"] == 2  # those of the validation
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("epoch_1.pth")}
    assert reproduce("gate", phantoms, tmp_path, rows) == 0  # only renders
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("epoch_1.pth")} == before


def test_figure_7_tests_one_joint_detector_on_each_held_out_part(phantoms, tmp_path):
    rows = "lens-luna16-joint-100,lens-nih-ln-joint-100,lens-nih-ln-alone-100"
    assert reproduce("lens-figure7", phantoms, tmp_path, rows) == 0
    joint, other, alone = (
        tmp_path / f"lens-afp_densenet121_{name}_9s_phantom"
        for name in ("4datasets-luna16", "4datasets-nih-ln", "nih-ln")
    )
    assert {result(folder)["protocol"] for folder in (joint, other, alone)} == {"centre-3d"}
    assert all(result(folder)["num_patients"] == 2 for folder in (joint, other, alone))
    trained = [folder.name for folder in (joint, other, alone) if (folder / "seed0" / "epoch_1.pth").is_file()]
    assert trained == [joint.name, alone.name]
