"""``python -m benchmarks --device cuda``: what it says without a GPU, and that each of its benchmarks runs on one."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from benchmarks.__main__ import main


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--device", "cuda", "backbones"])
    assert main() == 0
    assert capsys.readouterr().out == "skipped: torch sees no CUDA device on this machine\n"


def test_names_belong_to_a_device(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--device", "cuda", "froc"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "for cuda there are backbones, detectors, training" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["backbones", "detectors", "training"])
def test_runs(name):
    rows = importlib.import_module(f"benchmarks.cuda.{name}").run(size=64, repeats=1)["rows"]
    times = [value for row in rows for key, value in row.items() if key.endswith((", ms", "per step", "per key slice"))]
    assert len(times) >= len(rows)
    assert min(times) > 0
