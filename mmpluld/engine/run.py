"""Training and testing from a config: what ``mmpluld train/test`` and ``mim train/test mmpluld`` call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner

from mmpluld.compat.allocator import tune_allocator
from mmpluld.compat.config_text import remember_formatted
from mmpluld.compat.half_precision import keep_boxes_exact
from mmpluld.compat.processes import PATIENCE_S, check_launcher, is_first
from mmpluld.engine.config import find_config, load_config
from mmpluld.engine.config_check import check_complete, check_config
from mmpluld.engine.config_digest import config_digest
from mmpluld.engine.refusals import refusals
from mmpluld.engine.run_options import (
    check_annotation_files,
    check_validation,
    draw_tested_samples,
    enable_auto_scale_lr,
    write_detections,
)
from mmpluld.engine.runner import TrainingRunner
from mmpluld.engine.schedule import check_schedule
from mmpluld.errors import InputError
from mmpluld.inputs import file_size, sha256_of
from mmpluld.outputs import LOCK, folder_lock
from mmpluld.structures.model_line import ModelLine
from mmpluld.typing import StrPath
from mmpluld.zoo.download import local_checkpoint

__all__ = ["prepare_config", "sole_writer", "test", "train"]

_WEIGHTS = "weights to test: a file, a web address, or zoo:NAME"


def prepare_config(
    config: str | os.PathLike[str],
    work_dir: str | os.PathLike[str] | None,
    cfg_options: Sequence[str] | None,
    launcher: str,
    local_rank: int,
    twin: bool = False,
) -> Config:
    """Read, change and check a config for a run, and set the process up for it.

    Args:
        config, work_dir, cfg_options, launcher, local_rank, twin: As for ``train``.

    Raises:
        InputError: The config is missing or not accepted, or the launcher is not what started the process.
    """
    check_launcher(launcher)
    os.environ.setdefault("LOCAL_RANK", str(local_rank))
    tune_allocator()
    remember_formatted()
    found = find_config(config, twin)
    cfg = load_config(found, cfg_options)
    if any(option.partition("=")[0] == "launcher" for option in cfg_options or ()):
        raise InputError("--cfg-options launcher: what started the processes is said by --launcher alone")
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = str(work_dir)
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / found.name)
    check_config(cfg)
    if launcher != "none" and cfg.get("env_cfg"):
        cfg.env_cfg.setdefault("dist_cfg", {"backend": "nccl"}).setdefault("timeout", PATIENCE_S)
    if launcher == "pytorch" and not torch.cuda.is_available():
        _join_cpu_processes(cfg)
    return cfg


def _join_cpu_processes(cfg: Config) -> None:
    """Do for processes on CPUs what mmengine's launcher does for GPUs alone."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend="gloo", timeout=timedelta(seconds=PATIENCE_S))
    # Each process normalises by its own batch: PyTorch has no batch norm over processes for CPUs.
    cfg.sync_bn = None
    cfg.model_wrapper_cfg = {
        "type": "MMDistributedDataParallel",
        "device_ids": None,
        "broadcast_buffers": False,
        "find_unused_parameters": cfg.get("find_unused_parameters", False),
    }


def sole_writer(folder: StrPath, launcher: str, lock: str = LOCK) -> AbstractContextManager[bool]:
    """Hold a work folder; the first process of a run does so for all.

    Args:
        folder: Work folder.
        launcher: none | pytorch | slurm | mpi.
        lock: See :func:`mmpluld.outputs.folder_lock`, which this is in the first process.
    """
    return folder_lock(folder, lock) if is_first(launcher) else nullcontext(False)


