"""docs/get_started.md and the short how-to pages, followed as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmpluld.cli.main import main

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str, language: str = "") -> list[str]:
    """The code blocks of a page."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), flags=re.S | re.M)
    return [text for kind, text in found if kind == language]


def commands(page: str) -> list[list[str]]:
    """Arguments of the commands of a page."""
    lines = [line for block in blocks(page) for line in block.splitlines() if line.startswith("mmpluld ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def write_files(page: str, folder: Path) -> list[str]:
    """Write the blocks that begin with a file's name; return the other ones."""
    others = []
    for block in blocks(page, "python"):
        name = re.match(r"# (\w+\.py)\n", block)
        if name:
            (folder / name[1]).write_text(block)
        else:
            others.append(block)
    return others


def started(arguments: list[str], folder: Path) -> None:
    """Run a command in a process of its own, for trainings leave state behind."""
    done = subprocess.run(
        [sys.executable, "-m", "mmpluld", *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr[-2000:]}"


def test_a_mixer_of_ones_own(tmp_path, monkeypatch, capsys):
    from mmpluld.engine.config import load_config
    from mmpluld.engine.config_check import check_config
    from mmpluld.registry import MODELS

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict = {}
    examples = write_files("how_to/new_mixer.md", tmp_path)
    for block in examples:
        exec(compile(block, "new_mixer.md", "exec"), names)
    assert len(examples) == 2
    assert capsys.readouterr().out == "torch.Size([2, 4, 7, 8, 8]) True\n"

    show, train = commands("how_to/new_mixer.md")
    assert main(show) == 0
    assert "slice_mixer=dict(share=0.5, type='MeanMixer')" in capsys.readouterr().out
    assert train[:2] == ["train", "mean.py"]
    config = load_config("mean.py", twin=True)
    check_config(config)
    backbone = MODELS.build(config.model.backbone).eval()
    mixers = [module for module in backbone.modules() if type(module).__name__ == "MeanMixer"]
    assert mixers and {mixer.share for mixer in mixers} == {0.5}
    with torch.no_grad():
        features = backbone(torch.randn(1, 7, 64, 64))
    assert all(torch.isfinite(x).all() for x in features)


@pytest.fixture
def records(tmp_path, monkeypatch):
    """Two detectors' records and their truth: two scans with two lesions each."""
    lesions = {
        "a": [[10, 10, 4, 30, 30, 8], [60, 60, 4, 70, 70, 6]],
        "b": [[20, 40, 2, 40, 50, 5], [5, 5, 9, 15, 15, 12]],
    }
    wrong = [100, 100, 20, 110, 110, 22]
    (one, two), (three, four) = lesions.values()
    found = {"a": ([one, wrong, two], [0.9, 0.7, 0.5]), "b": ([three, wrong, four], [0.8, 0.6, 0.2])}
    found["a"][0].append([0, 0, 30, 5, 5, 32])
    found["a"][1].append(0.4)
    other = {"a": ([one, wrong], [0.6, 0.9]), "b": ([wrong], [0.3])}
    monkeypatch.chdir(tmp_path)
    schema = {"schema": "mmpluld.detections/1"}
    Path("truth.json").write_text(json.dumps(schema | {"volumes": {k: {"boxes": v} for k, v in lesions.items()}}))
    for name, record in (("found", found), ("other", other)):
        volumes = {volume: {"boxes": boxes, "scores": scores} for volume, (boxes, scores) in record.items()}
        Path(f"{name}.json").write_text(json.dumps(schema | {"volumes": volumes}))
    return tmp_path


def test_a_froc_curve_is_read(records, capsys):
    (evaluate,) = commands("how_to/read_froc.md")
    assert main(evaluate) == 0
    printed = capsys.readouterr().out
    (shown,) = blocks("how_to/read_froc.md", "text")
    assert shown in printed
    assert (records / "froc.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((records / "froc.json").read_text())["num_lesions"] == 4
    outputs = []
    for block in blocks("how_to/read_froc.md", "python"):
        exec(compile(block, "read_froc.md", "exec"), {})
        outputs.append(capsys.readouterr().out.splitlines())
    assert outputs[0] == [
        "from score 0.9 on: 0.0 false positives per image, sensitivity 0.5",
        "from score 0.6 on: 0.5 false positives per image, sensitivity 0.5",
        "from score 0.4 on: 0.5 false positives per image, sensitivity 1.0",
        "[0.5 1. ]",
    ]
    assert any(line.startswith("difference") for line in outputs[1])


def shortened(arguments: list[str]) -> list[str]:
    """A command with less to do: a small phantom (that of the tables takes no settings), one epoch."""
    if arguments[:2] == ["phantom", "twins"]:
        arguments = ["phantom", "deeplesion", *arguments[2:]]
    arguments = [re.sub(r"epoch_\d+\.pth", "epoch_1.pth", text) for text in arguments]
    if arguments[0] == "phantom":
        arguments += ["--set", "size=64", "max_slices=12"]
    if arguments[:2] == ["phantom", "deeplesion"]:
        arguments += ["--patients", "3", "1", "1"]
    if arguments[0] == "train":
        arguments += ["--cfg-options", "train_cfg.max_epochs=1", "train_dataloader.batch_size=2"]
    return arguments


@pytest.mark.slow
def test_first_finding_first_training_and_the_mixer_trained(tmp_path):
    write_files("how_to/new_mixer.md", tmp_path)
    steps = [*commands("get_started.md"), commands("how_to/new_mixer.md")[-1]]
    assert [step[0] for step in steps] == [
        "doctor", "phantom", "detect", "evaluate", "phantom", "train", "test", "evaluate", "detect", "train",
    ]  # fmt: skip
    for arguments in steps:
        started(shortened(arguments), tmp_path)
        if arguments[:2] == ["phantom", "twins"]:
            started(["convert", "deeplesion", arguments[2]], tmp_path)
    for folder in ("findings", "mine"):
        assert {path.name for path in (tmp_path / folder).iterdir()} == {
            "detections.json",
            "findings.csv",
            "report.html",
        }
    assert (tmp_path / "work_dirs/mean/epoch_1.pth").is_file()
