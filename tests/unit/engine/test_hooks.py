"""Seeding, and what the checkpoint hook keeps on disk."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmpluld.engine.hooks import SafeCheckpointHook, seed_everything
from mmpluld.engine.runner import TrainingRunner
from mmpluld.errors import InputError


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
        if mode == "predict":
            return [{}] * len(inputs)
        return {"loss": self.layer(torch.stack(inputs)).square().mean()}


class Killed(Exception):
    """Stands for the death of the process."""


class Course(BaseMetric):
    """A validation metric with given values, one for each validation; None: the process dies during it."""

    default_prefix = "froc"

    def __init__(self, values: list[float | None]) -> None:
        super().__init__()
        self.left = list(values)

    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append(None)

    def compute_metrics(self, results: list[None]) -> dict[str, float]:
        value = self.left.pop(0)
        if value is None:
            raise Killed
        return {"avg": value}


LOADER = {
    "batch_size": 2,
    "dataset": [{"inputs": torch.ones(1)}, {"inputs": torch.zeros(1)}],
    "sampler": {"type": "DefaultSampler", "shuffle": True},
}


def run(
    folder: Path, hook: SafeCheckpointHook, epochs: int, metric: BaseMetric | None = None, resume: bool = False
) -> Runner:
    validation = {"val_dataloader": LOADER, "val_evaluator": [metric], "val_cfg": {}} if metric else {}
    runner = Runner(
        model=Toy(),
        work_dir=str(folder),
        train_dataloader=LOADER,
        train_cfg={"by_epoch": True, "max_epochs": epochs},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_hooks={"checkpoint": hook},
        default_scope="mmpluld",
        experiment_name=folder.name + str(resume),
        randomness={"seed": 1},
        log_level="ERROR",
        resume=resume,
        **validation,
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
    with pytest.raises(InputError, match="No space left"):
        run(folder, SafeCheckpointHook(max_keep_ckpts=1, interval=1), 3)
    assert [path.name for path in folder.glob("*.pth")] == ["epoch_1.pth"]
    assert (folder / "last_checkpoint").read_text() == str(folder / "epoch_1.pth")
    assert not list(folder.glob(".tmp-*"))


def test_checkpoints_hold_plain_content(tmp_path: Path) -> None:
    run(tmp_path / "plain", SafeCheckpointHook(interval=1), 1)
    checkpoint = torch.load(tmp_path / "plain" / "epoch_1.pth", weights_only=True)
    assert checkpoint["message_hub"]["log_scalars"] == {}
    assert checkpoint["message_hub"]["runtime_info"]["last_ckpt"].endswith("epoch_1.pth")


def best(**changes: object) -> SafeCheckpointHook:
    return SafeCheckpointHook(**{"interval": 1, "max_keep_ckpts": 1, "save_best": "froc/avg", **changes})


def kept(folder: Path) -> list[str]:
    assert not list(folder.glob(".tmp-*"))
    return sorted(path.name for path in folder.glob("*.pth"))


@pytest.mark.parametrize(
    ("values", "epoch"),
    [([0.1, 0.3, 0.2], 2), ([0.1, 0.1, 0.1], 1), ([float("nan"), 0.0, float("nan")], 2), ([float("nan")] * 3, None)],
)
def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path: Path, values: list[float], epoch: int | None) -> None:
    folder = tmp_path / f"best{epoch}{values[0]}"
    run(folder, best(), 3, Course(values))
    assert kept(folder) == ([f"best_froc_avg_epoch_{epoch}.pth"] if epoch else []) + ["epoch_3.pth"]
    assert (folder / "last_checkpoint").read_text() == str(folder / "epoch_3.pth")


def weight(path: Path) -> torch.Tensor:
    return torch.load(path, weights_only=True)["state_dict"]["layer.weight"]


def test_keeping_the_best_changes_no_weights(tmp_path: Path) -> None:
    run(tmp_path / "with", best(), 3, Course([0.1, 0.3, 0.4]))
    run(tmp_path / "without", best(save_best=None), 3, Course([0.1, 0.3, 0.4]))
    assert torch.equal(weight(tmp_path / "with/epoch_3.pth"), weight(tmp_path / "without/epoch_3.pth"))
    assert kept(tmp_path / "without") == ["epoch_3.pth"]


def test_a_run_killed_in_validation_resumes_to_the_same_best_checkpoint(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, best(), 3, Course([0.1, 0.3, 0.2]))
    with pytest.raises(Killed):
        run(broken, best(), 3, Course([0.1, None]))
    assert kept(broken) == ["best_froc_avg_epoch_1.pth", "epoch_2.pth"]
    run(broken, best(), 3, Course([0.3, 0.2]), resume=True)
    assert kept(broken) == kept(whole) == ["best_froc_avg_epoch_2.pth", "epoch_3.pth"]
    for name in kept(whole):
        assert torch.equal(weight(whole / name), weight(broken / name))


def test_the_best_checkpoint_survives_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        if path.name.endswith("best_froc_avg_epoch_2.pth"):
            raise OSError("No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(InputError, match="No space left"):
        run(tmp_path / "fullbest", best(), 2, Course([0.1, 0.3]))
    assert kept(tmp_path / "fullbest") == ["best_froc_avg_epoch_1.pth", "epoch_2.pth"]


def test_a_repeated_validation_with_a_better_value_keeps_its_best_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, best(), 2, Course([0.1, 0.3]))
    run(tmp_path, best(), 3, Course([0.31, 0.2]), resume=True)
    assert kept(tmp_path) == ["best_froc_avg_epoch_2.pth", "epoch_3.pth"]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_best_checkpoint_that_is_gone_has_no_score(tmp_path: Path, elsewhere: bool) -> None:
    first, folder = tmp_path / "first", tmp_path / ("second" if elsewhere else "first")
    run(first, best(), 3, Course([0.1, 0.5, 0.3]))
    if elsewhere:
        folder.mkdir()
        for name in ("epoch_3.pth", "last_checkpoint"):
            shutil.copy(first / name, folder)
    else:
        (folder / "best_froc_avg_epoch_2.pth").unlink()
    resumed = run(folder, best(), 4, Course([0.3, 0.2]), resume=True)
    assert kept(folder) == ["best_froc_avg_epoch_3.pth", "epoch_4.pth"]
    assert resumed.message_hub.get_info("best_score") == 0.3


def test_one_name_for_all_checkpoints_is_not_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"filename_tmpl is 'latest.pth'.* max_keep_ckpts=1 would remove it; put \{\}"):
        SafeCheckpointHook(interval=1, max_keep_ckpts=1, filename_tmpl="latest.pth")
    run(tmp_path, SafeCheckpointHook(interval=1, filename_tmpl="latest.pth"), 3)
    assert kept(tmp_path) == ["latest.pth"]


@pytest.mark.parametrize(
    ("name", "known"), [("froc3d/avg", "validation gives froc/..."), ("froc/sens@1", "validation gives froc/avg")]
)
def test_a_best_that_no_metric_gives_is_refused(tmp_path: Path, name: str, known: str) -> None:
    with pytest.raises(InputError, match=f"save_best is {name}, but {known}"):
        run(tmp_path / name.replace("/", "_"), best(save_best=name), 1, Course([0.1]))


def test_errors_are_better_when_smaller(tmp_path: Path) -> None:
    hook = best(save_best=["froc/avg", "recist/long_mae_mm"])
    assert hook.rules == ["greater", "less"]


def test_a_copied_folder_leaves_the_best_checkpoint_of_the_other(tmp_path: Path) -> None:
    folder, copy = tmp_path / "first", tmp_path / "second"
    run(folder, best(), 1, Course([0.1]))
    shutil.copytree(folder, copy)
    text = (copy / "last_checkpoint").read_text()
    assert text.startswith(str(folder))
    training = TrainingRunner(
        model=Toy(),
        work_dir=str(copy),
        train_dataloader=LOADER,
        train_cfg={"by_epoch": True, "max_epochs": 2},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        default_hooks={"checkpoint": best()},
        default_scope="mmpluld",
        experiment_name="copied",
        randomness={"seed": 1},
        log_level="ERROR",
        resume=True,
        val_dataloader=LOADER,
        val_evaluator=[Course([0.1, 0.5])],
        val_cfg={},
    )
    training.train()
    assert kept(folder) == ["best_froc_avg_epoch_1.pth", "epoch_1.pth"]
    assert kept(copy) == ["best_froc_avg_epoch_2.pth", "epoch_2.pth"]
