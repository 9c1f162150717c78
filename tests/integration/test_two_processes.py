"""Training of four experts in two processes follows that of one process with twice the batch size, step by step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpluld.cli.main import main
from mmpluld.engine.config import load_config
from mmpluld.reproduce.twin_datasets import ensure_lens_phantoms

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

REPOSITORY = Path(__file__).parents[2]
# Like the first two, which normalise over all processes and draw boxes, are the others.
VARIANTS = ["afp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rpn", "centernet", "fcos"))]
DATASETS = ["deeplesion", "luna16", "lits", "nih-ln"]
PATIENTS = {"deeplesion": (1, 0, 1), "luna16": (1,), "lits": (3,), "nih-ln": (3,)}
SETTINGS = {"size": 64, "max_slices": 16, "lesions_per_series": 16, "min_long_mm": 14, "pad_mm": 4}
BATCH = 4  # of all processes

LOSS_TOLERANCE = 1e-4
"""Single precision rounds to 1e-7, which steps add up to 5e-6; a normaliser of the own process is 1e-2 off or more."""
WEIGHT_TOLERANCE = 1e-2
"""Of the way from the start: where rounding switches a rectifier on or off, a gradient jumps (seen: 2e-3)."""

# The phantom twin, smaller, and without what cannot be the same in both trainings: random augmentation, random draws of
# boxes, statistics over the batch of a process. Plain gradient steps: Adam would hide a wrong factor of a loss.
CONFIG = """
_base_ = "base-{variant}.py"
model = dict(
    backbone=dict(growth_rate=8, block_config=(1, 1, 1), stem_channels=8),
    neck=dict(in_channels=(16, 16, 16), out_channels=16),
    rpn_head=dict(head=dict(in_channels=16, feat_channels=32)),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=24)),
    train_cfg=dict(
        {rpn}
        # Few, so that none is in or out, and then a region or not, for a rounding of its score; all become regions.
        rpn_proposal=dict(nms_pre=16, max_per_img=20),
        rcnn=dict(sampler=dict(num=64, pos_fraction=1.0)),
    ),
)
# Batch norms stay as they start, and so need inputs of about the size they would make.
train_dataloader = dict(
    batch_size={batch},
    sampler=dict(batch_size={batch}, positive_ratio=0.5),
    dataset=dict(
        shared=dict(
            data_root="{data}",
            pipeline=dict(flip=dict(prob=0.0), window=dict(out_range=(-1, 1), offset=0)),
        ),
    ),
)
val_dataloader = val_evaluator = val_cfg = test_dataloader = test_evaluator = test_cfg = None
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = []
custom_hooks = [dict(type="Witness")]
log_level = "ERROR"
"""


def command(arguments: list[str], log: Path) -> None:
    assert main(arguments) == 0


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four datasets."""
    folder = tmp_path_factory.mktemp("phantoms")
    ensure_lens_phantoms(folder, command, PATIENTS, dict.fromkeys(PATIENTS, SETTINGS))
    return folder


@pytest.fixture(scope="module", params=VARIANTS)
def trained(
    request: pytest.FixtureRequest, phantoms: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Folders of a training of a variant in one process and in two."""
    folder, variant = tmp_path_factory.mktemp("two"), request.param
    configs = []
    load_config(f"lens-{variant}_densenet121_4datasets_9s_phantom").dump(folder / f"base-{variant}.py")
    for processes in (1, 2):
        values = {
            "variant": variant,
            "rpn": 'rpn=dict(sampler=dict(type="EvenSampler")),' if variant == "rpn" else "",
            "data": phantoms,
            "batch": BATCH // processes,
        }
        configs.append(folder / f"{variant}-{processes}.py")
        configs[-1].write_text(CONFIG.format(**values))
    script = Path(__file__).with_name("two_process_run.py")
    run = subprocess.run(
        [sys.executable, str(script), *map(str, configs)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-6000:]
    return folder / f"{variant}-1", folder / f"{variant}-2"


def steps(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / f"steps_{rank}.json").read_text())
    return found


def weights(folder: Path, when: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{when}_{rank}.pth", weights_only=True)


def test_losses_follow_those_of_one_process(trained: tuple[Path, Path]) -> None:
    one = steps(trained[0])
    halves = [steps(trained[1], rank) for rank in (0, 1)]
    assert {step["dataset"] for step in one} == set(DATASETS)
    # What makes counts differ between processes: no lesion at all, a single one, none in one of the processes.
    totals = [sum(step["lesions"]) for step in one]
    assert 0 in totals
    assert 1 in totals
    assert any(any(step["lesions"][:2]) != any(step["lesions"][2:]) for step in one)
    for whole, first, second in zip(one, *halves, strict=True):
        assert whole["dataset"] == first["dataset"] == second["dataset"]
        assert whole["lesions"] == first["lesions"] + second["lesions"]
        for name, value in whole["losses"].items():
            # A process without a single region has no loss of regions.
            mean = (first["losses"].get(name, 0.0) + second["losses"].get(name, 0.0)) / 2
            assert mean == pytest.approx(value, rel=LOSS_TOLERANCE, abs=1e-7), name


def test_weights_end_where_those_of_one_process_do(trained: tuple[Path, Path]) -> None:
    start, one = (weights(trained[0], when) for when in ("start", "end"))
    first, second = (weights(trained[1], "end", rank) for rank in (0, 1))
    assert start.keys() == one.keys() == first.keys()
    assert [name for name in one if not torch.equal(first[name], second[name])] == []
    experts = {name for name in one if any(f".{dataset}." in name for dataset in DATASETS)}
    assert len(experts) >= 4 * 8
    moved = {name for name in one if not torch.equal(start[name], one[name])}
    assert experts <= moved
    assert {name for name in one if not torch.equal(start[name], first[name])} == moved
    for name in moved:
        distance = torch.linalg.vector_norm(one[name] - start[name])
        apart = torch.linalg.vector_norm(first[name] - one[name])
        assert apart <= WEIGHT_TOLERANCE * distance, f"{name} moved by {distance}, {apart} apart"
