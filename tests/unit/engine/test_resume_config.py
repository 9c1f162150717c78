"""A resumed training follows its config, or refuses the checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import EMAHook, Hook

from mmpluld.engine.runner import latest_checkpoint
from mmpluld.errors import InputError

from .toys import Toy, loader, runner

GOOD = ["good"] * 4
STEPS = 2  # of an epoch
WARMUP = {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 3}


def cosine(epochs: int) -> dict[str, Any]:
    return {
        "type": "CosineAnnealingLR", "T_max": epochs, "end": epochs, "by_epoch": True, "convert_to_iter_based": True
    }  # fmt: skip


def steps(*milestones: int) -> dict[str, Any]:
    return {"type": "MultiStepLR", "milestones": list(milestones), "gamma": 0.1}


class Rates(Hook):
    """Keeps the settings that each step is taken with."""

    def before_train(self, runner: Any) -> None:
        self.seen: list[tuple[float, ...]] = []
        keys = ("lr", "momentum", "weight_decay")
        runner.optim_wrapper.optimizer.register_step_pre_hook(
            lambda optimizer, *_: self.seen.append(tuple(optimizer.param_groups[0][key] for key in keys))
        )


def train(folder: Path, epochs: int, scheduler: Any = None, resume: bool = False, **changes: Any) -> list[Any]:
    """Settings of every step of a training."""
    rates = Rates()
    hooks = [rates, *changes.pop("custom_hooks", [])]
    run = runner(folder, GOOD, epochs, param_scheduler=scheduler, resume=resume, custom_hooks=hooks, **changes)
    run.train()
    return rates.seen


def sgd(**settings: float) -> dict[str, Any]:
    return {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9} | settings}


SCHEDULES = {
    "longer cosine": ([WARMUP, cosine(2)], [WARMUP, cosine(5)]),
    "later milestone": ([steps(2)], [steps(4)]),
    "milestone already passed": ([steps(5)], [steps(1, 3)]),
    "another type": ([WARMUP, steps(1)], [WARMUP, cosine(5)]),
    "one more": ([steps(4)], [WARMUP, steps(4)]),
    "one less": ([WARMUP, steps(3)], [steps(3)]),
    "now some": (None, [WARMUP, steps(3)]),
    "none any more": ([steps(1)], None),
    "another end": ([{"type": "PolyLR", "end": 2}], [{"type": "PolyLR", "end": 5}]),
    "momentum, too": ([steps(3)], [{"type": "StepMomentum", "step_size": 1, "gamma": 0.5}, steps(3)]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_new_schedule_is_followed_as_if_it_had_been_there_from_the_start(tmp_path: Path, name: str) -> None:
    old, new = SCHEDULES[name]
    train(tmp_path / "old", 2, old)
    wanted = train(tmp_path / "new", 5, new)[2 * STEPS :]
    assert train(tmp_path / "old", 5, new, resume=True) == wanted
    assert len(wanted) == 3 * STEPS


@pytest.mark.parametrize("scheduler", [None, [WARMUP, steps(3)]])
@pytest.mark.parametrize("setting", [{"lr": 0.05}, {"weight_decay": 0.1}, {"momentum": 0.5}])
def test_other_settings_of_the_optimizer_are_followed(
    tmp_path: Path, scheduler: Any, setting: dict[str, float]
) -> None:
    train(tmp_path / "old", 2, scheduler)
    wanted = train(tmp_path / "new", 4, scheduler, optim_wrapper=sgd(**setting))[2 * STEPS :]
    assert train(tmp_path / "old", 4, scheduler, resume=True, optim_wrapper=sgd(**setting)) == wanted
    assert wanted[0] != train(tmp_path / "same", 3, scheduler)[2 * STEPS]


@pytest.mark.parametrize("groups", [{"bias_lr_mult": 2.0}, {"custom_keys": {"bias": {"lr_mult": 2.0}}}])
def test_groups_of_parameters_follow_too(tmp_path: Path, groups: dict[str, Any]) -> None:
    """Then mmengine keeps the rate without a group's factor in a group of its own, which its log shows."""
    wrapper = {"paramwise_cfg": groups}
    train(tmp_path / "old", 2, [cosine(2)], optim_wrapper=sgd() | wrapper)
    wanted = train(tmp_path / "new", 4, [cosine(4)], optim_wrapper=sgd() | wrapper)[2 * STEPS :]
    assert train(tmp_path / "old", 4, [cosine(4)], resume=True, optim_wrapper=sgd() | wrapper) == wanted
    with pytest.raises(
        InputError, match=r"epoch_4.pth: cannot be resumed from, its optimizer has 4 groups .* config's 1"
    ):
        train(tmp_path / "old", 5, [cosine(4)], resume=True)


