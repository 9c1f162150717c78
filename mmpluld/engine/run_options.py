"""What single options of ``train`` and ``test`` change in a config."""

from __future__ import annotations

from mmengine.config import Config

from mmpluld.errors import InputError

__all__ = ["enable_auto_scale_lr"]


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
