"""mmengine's runner with what a training needs that may diverge, be killed and be resumed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import CheckpointLoader, EpochBasedTrainLoop, Runner
from torch import nn

from mmpluld.compat.half_precision import keep_boxes_exact
from mmpluld.engine.checkpoint import meta_of
from mmpluld.engine.fit_check import FitCheck
from mmpluld.engine.guard import NonFiniteGuard
from mmpluld.engine.resume import ResumeCheck
from mmpluld.engine.seen_patients import SeenPatientsHook
from mmpluld.engine.wrapped import single_datasets, unwrapped
from mmpluld.errors import InputError, name_some

__all__ = ["TrainingRunner", "UnreadableReport", "latest_checkpoint"]


class UnreadableReport(Hook):
    """Logs after each epoch which training samples could not be read and were skipped, if the dataset skips them."""

    def after_train_epoch(self, runner: Runner) -> None:
        """Say how many there are so far, in all processes together, and name the first."""
        parts = single_datasets(runner.train_dataloader.dataset)
        skipped = [name for part in parts for name in getattr(part, "unreadable", [])]
        names = sorted({name for some in all_gather_object(skipped) for name in some})
        if names:
            runner.logger.warning(f"{len(names)} unreadable, and skipped in training: {name_some(names, 10)}")


class _FinishedError(Exception):
    """Nothing is left to train."""


class TrainingRunner(Runner):
    """mmengine's ``Runner`` for trainings: it stops where they diverge, and resumes as the config says.

    ``NonFiniteGuard`` and ``ResumeCheck`` watch every training, and checkpoints say whom it has seen. Resuming finds
    the last checkpoint of a folder that was moved, and of a training that is finished does nothing. The experts of LENS
    are validated without their calibration, which is fitted to the weights that come out.
    """

    _resume: bool
    _load_from: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._resume_check = ResumeCheck()
        self._prefer_last = False
        super().__init__(*args, **kwargs)
        keep_boxes_exact(self.model)

    def resume_from(self, checkpoint: str | None) -> None:
        """Resume, whatever the config says; the copy of it in the work folder does not say so, others start from that.

        Args:
            checkpoint: Its file; None for the last one of the work folder, and without any to start as the config says.
        """
        if checkpoint is None:
            self._prefer_last = True
        else:
            self._resume, self._load_from = True, checkpoint

    def train(self) -> nn.Module:
        """Train; where nothing is left to do, say so."""
        self.register_hook(self._resume_check)
        self.register_hook(NonFiniteGuard())
        self.register_hook(UnreadableReport())
        self.register_hook(SeenPatientsHook())
        settings = getattr(getattr(unwrapped(self.model), "roi_head", None), "test_cfg", None)
        if settings and settings.get("calibrated"):
            settings["calibrated"] = False
            self.logger.warning("validations are without calibration, which follows the training: `mmpluld calibrate`")
        self._find_checkpoint()
        self.register_hook(FitCheck(started=self._load_from is not None))
        if self._resume:
            self._take_seed()
        try:
            return super().train()
        except _FinishedError:
            return self.model

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict[str, Any] | None = None) -> None:
        """As mmengine's, by all samples of an optimizer's step, also where it gathers gradients of several batches.

        Where it is not asked for, the log says so if a step has other samples than the rate is for.
        """
        batches = getattr(optim_wrapper, "_accumulative_counts", 1)
        scaling = auto_scale_lr or {}
        if scaling.get("enable") and batches > 1:
            self.logger.info(f"A step gathers the gradients of {batches} batches.")
            auto_scale_lr = {**scaling, "base_batch_size": scaling["base_batch_size"] / batches}
        super().scale_lr(optim_wrapper, auto_scale_lr)
        samples = self.world_size * (self.train_dataloader.batch_size or 0) * batches
        base = scaling.get("base_batch_size")
        if base and samples and samples != base and not scaling.get("enable"):
            self.logger.warning(
                f"a step has {samples} samples, and the learning rate is meant for {base}; --auto-scale-lr scales it, "
                "or give another train_dataloader.batch_size, which is that of one process"
            )

    def load_or_resume(self) -> None:
        """As mmengine's; a training that is finished ends here."""
        if self._has_loaded:
            return
        super().load_or_resume()
        if self._resume:
            self._end_if_finished()

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As mmengine's, and messages know the file's name."""
        self._resume_check.source = str(filename)
        checkpoint: dict[str, Any] = super().load_checkpoint(filename, *args, **kwargs)
        return checkpoint

    def _find_checkpoint(self) -> None:
        """Find the checkpoint to resume from; without any, start as the config says."""
        if not self._prefer_last and (not self._resume or self._load_from is not None):
            return
        found = latest_checkpoint(self.work_dir)
        if found is None:
            start = "starts anew" if self._load_from is None else f"starts from {self._load_from}, as the config says"
            self.logger.warning(f"{self.work_dir}: no checkpoint to resume from, so training {start}")
            self._resume = self._resume and self._load_from is not None
            return
        path, note = found
        if note:
            self.logger.warning(note)
        self._resume, self._load_from = True, str(path)

    def _take_seed(self) -> None:
        """Take the seed of the checkpoint before the data loader is built, whose sampler and workers keep theirs."""
        meta = meta_of(CheckpointLoader.load_checkpoint(self._load_from, "cpu", logger="silent"))
        seed, own = meta.get("seed"), self._randomness_cfg.get("seed")
        if seed is None or seed == own:
            return
        if own is not None:
            self.logger.warning(f"{self._load_from}: its seed stays, {seed} and not {own}")
        self._randomness_cfg.update(seed=seed)
        self.set_randomness(**self._randomness_cfg)

    def _end_if_finished(self) -> None:
        loop = self.train_loop
        epochs = isinstance(loop, EpochBasedTrainLoop)
        done, planned = (loop.epoch, loop.max_epochs) if epochs else (loop.iter, loop.max_iters)
        if done < planned:
            return
        unit = "epoch" if epochs else "iteration"
        self.logger.warning(
            f"{self._load_from}: finished already, {unit} {done} of {planned}; to train on, raise "
            f"train_cfg.max_{'epochs' if epochs else 'iters'} and its schedule"
        )
        # A loop over epochs ends by itself, after the validation that may have been cut off; the other would read all
        # data up to its end first.
        if not epochs:
            raise _FinishedError


def latest_checkpoint(folder: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """The checkpoint that a work folder resumes from, and what to say about it; None if it has none.

    ``last_checkpoint`` names it by its absolute path. The file of that name in the folder itself is meant, because the
    folder may have been moved or copied; else the one at that path; else the last one that is there.

    Raises:
        InputError: ``last_checkpoint`` names one that is gone, and there is no other.
    """
    folder = Path(folder)
    numbered = {}
    for path in folder.glob("*.pth"):
        match = re.fullmatch(r"(epoch|iter)_(\d+)", path.stem)
        if match:
            numbered[match[1] == "epoch", int(match[2])] = path
    newest = numbered[max(numbered)] if numbered else None
    pointer = folder / "last_checkpoint"
    if not pointer.is_file():
        return None if newest is None else (newest, f"{folder}: has no last_checkpoint; resuming from {newest.name}")
    named = Path(pointer.read_text(encoding="utf-8", errors="replace").strip().replace("\0", ""))
    if named.name and (folder / named.name).is_file():
        return folder / named.name, ""
    if named.is_file():
        return named, ""
    if newest is None:
        raise InputError(
            f"{pointer}: names {named}, which is gone, and the folder holds no other checkpoint; restore it, or train "
            "anew without --resume"
        )
    return newest, f"{pointer}: names {named}, which is gone; resuming from {newest.name}, the last that is there"
