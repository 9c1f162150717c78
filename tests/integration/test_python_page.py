"""The examples of the page on Python, run on a phantom scan as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmpluld.cli.main import main

PAGE = Path(__file__).resolve().parents[2] / "docs/how_to/python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A phantom scan of few slices."""
    folder = tmp_path_factory.mktemp("python")
    size = ["size=96", "max_slices=16"]
    assert main(["phantom", "scan", str(folder / "scan.nii.gz"), "--set", *size, "--seed", "6"]) == 0
    return folder


def test_examples_run_in_their_order(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    names: dict = {"__name__": "page"}
    outputs = []
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
        outputs.append(capsys.readouterr().out)
    assert len(BLOCKS) == 7
    assert len(names["rows"]) == len(names["found"].boxes) == len(names["frame"])
    assert outputs[0].startswith("scan: ") and "score" in outputs[0]
    assert "missing.nii.gz: no such file or folder" in outputs[1]
    assert "--fp-rate 1 and --score-thr 0.6 both give the threshold" in outputs[1]
    assert re.search(r"^scan: \d+ findings\nmissing is refused: missing.nii.gz: no such", outputs[2], re.M)
    assert (folder / "findings.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (folder / "out").iterdir()} == {"detections.json", "findings.csv", "report.html"}
    assert (folder / "best" / "detections.json").is_file()
    assert (folder / "sure" / "detections.json").is_file()
    assert names["findings"].volume.source == "mine"
    first = names["frame"].score.tolist()
    assert sorted(names["findings"].to_pandas().score) == pytest.approx(sorted(first))