def train(
    config: str | os.PathLike[str],
    work_dir: str | os.PathLike[str] | None = None,
    resume: str | None = None,
    seed: int | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    cfg_options: Sequence[str] | None = None,
    launcher: str = "none",
    local_rank: int = 0,
    twin: bool = False,
) -> Path:
    """Train the detector of a config and return its work folder.

    Args:
        config: Path, or name of a config of the zoo.
        work_dir: Folder for logs and checkpoints; ``work_dirs/<config name>`` by default.
        resume: "auto" resumes from the last checkpoint of the work folder, a path from that checkpoint.
        seed: Replaces the config's seed.
        amp: Train in mixed precision.
        auto_scale_lr: Scale the learning rate by the batch size of all processes over the config's ``base_batch_size``.
        cfg_options: Changes as "key.sub=value" strings.
        launcher: none | pytorch | slurm | mpi.
        local_rank: Rank on this machine, as the launchers pass it.
        twin: Take the config's miniature, which trains on the phantom in minutes.

    Raises:
        InputError: Bad config, missing data, or a checkpoint that cannot be resumed.
        TrainingDivergedError: A loss, a gradient or a weight is not finite.
    """
    cfg = prepare_config(config, work_dir, cfg_options, launcher, local_rank, twin)
    check_complete(cfg)
    check_validation(cfg)
    odd_schedule = check_schedule(cfg)
    if seed is not None:
        cfg.randomness = {**cfg.get("randomness", {}), "seed": seed}
    if amp:
        if get_device() == "cpu":
            raise InputError("--amp: mixed precision trains on GPUs alone, and torch sees none here; leave --amp out")
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.loss_scale = "dynamic"
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    if resume not in (None, "auto") and not Path(resume).is_file():
        raise InputError(f"{resume}: no such checkpoint; `--resume` alone takes the last one of the work folder")
    with sole_writer(cfg.work_dir, launcher) as made, refusals(cfg, made):
        check_annotation_files(cfg, ("train", "val"))
        runner = TrainingRunner.from_cfg(cfg)
        if resume is not None:
            runner.resume_from(None if resume == "auto" else resume)
        if odd_schedule is not None:
            runner.logger.warning(odd_schedule)
        runner.train()
    return Path(cfg.work_dir)


def test(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    work_dir: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    show_dir: str | os.PathLike[str] | None = None,
    show_score_thr: float = 0.3,
    cfg_options: Sequence[str] | None = None,
    launcher: str = "none",
    local_rank: int = 0,
    twin: bool = False,
) -> dict[str, float]:
    """Test a checkpoint with the config's test data and return the metrics.

    Args:
        checkpoint: Weights to test; they must belong to the config's model. A path, a web address, or ``zoo:NAME``.
        out: File for the detection record (``mmpluld evaluate`` reads it).
        show_dir: Folder for pictures of all samples with their truth and their detections.
        show_score_thr: Detections above it are drawn.
        config, work_dir, cfg_options, launcher, local_rank, twin: As for :func:`train`.

    Raises:
        InputError: Bad config, missing data, or weights of another model.
    """
    from mmpluld.engine.checkpoint import load_checkpoint_safely, put_weights

    cfg = prepare_config(config, work_dir, cfg_options, launcher, local_rank, twin)
    check_complete(cfg)
    cfg.load_from, cfg.resume = None, False  # either would replace the weights to test
    if out is not None:
        if Path(out).suffix != ".json":
            raise InputError(f"--out {out}: a detection record is a .json file; change the suffix")
        write_detections(cfg, out, _made_by(find_config(config, twin).name, cfg, checkpoint, launcher))
    if show_dir is not None:
        draw_tested_samples(cfg, show_dir, show_score_thr)
    # Testing what a training goes on from is no conflict.
    with sole_writer(cfg.work_dir, launcher, ".lock-test") as made, refusals(cfg, made):
        # What cannot be read is said before the runner logs pages of settings.
        weights = local_checkpoint(checkpoint)
        file_size(weights, _WEIGHTS)
        read = load_checkpoint_safely(weights)
        check_annotation_files(cfg, ("test",))
        runner = Runner.from_cfg(cfg)
        keep_boxes_exact(runner.model)
        put_weights(runner.model, read, checkpoint)
        del read
        metrics: dict[str, float] = runner.test()
    return metrics


def _made_by(name: str, config: Config, checkpoint: StrPath, launcher: str) -> str | None:
    """The line of a record that says which model it is, of weights that are there; None but in the one that writes."""
    weights = local_checkpoint(checkpoint)
    file_size(weights, _WEIGHTS)
    if not is_first(launcher):
        return None
    return ModelLine.text(name, config_digest(config), weights.name, sha256_of(weights))
