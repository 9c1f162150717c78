"""Training that is killed twice and resumed ends with the same bits as training without interruption."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def tensors(node: Any, place: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a nested checkpoint by their place."""
    if isinstance(node, torch.Tensor):
        return {place: node}
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    return {key: value for name, child in items for key, value in tensors(child, f"{place}/{name}").items()}


def run_script(*arguments: object) -> str:
    """What ``resume_run.py`` prints."""
    script = Path(__file__).with_name("resume_run.py")
    run = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(script.parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "kills", "seed"), [(0, 20, 0), (2, 6, 1)])
def test_killed_at_random_moments(tmp_path: Path, workers: int, kills: int, seed: int) -> None:
    said = run_script(tmp_path, workers, kills, seed)
    assert f"{kills} kills, " in said
    assert said.strip().endswith("all equal bit for bit")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, workers: int) -> None:
    run_script(tmp_path, workers)
    whole, broken = (torch.load(tmp_path / name / "epoch_3.pth", weights_only=True) for name in ("whole", "broken"))
    assert {"state_dict", "optimizer", "ema_state_dict"} <= whole.keys()
    expected, actual = tensors(whole), tensors(broken)
    assert expected.keys() == actual.keys()
    assert len(expected) > 100
    assert [place for place in expected if not torch.equal(expected[place], actual[place])] == []
    assert whole["meta"]["iter"] == broken["meta"]["iter"] == 12
