"""Seeding, and what the checkpoint hook keeps on disk."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmpluld.engine.hooks import SafeCheckpointHook, seed_everything


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002


def test_seeds_depend_on_every_number() -> None:
    seen = set()
    for entropy in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        seed_everything(*entropy)
        first = draws()
        seed_everything(*entropy)
        assert draws() == first
        seen.add(first)
    assert len(seen) == 4


class Toy(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs: list[torch.Tensor], mode: str = "loss") -> dict[str, torch.Tensor]:
        return {"loss": self.layer(torch.stack(inputs)).square().mean()}


def run(folder: Path, hook: SafeCheckpointHook, epochs: int) -> Runner:
    runner = Runner(
        model=Toy(),
        work_dir=str(folder),
        train_dataloader={
            "batch_size": 2,
            "dataset": [{"inputs": torch.ones(1)}, {"inputs": torch.zeros(1)}],
            "sampler": {"type": "DefaultSampler", "shuffle": True},
        },
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_hooks={"checkpoint": hook},
        default_scope="mmpluld",
        experiment_name=folder.name,
        randomness={"seed": 1},
        log_level="ERROR",
    )
    runner.train()
    return runner


@pytest.mark.parametrize(("keep", "left"), [(-1, [1, 2, 3]), (1, [3]), (2, [2, 3])])
def test_older_checkpoints_are_removed(tmp_path: Path, keep: int, left: list[int]) -> None:
    run(tmp_path / f"keep{keep}", SafeCheckpointHook(max_keep_ckpts=keep, interval=1), 3)
    folder = tmp_path / f"keep{keep}"
    assert sorted(path.name for path in folder.glob("*.pth")) == [f"epoch_{epoch}.pth" for epoch in left]
    assert (folder / "last_checkpoint").read_text() == str(folder / "epoch_3.pth")
    assert not list(folder.glob(".tmp-*"))


def test_nothing_is_removed_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        if path.name.endswith("epoch_2.pth"):
            raise OSError("No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    folder = tmp_path / "full"
    with pytest.raises(OSError, match="No space left"):
        run(folder, SafeCheckpointHook(max_keep_ckpts=1, interval=1), 3)
    assert [path.name for path in folder.glob("*.pth")] == ["epoch_1.pth"]
    assert (folder / "last_checkpoint").read_text() == str(folder / "epoch_1.pth")
    assert not list(folder.glob(".tmp-*"))


def test_checkpoints_hold_plain_content(tmp_path: Path) -> None:
    run(tmp_path / "plain", SafeCheckpointHook(interval=1), 1)
    checkpoint = torch.load(tmp_path / "plain" / "epoch_1.pth", weights_only=True)
    assert checkpoint["message_hub"]["log_scalars"] == {}
    assert checkpoint["message_hub"]["runtime_info"]["last_ckpt"].endswith("epoch_1.pth")
