"""Run by test_resume.py: trains a small detector in child processes that are killed at given moments.

Arguments: folder, number of data workers; with a third, the number of kills, at random moments: from the start of the
process to its end, every second one while a checkpoint is being written. A fourth seeds the moments.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

torch.set_num_threads(1)

from mmpluld.compat.ops import install_ops  # noqa: E402

install_ops()

from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.structures.mask import BitmapMasks  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.registry import FUNCTIONS  # noqa: E402
from mmengine.runner import find_latest_checkpoint  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402
from torch.utils.data import Dataset  # noqa: E402

import mmpluld.datasets.workers  # noqa: E402
import mmpluld.models  # noqa: E402, F401  loaded once, before the children are forked
from mmpluld.engine import load_checkpoint_safely, load_config  # noqa: E402
from mmpluld.engine.runner import TrainingRunner  # noqa: E402
from mmpluld.registry import DATASETS, HOOKS  # noqa: E402

CONFIG = "pluld-a3d_densenet121-fpn_7s_phantom"
EPOCHS, IMAGES, BATCH = 3, 8, 2


@DATASETS.register_module()
class NoisySquares(Dataset):
    """Slices with bright squares, moved and blurred with noise by NumPy's global generator, as transforms do."""

    metainfo = {"classes": ("lesion",)}

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict[str, Any]:
        x, y = np.random.randint(4, 40, 2).tolist()  # noqa: NPY002
        image = torch.from_numpy(np.random.rand(7, 64, 64).astype(np.float32) * 20)  # noqa: NPY002
        image[:, y : y + 16, x : x + 16] += 100
        boxes = [] if index == 0 else [[x, y, x + 16.0, y + 16.0]]
        masks = np.zeros((len(boxes), 64, 64), np.uint8)
        masks[:, y : y + 16, x : x + 16] = 1
        sample = DetDataSample(
            metainfo={"img_shape": (64, 64), "ori_shape": (64, 64), "pad_shape": (64, 64), "scale_factor": (1, 1)}
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes).view(-1, 4),
            labels=torch.zeros(len(boxes), dtype=torch.long),
            masks=BitmapMasks(masks, 64, 64),
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        return {"inputs": image, "data_samples": sample}


@HOOKS.register_module()
class DieInEpoch(Hook):
    """Kills the process, as the system would, in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def after_train_iter(self, runner: TrainingRunner, batch_idx: int, *_: Any, **__: Any) -> None:
        if runner.epoch == self.epoch and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def die_while_writing(epoch: int) -> None:
    """Kill the process when half of an epoch's checkpoint is on disk."""
    write_bytes = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        if not path.name.endswith(f"epoch_{epoch}.pth"):
            return write_bytes(path, data)
        write_bytes(path, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    Path.write_bytes = half  # type: ignore[method-assign]


def train(folder: Path, workers: int, resume: bool = False, die_in: int | None = None) -> None:
    cfg = load_config(CONFIG)
    cfg.model.backbone.update(stem_channels=32, growth_rate=16, block_config=(1, 1, 1))
    cfg.model.neck.in_channels = (48, 40, 36)
    cfg.work_dir, cfg.resume, cfg.randomness = str(folder), resume, {"seed": 5}
    cfg.train_dataloader = {
        "batch_size": BATCH,
        "num_workers": workers,
        "dataset": {"type": "NoisySquares"},
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "collate_fn": {"type": "pseudo_collate"},
    }
    if workers:
        cfg.train_dataloader.worker_init_fn = {"type": "seed_worker"}
    for key in [key for key in cfg if key.startswith(("val_", "test_"))]:
        cfg.pop(key)
    cfg.train_cfg = {"type": "EpochBasedTrainLoop", "max_epochs": EPOCHS}
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    cfg.custom_hooks = [{"type": "EMAHook", "momentum": 0.01}]
    if die_in is not None:
        cfg.custom_hooks.append({"type": "DieInEpoch", "epoch": die_in})
    cfg.log_level = "ERROR"
    TrainingRunner.from_cfg(cfg).train()


def in_child(action: Any, killed: bool) -> None:
    """Run ``action`` in a child process and check how it ends."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    expected = os.WIFSIGNALED(status) if killed else status == 0
    if not expected:
        raise SystemExit(f"the training process ended with status {status}, killed={killed} was expected")


def last(folder: Path) -> Path:
    found = find_latest_checkpoint(str(folder))
    assert found is not None
    load_checkpoint_safely(found)
    torch.load(found, weights_only=True)  # plain content: no allow-list needed
    return Path(found)


def same(one: Any, other: Any) -> bool:
    """Whether two checkpoints hold the same, bit for bit, but for paths, times, the config's text and Git's commit."""
    if isinstance(one, torch.Tensor):
        return bool(torch.equal(one, other))
    if isinstance(one, dict):
        own = {"time", "cfg", "experiment_name", "last_ckpt", "best_ckpt", "log_scalars", "resumed_keys"}
        own.add("mmengine_version")  # with the commit that is checked out
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one.keys() - own)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def wait_to_kill(child: int, folder: Path, moments: random.Random, seconds: float, writing: bool) -> bool:
    """Kill a child at a random moment, or as soon as it writes; whether it still lived."""
    end = time.monotonic() + (4 * seconds if writing else moments.uniform(0, seconds))
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        if writing and list(folder.glob(".tmp-*")):
            time.sleep(moments.uniform(0, 0.02))
            break
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def kill_at_random(base: Path, workers: int, kills: int, seed: int) -> None:
    """Kill and resume a training until it ends, again and again; compare each end with that of the undisturbed one."""
    moments, done, ends = random.Random(seed), 0, 0
    start = time.monotonic()
    in_child(lambda: train(base / "whole", workers), killed=False)
    seconds = time.monotonic() - start
    whole = load_checkpoint_safely(base / "whole" / f"epoch_{EPOCHS}.pth")
    broken = base / "broken"
    while done < kills or broken.exists():
        child = os.fork()
        if child == 0:
            try:
                train(broken, workers, resume=True)
            except BaseException:
                os._exit(1)
            os._exit(0)
        if done < kills and wait_to_kill(child, broken, moments, seconds, writing=done % 2 == 1):
            done += 1
            continue
        if done >= kills:
            os.waitpid(child, 0)
        if not same(whole, load_checkpoint_safely(last(broken))):
            raise SystemExit(f"after {done} kills the end differs, seed {seed}")
        assert not list(broken.glob(".tmp-*"))
        ends += 1
        shutil.rmtree(broken)
    print(f"{done} kills, {ends} trainings ended, all equal bit for bit")


def main() -> None:
    base, workers = Path(sys.argv[1]), int(sys.argv[2])
    assert "seed_worker" in FUNCTIONS.module_dict
    if len(sys.argv) > 3:
        kill_at_random(base, workers, int(sys.argv[3]), int(sys.argv[4]))
        return
    whole, broken = base / "whole", base / "broken"
    in_child(lambda: train(whole, workers), killed=False)
    in_child(lambda: train(broken, workers, die_in=1), killed=True)
    assert last(broken).name == "epoch_1.pth"

    def resume_and_die_while_writing() -> None:
        die_while_writing(2)
        train(broken, workers, resume=True)

    in_child(resume_and_die_while_writing, killed=True)
    assert last(broken).name == "epoch_1.pth"
    in_child(lambda: train(broken, workers, resume=True), killed=False)
    assert last(broken).name == "epoch_3.pth"
    assert [path.name for path in broken.glob("*.pth")] == ["epoch_3.pth"]


if __name__ == "__main__":
    main()
