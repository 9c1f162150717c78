"""A resumed training does what its config says, not what the config of the checkpoint said."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmpluld.engine.checkpoint import misfits
from mmpluld.engine.config_digest import CONFIG_SHA256, config_digest
from mmpluld.engine.guard import optim_wrappers
from mmpluld.engine.wrapped import unwrapped
from mmpluld.errors import InputError, name_some

__all__ = ["ResumeCheck", "describe_run"]

# What a scheduler's state holds besides its settings.
_PROGRESS = {"last_step", "_global_step", "_last_value", "best", "num_bad_epochs", "cooldown_counter"}
# How an optimizer computes, not what; other versions of torch write others.
_TORCH_FLAGS = {"params", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"}


def describe_run(runner: Runner) -> dict[str, Any]:
    """What a checkpoint must tell of its run, besides what mmengine puts into it.

    Resuming needs the length of an epoch and the optimizers, who looks for the weights' own config its digest.
    """
    tested = (runner.cfg.get("test_dataloader") or {}).get("dataset") or {}
    own = {CONFIG_SHA256: config_digest(runner.cfg)} if "pipeline" in tested else {}
    return {
        **own,
        "epoch_length": len(runner.train_dataloader),
        "optimizers": {name: type(wrapper.optimizer).__name__ for name, wrapper in optim_wrappers(runner).items()},
    }


class ResumeCheck(Hook):
    """Fits a checkpoint to the config before mmengine resumes from it, or refuses it.

    mmengine takes everything from the checkpoint, the old schedule included. Here the weights, the state of the
    optimizer and the place in the training come from it; the schedule and the settings of the optimizer are the
    config's:

    - Is the schedule (or the learning rate) another one, the run goes on as if it had had the new one from its start:
      the schedulers are stepped to the place of the checkpoint. A schedule that follows validations cannot be repeated,
      so a change of it is refused.
    - Other settings of the same optimizer hold from here on.
    - Where an epoch has another length (other data, batch size or number of processes), the epoch counts, and
      iterations are counted anew.
    - A checkpoint from the middle of an epoch resumes at the beginning of that epoch.
    - Another optimizer, another model, an average of weights that the config does not keep, weights alone: refused.

    Nothing is touched where nothing has changed. What has changed is said in the log.

    A run from a config has this hook.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.source = "checkpoint"

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Change the checkpoint, which mmengine takes over next.

        Raises:
            InputError: It cannot be resumed from, or, if training only starts from its weights, none of them fits.
        """
        model = unwrapped(runner.model)
        weights = checkpoint.get("state_dict", checkpoint)
        if not runner._resume:
            own = model.state_dict()
            names = {key.removeprefix("module."): value for key, value in weights.items()}
            if not any(key in own and np.shape(value) == own[key].shape for key, value in names.items()):
                raise InputError(f"{self.source}: load_from: none of its {len(names)} tensors fits the config's model")
            return
        missing = [key for key in ("state_dict", "meta", "message_hub", "optimizer") if key not in checkpoint]
        if missing:
            raise InputError(
                f"{self.source}: cannot be resumed from, it has no {missing[0]}; to start a new training from its "
                "weights, leave out --resume and set load_from to it"
            )
        if not all(isinstance(checkpoint["meta"].get(key), int) for key in ("epoch", "iter")):
            raise InputError(
                f"{self.source}: cannot be resumed from, its meta tells no epoch and iter; set load_from to it"
            )
        problems = misfits(weights, model)
        if problems:
            raise InputError(
                f"{self.source}: cannot be resumed from, it is of another model, {problems}; resume with the config "
                "that it was trained with"
            )
        if "ema_state_dict" in checkpoint and not any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise InputError(
                f"{self.source}: cannot be resumed from, its training kept an average of the weights (EMAHook) and the "
                "config has none; add the hook, or start a new training with load_from"
            )
        notes = _check_optimizers(runner, checkpoint, self.source)
        moved, place_notes = _find_place(runner, checkpoint["meta"])
        notes += place_notes
        notes += _follow_schedule(runner, checkpoint, moved, self.source)
        for note in notes:
            runner.logger.warning(f"{self.source}: {note}")


def _find_place(runner: Runner, meta: dict[str, Any]) -> tuple[bool, list[str]]:
    """Say in ``meta`` where the run goes on, in terms of the config's loop; whether that is another place."""
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        meta["epoch"] = 0
        return False, []
    epoch, iteration, length = meta["epoch"], meta["iter"], len(runner.train_dataloader)
    before = meta.get("epoch_length")
    if before is None:  # written before checkpoints told it
        before = length
        if epoch and not epoch * length <= iteration <= (epoch + 1) * length:
            before = max(1, iteration // epoch)
    done, rest = divmod(iteration, before)
    meta["epoch"], meta["iter"] = done, done * length
    notes = []
    if before != length:
        notes.append(
            f"an epoch had {before} iterations and now has {length} (other data, batch size or number of processes); "
            f"the run goes on with epoch {done + 1}"
        )
    if rest:
        notes.append(f"is from the middle of epoch {done + 1}; that epoch is repeated from its start")
    return meta["iter"] != iteration, notes


def _by_name(value: Any) -> dict[str, Any]:
    """Of several optimizers by name, or of the only one, whose name is ''."""
    return dict(value) if isinstance(value, Mapping) else {"": value}


def _states(runner: Runner, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The states of the optimizers in the checkpoint by name."""
    several = isinstance(runner.optim_wrapper, OptimWrapperDict)
    return dict(checkpoint["optimizer"]) if several else {"": checkpoint["optimizer"]}


def _schedulers(runner: Runner) -> dict[str, list[_ParamScheduler]]:
    return _by_name(runner.param_schedulers or [])


def _check_optimizers(runner: Runner, checkpoint: dict[str, Any], source: str) -> list[str]:
    """Refuse the state of another optimizer; put the config's settings in place of others, and say which."""
    types = checkpoint["meta"].get("optimizers", {})
    states = _states(runner, checkpoint)
    scheduled = {scheduler.param_name for some in _schedulers(runner).values() for scheduler in some}
    scheduled |= {"betas"} if "momentum" in scheduled else set()  # as Adam calls it
    notes = []
    for name, wrapper in optim_wrappers(runner).items():
        own, saved = wrapper.optimizer.param_groups, (states.get(name) or {}).get("param_groups", [])
        kind = type(wrapper.optimizer).__name__
        if [len(group["params"]) for group in own] != [len(group["params"]) for group in saved]:
            raise InputError(
                f"{source}: cannot be resumed from, its optimizer has {len(saved)} groups of parameters and the "
                f"config's {len(own)}, or of other sizes; keep optim_wrapper.paramwise_cfg, or start with load_from"
            )
        foreign = {key for group in saved for key in group if not key.startswith("initial_")}
        foreign -= {key for group in own for key in group}  # mmengine notes lr_mult in the groups that have one
        if types.get(name, kind) != kind or foreign - _TORCH_FLAGS:
            raise InputError(
                f"{source}: cannot be resumed from, its optimizer is {types.get(name, 'another one')}, the config's is "
                f"{kind}; keep it, or start a new training with load_from"
            )
        changed = {}
        for mine, theirs in zip(own, saved, strict=True):
            for key in mine.keys() - _TORCH_FLAGS - scheduled:
                if key.startswith("initial_"):
                    continue
                if key in theirs and theirs[key] != mine[key]:
                    changed[key] = f"{key} {theirs[key]} -> {mine[key]}"
                theirs[key] = mine[key]
        if changed and "base_param_settings" in states[name]:
            states[name]["base_param_settings"] = copy.deepcopy(wrapper.base_param_settings)
        notes += [f"the optimizer follows the config: {', '.join(changed.values())}"] if changed else []
    return notes


def _settings(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in _PROGRESS and not callable(value)}


def _changes(own: list[dict[str, Any]], saved: list[dict[str, Any]]) -> list[str]:
    """In what schedules differ, in words."""
    if len(own) != len(saved):
        return [f"{len(saved)} -> {len(own)} schedulers"]
    changes = []
    for index, (mine, theirs) in enumerate(zip(own, saved, strict=True)):
        mine, theirs = _settings(mine), _settings(theirs)
        if mine.keys() != theirs.keys():
            changes.append(f"param_scheduler[{index}] of another type")
            continue
        for key in mine:
            if mine[key] == theirs[key]:
                continue
            old, new = (_short(value) for value in (theirs[key], mine[key]))
            label = f"initial {mine.get('param_name', 'value')}" if key == "base_values" else key
            changes.append(f"param_scheduler[{index}] {label} {old} -> {new}")
    return changes


def _short(value: Any) -> str:
    """A setting in few words: milestones as a list, the first of many equal values once."""
    if isinstance(value, Mapping):
        return str(sorted(value))
    if isinstance(value, list):
        unique = list(dict.fromkeys(map(str, value)))
        return ", ".join(unique[:3]) + (", ..." if len(unique) > 3 else "")
    return str(value)


def _follow_schedule(runner: Runner, checkpoint: dict[str, Any], moved: bool, source: str) -> list[str]:
    """If the schedule is another one, or goes on from another place, bring it there and into the checkpoint."""
    own, saved = _schedulers(runner), _by_name(checkpoint.get("param_schedulers") or [])
    changes = []
    for name in own.keys() | saved.keys():
        fresh = [scheduler.state_dict() for scheduler in own.get(name, [])]
        changes += _changes(fresh, saved.get(name, []))
    if not changes and not moved:
        return []
    if any(isinstance(item, ReduceOnPlateauParamScheduler) for some in own.values() for item in some):
        # A longer training may well go on with it: mmengine sets the end of schedulers to that of the training.
        if any(" end " not in change for change in changes):
            raise InputError(
                f"{source}: cannot be resumed from with another schedule ({'; '.join(changes[:3])}), because "
                "ReduceOnPlateau follows the validations so far; keep param_scheduler, or start with load_from"
            )
        for name, some in own.items():
            for item, state in zip(some, saved[name], strict=True):
                state["end"] = item.end
        return []
    states, wrappers = _states(runner, checkpoint), optim_wrappers(runner)
    meta = checkpoint["meta"]
    for name, wrapper in wrappers.items():
        schedulers = own.get(name, [])
        _replay(schedulers, meta["epoch"], meta["iter"])
        _take_groups(wrapper, states[name], {scheduler.param_name for scheduler in schedulers} or {"lr"})
    replayed = {name: [copy.deepcopy(item.state_dict()) for item in some] for name, some in own.items()}
    checkpoint["param_schedulers"] = replayed if isinstance(runner.param_schedulers, dict) else replayed.get("", [])
    if not changes:
        return []
    shown = name_some(changes, 4, "more changes", "; ")
    rates = sorted({group["lr"] for wrapper in wrappers.values() for group in wrapper.optimizer.param_groups})
    return [
        f"the schedule is that of the config, as if it had been so from the start ({shown}); the learning rate is "
        f"{rates[-1]:g} here"
    ]


def _replay(schedulers: list[_ParamScheduler], epochs: int, iterations: int) -> None:
    """Step new schedulers to a place, in the order in which a training does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that the optimizer took no step
        for epoch in range(max(epochs, 1)):
            first, last = (iterations * part // max(epochs, 1) for part in (epoch, epoch + 1))
            for _ in range(last - first):
                for scheduler in schedulers:
                    if not scheduler.by_epoch:
                        scheduler.step()
            if epochs:
                for scheduler in schedulers:
                    if scheduler.by_epoch:
                        scheduler.step()


def _take_groups(wrapper: OptimWrapper, state: dict[str, Any], names: set[str]) -> None:
    """Put what the schedulers set in the optimizer into its saved state."""
    for mine, theirs in zip(wrapper.optimizer.param_groups, state["param_groups"], strict=True):
        for key in mine:
            if key in names or key.startswith("initial_") or key == "betas":
                theirs[key] = mine[key]
    if "base_param_settings" in state:
        state["base_param_settings"] = copy.deepcopy(wrapper.base_param_settings)