def test_the_log_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "log", 2, [steps(2) | {"end": 9}])
    capsys.readouterr()
    train(tmp_path / "log", 3, [steps(2) | {"end": 9}], resume=True, log_level="WARNING")
    assert "epoch_2.pth: " not in capsys.readouterr().out
    train(
        tmp_path / "log", 4, [steps(3)], resume=True, log_level="WARNING", optim_wrapper=sgd(lr=0.2, weight_decay=0.5)
    )
    said = capsys.readouterr().out
    assert "param_scheduler[0] initial lr 0.1 -> 0.2" in said
    assert "milestones [2] -> [3]" in said
    assert "the learning rate is 0.02 here" in said
    assert "the optimizer follows the config: weight_decay 0 -> 0.5" in said


def test_epochs_count_where_they_get_another_length(tmp_path: Path) -> None:
    train(tmp_path / "old", 2, [cosine(4)])
    shorter = {"train_dataloader": loader(GOOD, batch_size=1)}
    wanted = train(tmp_path / "new", 4, [cosine(4)], **shorter)[2 * 4 :]
    assert train(tmp_path / "old", 4, [cosine(4)], resume=True, **shorter) == wanted
    assert torch.load(tmp_path / "old" / "epoch_4.pth", weights_only=True)["meta"]["iter"] == 16


def by_iteration(interval: int) -> dict[str, Any]:
    return {"checkpoint": {"type": "SafeCheckpointHook", "interval": interval, "by_epoch": False}}


OVER_ITERATIONS = {
    "train_cfg": {"by_epoch": False, "max_iters": 6},
    "train_dataloader": loader(GOOD, endless=True),
}


