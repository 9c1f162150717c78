"""One number for what decides in a config what is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = ["CONFIG_SHA256", "config_digest"]

CONFIG_SHA256 = "config_sha256"
"""Key of a checkpoint's ``meta``: :func:`config_digest` of the config that it was trained with."""

# Parts of a model's config that have no influence on what it finds.
_OF_TRAINING = ("init_cfg", "train_cfg")


def config_digest(cfg: Config) -> str:
    """SHA-256 of what decides in a config what is found."""
    decisive = {"model": _without_training(cfg.model), "pipeline": cfg.test_dataloader.dataset.pipeline}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()


def _without_training(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_training(item) for key, item in value.items() if key not in _OF_TRAINING}
    return [_without_training(item) for item in value] if isinstance(value, (list, tuple)) else value
