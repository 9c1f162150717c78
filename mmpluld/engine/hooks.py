"""Training hooks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.utils import apply_to

from mmpluld.atomic import atomic_write_text, remove_abandoned
from mmpluld.engine.checkpoint import AtomicLocalBackend
from mmpluld.engine.guard import check_weights
from mmpluld.engine.resume import describe_run
from mmpluld.errors import InputError
from mmpluld.registry import HOOKS

__all__ = ["SafeCheckpointHook", "seed_everything"]


def seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and torch (all devices) from any number of non-negative integers."""
    words = np.random.SeedSequence(entropy).generate_state(3, dtype=np.uint32)
    random.seed(int(words[0]))
    np.random.seed(words[1])  # noqa: NPY002  mmdet's transforms and samplers use the global generator
    torch.manual_seed(int(words[2]))


def _validation_is_due(runner: Runner) -> bool:
    """Whether training by epochs resumes after an epoch that ends with a validation."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop) or not loop.epoch:
        return False
    regular = loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs
    return bool(loop.epoch >= loop.val_begin and regular)


def _refuse_best(unknown: list[str], known: list[str]) -> None:
    if unknown:
        raise InputError(
            f"default_hooks.checkpoint.save_best is {', '.join(unknown)}, but validation gives {', '.join(known)}; "
            "name one of these, or None for no best checkpoint"
        )


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` for training that may be killed at any moment.

    - A checkpoint appears whole or not at all, and older ones are removed only after that.
    - At the start of each epoch all random generators are seeded from the run's seed, the rank and the epoch. So a
      run that was killed and resumes from its last epoch continues exactly as it would have (on CPU bit for bit),
      whatever validation or logging drew in between, and ranks draw different masks.
    - Weights that are not finite are never written: training stops, and the checkpoints that there are stay.
    - Checkpoints hold tensors and plain values only: the log histories, which smooth printed numbers, are left out.
    - The best checkpoint (``save_best``) is that of a run without interruption, too: a resumed run first repeats the
      validation that was due after the epoch it resumes from, because nobody knows whether that one came to its end.

    Data workers that persist between epochs keep their own random state, so use ``persistent_workers=False`` (the
    default) where exact resuming matters; the hook warns otherwise. Checkpoints by iteration are as safe, but
    resuming from the middle of an epoch is not exact.

    Args:
        **kwargs: As for ``CheckpointHook``. Of ``save_best``, names with "froc" are better when greater and those with
            "mae" when less.

    Raises:
        InputError: ``max_keep_ckpts`` with a ``filename_tmpl`` of one name; or, before training or after validation, no
            validation metric gives the value that ``save_best`` names.
    """

    _default_greater_keys = [*CheckpointHook._default_greater_keys, "froc"]
    _default_less_keys = [*CheckpointHook._default_less_keys, "mae"]

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("file_client_args") is None:
            kwargs.setdefault("backend_args", {"backend": "atomic"})
        super().__init__(**kwargs)
        template = kwargs.get("filename_tmpl")
        if self.max_keep_ckpts > 0 and template is not None and template.format(1) == template.format(2):
            raise InputError(
                f"default_hooks.checkpoint.filename_tmpl is {template!r}, one file for all checkpoints, and "
                f"max_keep_ckpts={self.max_keep_ckpts} would remove it; put {{}} for the number, or leave out "
                "max_keep_ckpts"
            )

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder, warn where exact resuming is out of reach, and repeat the last validation on resuming."""
        super().before_train(runner)
        if is_main_process() and isinstance(self.file_backend, AtomicLocalBackend):
            remove_abandoned(self.out_dir)  # what a run left that was killed while it wrote
        loader = runner.train_dataloader
        if getattr(loader, "persistent_workers", False):
            runner.logger.warning(
                "persistent_workers=True: a resumed run will see other augmentations than one without interruption"
            )
        self._stay_in_own_folder(runner)
        if self.save_best and runner.val_loop is not None:
            prefixes = [str(getattr(metric, "prefix", None)) for metric in runner.val_loop.evaluator.metrics]
            others = [name for name in self.save_best if name.rpartition("/")[0] not in ("", *prefixes)]
            _refuse_best(others, [f"{prefix}/..." for prefix in prefixes])
            if _validation_is_due(runner):
                runner.val_loop.run()

    def _stay_in_own_folder(self, runner: Runner) -> None:
        """In a work folder that was moved or copied, the best checkpoints so far are those in it.

        A run that resumes knows them by their old paths, and would remove those files when a better one comes. Of one
        that is not in the folder the score is forgotten, too, or no file would be written until that is surpassed.
        """
        if not isinstance(self.file_backend, AtomicLocalBackend):
            return
        info = runner.message_hub.runtime_info
        for key, old in list(info.items()):
            if key != "last_ckpt" and not key.startswith("best_ckpt"):
                continue
            here = Path(self.out_dir) / Path(old or "").name
            path = str(here) if here.is_file() else None
            if path is not None and here.resolve() == Path(old).resolve():
                continue
            info[key] = path
            if key == "last_ckpt":
                continue
            if path is None and info.pop(key.replace("best_ckpt", "best_score"), None) is not None and old:
                runner.logger.warning(f"{old}: is not in {self.out_dir}; from here on the best is looked for anew")
            if key == "best_ckpt":
                self.best_ckpt_path = path
            else:
                self.best_ckpt_path_dict[key.removeprefix("best_ckpt_")] = path

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed all random generators for this epoch; data workers take their seeds from torch's."""
        seed_everything(int(runner.seed), get_rank(), runner.epoch)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Leave out log histories, store NumPy's numbers as Python's, and say what others must know of the run."""
        checkpoint["meta"].update(describe_run(runner))
        hub = checkpoint["message_hub"]
        info = apply_to(hub["runtime_info"], lambda value: isinstance(value, np.generic), lambda value: value.item())
        resumed = {key: value for key, value in hub["resumed_keys"].items() if key in info}
        checkpoint["message_hub"] = {"log_scalars": {}, "runtime_info": info, "resumed_keys": resumed}

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        check_weights(runner)
        outdated = None
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.file_backend.join_path(
                    self.out_dir, self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                )
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        atomic_write_text(Path(runner.work_dir) / "last_checkpoint", self.last_ckpt)
        if outdated is not None and self.file_backend.isfile(outdated):
            self.file_backend.remove(outdated)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        _refuse_best([name for name in self.save_best or () if name not in {"auto", *metrics}], list(metrics))
        check_weights(runner)
        if isinstance(self.file_backend, AtomicLocalBackend):
            with self.file_backend.removals_last():
                super()._save_best_checkpoint(runner, metrics)
        else:
            super()._save_best_checkpoint(runner, metrics)
