"""What single options of ``train`` and ``test`` change in a config."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from mmpluld.errors import InputError
from mmpluld.outputs import check_output_folder
from mmpluld.typing import StrPath

__all__ = ["draw_tested_samples", "enable_auto_scale_lr"]


def enable_auto_scale_lr(cfg: Config) -> None:
    """Let mmengine scale the learning rate by the samples of all processes together over ``base_batch_size``.

    Raises:
        InputError: The config does not say which batch size its learning rate is for, or what its batch size is.
    """
    base = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    if not isinstance(base, int) or base < 1:
        raise InputError(
            f"{cfg.filename}: --auto-scale-lr needs auto_scale_lr = dict(base_batch_size=N), the number of samples of "
            f"all processes together that the learning rate is for; there it is {base}"
        )
    if not (cfg.get("train_dataloader") or {}).get("batch_size"):
        raise InputError(f"{cfg.filename}: --auto-scale-lr needs train_dataloader.batch_size, and there is none")
    cfg.auto_scale_lr.enable = True


def draw_tested_samples(cfg: Config, folder: StrPath, score_thr: float) -> None:
    """Write a picture of every tested sample, with its truth and its detections, into ``folder``.

    Args:
        cfg: Changed.
        folder: Made if needed; pictures of the same name are replaced.
        score_thr: Detections above it are drawn.

    Raises:
        InputError: The samples are not slices, or belong to several processes.
    """
    if cfg.test_cfg.type == "VolumeTestLoop":
        raise InputError(
            f"--show-dir: {cfg.filename} is tested on whole volumes, not slice by slice; `mmpluld detect` shows what "
            "it finds in a scan"
        )
    if cfg.launcher != "none":
        raise InputError("--show-dir: one process alone draws; leave out --launcher, or --show-dir")
    check_output_folder(folder)
    cfg.default_hooks.visualization = {
        "type": "LesionVisualizationHook",
        "draw": True,
        "score_thr": score_thr,
        "test_out_dir": str(Path(folder).absolute()),
    }
