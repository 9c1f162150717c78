"""What single options change in a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmpluld.engine.run_options import enable_auto_scale_lr
from mmpluld.errors import InputError


def test_auto_scale_lr_is_switched_on() -> None:
    cfg = Config({"auto_scale_lr": {"enable": False, "base_batch_size": 4}, "train_dataloader": {"batch_size": 2}})
    enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == {"enable": True, "base_batch_size": 4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "mine.py: --auto-scale-lr needs auto_scale_lr = .* there it is None"),
        ({"auto_scale_lr": None}, "there it is None"),
        ({"auto_scale_lr": {"enable": True}}, "there it is None"),
        ({"auto_scale_lr": {"base_batch_size": 0}}, "there it is 0"),
        ({"auto_scale_lr": {"base_batch_size": 4}}, "needs train_dataloader.batch_size"),
    ],
)
def test_auto_scale_lr_without_a_batch_size(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in content.items()))
    with pytest.raises(InputError, match=message):
        enable_auto_scale_lr(Config.fromfile(path))