@pytest.mark.parametrize("loop", [{"train_cfg": {"by_epoch": True, "max_epochs": 3}}, OVER_ITERATIONS])
def test_a_finished_training_is_not_trained_on(tmp_path: Path, loop: dict[str, Any], capsys: Any) -> None:
    schedule = {"type": "CosineAnnealingLR", "T_max": 6, "by_epoch": False}
    options = {**loop, "param_scheduler": [schedule], "default_hooks": by_iteration(3)}
    runner(tmp_path / "done", GOOD, **options).train()
    before = {path: path.read_bytes() for path in (tmp_path / "done").glob("*.pth")}
    capsys.readouterr()
    run = runner(tmp_path / "done", GOOD, resume=True, log_level="WARNING", **options)
    run.train()
    assert "iter_6.pth: finished already, " in capsys.readouterr().out
    assert run.iter == 6
    assert {path: path.read_bytes() for path in (tmp_path / "done").glob("*.pth")} == before
    weights = torch.load(tmp_path / "done" / "iter_6.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[key]) for key, value in run.model.state_dict().items())


def test_the_middle_of_an_epoch_repeats_it(tmp_path: Path, capsys: Any) -> None:
    options = {"default_hooks": by_iteration(3)}
    wanted = train(tmp_path / "middle", 2, [cosine(2)], **options)
    (tmp_path / "middle" / "last_checkpoint").write_text("iter_3.pth")
    again = train(tmp_path / "middle", 2, [cosine(2)], resume=True, log_level="WARNING", **options)
    assert again == wanted[2:]
    assert "from the middle of epoch 2; that epoch is repeated from its start" in capsys.readouterr().out


def test_between_loops_over_epochs_and_over_iterations(tmp_path: Path) -> None:
    new = [{"type": "CosineAnnealingLR", "T_max": 8, "by_epoch": False}]
    train(tmp_path / "old", 2, [cosine(2)])
    wanted = train(tmp_path / "new", 0, new, **OVER_ITERATIONS)[4:]
    assert len(wanted) == 2
    assert train(tmp_path / "old", 0, new, resume=True, **OVER_ITERATIONS) == wanted


class Measured(Hook):
    """A value that ReduceOnPlateau follows."""

    priority = "LOW"

    def after_train_epoch(self, runner: Any) -> None:
        for scheduler in runner.param_schedulers:
            scheduler.step({"value": 1.0})


def test_a_schedule_by_validations_goes_on_for_longer(tmp_path: Path) -> None:
    plateau = [{"type": "ReduceOnPlateauLR", "monitor": "value", "rule": "less", "patience": 1, "end": 20}]
    longer = [plateau[0] | {"end": 30}]
    train(tmp_path / "old", 2, plateau, custom_hooks=[Measured()])
    wanted = train(tmp_path / "new", 5, longer, custom_hooks=[Measured()])[2 * STEPS :]
    assert len({rate for rate, *_ in wanted}) > 1
    assert train(tmp_path / "old", 5, longer, resume=True, custom_hooks=[Measured()]) == wanted
    assert torch.load(tmp_path / "old" / "epoch_5.pth", weights_only=True)["param_schedulers"][0]["end"] == 30
    refused(tmp_path, "because ReduceOnPlateau follows the validations", scheduler=[plateau[0] | {"patience": 2}])


def refused(tmp_path: Path, match: str, **changes: Any) -> None:
    with pytest.raises(InputError, match=match) as error:
        train(tmp_path / "old", 4, changes.pop("scheduler", None), resume=True, **changes)
    assert "\n" not in str(error.value)


def test_what_cannot_be_resumed_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "old", 1, custom_hooks=[EMAHook(momentum=0.1)])
    refused(tmp_path, r"epoch_1.pth: cannot be resumed from, its training kept an average .*add the hook")
    shutil.rmtree(tmp_path / "old")
    train(tmp_path / "old", 1)
    adam = {"optimizer": {"type": "AdamW", "lr": 0.1}}
    refused(tmp_path, r"epoch_1.pth: .* its optimizer is SGD, the config's is AdamW", optim_wrapper=adam)
    refused(tmp_path, r"epoch_1.pth: .* another model, of 4 tensors 3 of another shape \(first: layer", model=Toy(3))
    plateau = {"type": "ReduceOnPlateauLR", "monitor": "loss"}
    refused(tmp_path, r"epoch_1.pth: .*\(0 -> 1 schedulers\), because ReduceOnPlateau", scheduler=[plateau])
    adam["optimizer"]["type"] = "Adam"
    runner(tmp_path / "adam", GOOD, 1, optim_wrapper=adam).train()
    adam["optimizer"]["type"] = "AdamW"
    with pytest.raises(InputError, match=r"epoch_1.pth: .* its optimizer is Adam, the config's is AdamW"):
        runner(tmp_path / "adam", GOOD, 2, optim_wrapper=adam, resume=True).train()
    path = tmp_path / "old" / "epoch_1.pth"
    content = torch.load(path, weights_only=True)
    for key in ("optimizer", "message_hub", "meta"):
        torch.save({name: value for name, value in content.items() if name != key}, path)
        refused(tmp_path, rf"epoch_1.pth: cannot be resumed from, it has no {key}; .* set load_from to it")
    torch.save(content | {"meta": {"epoch": 1}}, path)
    refused(tmp_path, "epoch_1.pth: cannot be resumed from, its meta tells no epoch and iter")
    torch.save(content["state_dict"], path)
    refused(tmp_path, "epoch_1.pth: cannot be resumed from, it has no state_dict")
    with pytest.raises(InputError, match="load_from: none of its 1 tensors fits the config's model"):
        torch.save({"state_dict": {"other": torch.zeros(1)}}, path)
        runner(tmp_path / "fresh", GOOD, load_from=str(path)).train()


