"""A model of one layer and runs of it, for tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmpluld.engine.runner import TrainingRunner


class Bad(torch.autograd.Function):
    """Passes on its input, and a gradient that is not a number."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


class Toy(BaseModel):
    """Squares; where an input is ``bad_loss`` the loss is NaN, where it is ``bad_gradient`` only its gradient."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(1, width)
        self.sum = nn.Linear(width, 1)

    def forward(self, inputs: list[Tensor], data_samples: Any = None, mode: str = "loss") -> Any:
        if mode == "predict":
            return [{}] * len(inputs)
        value = self.sum(self.layer(torch.stack(inputs))).square().mean()
        kinds = [sample.kind for sample in data_samples or []]
        if "bad_gradient" in kinds:
            value = Bad.apply(value)
        if "bad_loss" in kinds:
            value = value * float("nan")
        return {"loss_one": value, "loss_two": [torch.zeros(2)], "acc": torch.tensor(float("nan"))}


def sample(index: int, kind: str = "good") -> dict[str, Any]:
    address = f"ct-slice://png16,0,{index},/data/v{index}/v{index}_{index:03d}.png"
    meta = {"img_path": address, "volume_id": f"v{index}", "kind": kind}
    return {"inputs": torch.ones(1) * (index + 1) / 8, "data_samples": BaseDataElement(metainfo=meta)}


def loader(kinds: list[str], batch_size: int = 2, endless: bool = False) -> dict[str, Any]:
    return {
        "batch_size": batch_size,
        "dataset": [sample(index, kind) for index, kind in enumerate(kinds)],
        "sampler": {"type": "InfiniteSampler" if endless else "DefaultSampler", "shuffle": False},
        "collate_fn": {"type": "pseudo_collate"},
    }


def runner(folder: Path, kinds: list[str], epochs: int = 2, **changes: Any) -> TrainingRunner:
    settings: dict[str, Any] = {
        "model": Toy(),
        "work_dir": str(folder),
        "train_dataloader": loader(kinds),
        "train_cfg": {"by_epoch": True, "max_epochs": epochs},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        "default_hooks": {"checkpoint": {"type": "SafeCheckpointHook", "interval": 1, "max_keep_ckpts": 2}},
        "default_scope": "mmpluld",
        "experiment_name": f"{folder.name}-{id(changes)}",
        "randomness": {"seed": 1},
        "log_level": "ERROR",
    }
    return TrainingRunner(**(settings | changes))


class Huge(Toy):
    """Its gradients are so large that a norm of them overflows."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return {"loss": super().forward(*args, **kwargs)["loss_one"] * 1e30}
