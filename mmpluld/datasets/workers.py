"""Seeding of data-loader workers."""

from __future__ import annotations

import os
import random

import numpy as np
import torch
from mmengine.registry import FUNCTIONS

__all__ = ["seed_worker"]


@FUNCTIONS.register_module(force=True)
def seed_worker(worker_id: int, _scope_: str | None = None) -> None:
    """Seed ``random`` and NumPy of a data-loader worker from the seed that PyTorch gave it, and its process's rank.

    PyTorch's differs by worker, by epoch and by what the main process drew before, so augmentation does not
    repeat from epoch to epoch, and a run that resumes with its random state goes on as it would have. Use as
    ``worker_init_fn=dict(type="seed_worker")`` in a data-loader config. ``_scope_`` is what MMEngine adds below
    ``_base_ = "mmpluld::..."`` and hands on; it says nothing here.
    """
    # All processes of a run have the same seed, and a worker knows of them only what the launcher says.
    seed = torch.initial_seed() + (int(os.environ.get("RANK", "0")) << 64)
    random.seed(seed)
    # The global generator on purpose: the transforms of mmcv and mmdet draw from it.
    np.random.seed(np.random.SeedSequence(seed).generate_state(4))  # noqa: NPY002