def test_optimizers_of_older_checkpoints_are_told_by_their_settings(tmp_path: Path) -> None:
    train(tmp_path / "old", 1)
    path = tmp_path / "old" / "epoch_1.pth"
    content = torch.load(path, weights_only=True)
    del content["meta"]["optimizers"], content["meta"]["epoch_length"]
    torch.save(content, path)
    refused(tmp_path, "its optimizer is another one", optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.1}})
    shutil.copytree(tmp_path / "old", tmp_path / "shorter")
    assert len(train(tmp_path / "old", 3, resume=True)) == 2 * STEPS
    longer = train(tmp_path / "shorter", 3, resume=True, train_dataloader=loader(GOOD, batch_size=1))
    assert len(longer) == 2 * 4, "epochs of another length count, too"


@pytest.mark.parametrize("where", ["state_dict", "optimizer"])
def test_damaged_or_failed_checkpoints_are_not_resumed(tmp_path: Path, where: str) -> None:
    train(tmp_path / "old", 1)
    path = tmp_path / "old" / "epoch_1.pth"
    content = torch.load(path, weights_only=True)
    tensor = (
        content["state_dict"]["layer.weight"]
        if where == "state_dict"
        else content[where]["state"][0]["momentum_buffer"]
    )
    needle = tensor.numpy().tobytes()
    whole = path.read_bytes()
    at = whole.rindex(needle)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refused(tmp_path, r"epoch_1.pth: not a checkpoint, or damaged \(the check sum of its record \S+data/\d+ is wrong")
    tensor.fill_(float("nan"))
    torch.save(content, path)
    refused(tmp_path, rf"epoch_1.pth: 1 of its tensors hold NaN or infinity \({where}\.\S+\), so the training")


def test_a_moved_folder_resumes_from_its_own_files(tmp_path: Path) -> None:
    train(tmp_path / "old", 1)
    shutil.copytree(tmp_path / "old", tmp_path / "copy")
    assert latest_checkpoint(tmp_path / "copy") == (tmp_path / "copy" / "epoch_1.pth", "")
    shutil.move(tmp_path / "old", tmp_path / "moved")
    assert len(train(tmp_path / "moved", 2, resume=True)) == STEPS
    assert sorted(path.name for path in (tmp_path / "moved").glob("*.pth")) == ["epoch_1.pth", "epoch_2.pth"]
    assert (tmp_path / "moved" / "last_checkpoint").read_text() == str(tmp_path / "moved" / "epoch_2.pth")


def test_the_checkpoint_that_is_there(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    pointer = tmp_path / "last_checkpoint"
    pointer.write_text("/gone/epoch_11.pth")
    with pytest.raises(InputError, match=r"last_checkpoint: names /gone/epoch_11.pth, which is gone, and .* no other"):
        latest_checkpoint(tmp_path)
    for name in ("epoch_9.pth", "epoch_10.pth", "iter_99.pth", "best_froc_avg_epoch_12.pth"):
        (tmp_path / name).touch()
    assert latest_checkpoint(tmp_path) == (
        tmp_path / "epoch_10.pth",
        f"{pointer}: names /gone/epoch_11.pth, which is gone; resuming from epoch_10.pth, the last that is there",
    )
    elsewhere = tmp_path / "elsewhere" / "epoch_3.pth"
    elsewhere.parent.mkdir()
    elsewhere.touch()
    pointer.write_text(f"{elsewhere}\n")
    assert latest_checkpoint(tmp_path) == (elsewhere, "")
    pointer.unlink()
    assert latest_checkpoint(tmp_path) == (
        tmp_path / "epoch_10.pth",
        f"{tmp_path}: has no last_checkpoint; resuming from epoch_10.pth",
    )


def test_nothing_to_resume_trains_from_the_start(tmp_path: Path, capsys: Any) -> None:
    assert len(train(tmp_path / "none", 1, resume=True, log_level="WARNING")) == STEPS
    assert "no checkpoint to resume from, so training starts anew" in capsys.readouterr().out
