"""Seeding of data-loader workers."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.registry import FUNCTIONS
from torch.utils.data import DataLoader, Dataset

from mmpluld.datasets import seed_worker


class Draws(Dataset):
    """Every item is two random numbers, NumPy's and Python's."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[float, float]:
        return float(np.random.random()), random.random()  # noqa: NPY002


def two_epochs(seed):
    torch.manual_seed(seed)
    loader = DataLoader(Draws(), batch_size=None, num_workers=2, worker_init_fn=seed_worker, timeout=60)
    return [list(loader), list(loader)]


def test_no_number_comes_twice_and_the_seed_repeats_all():
    first, second = two_epochs(7)
    for column in (0, 1):
        numbers = [item[column] for item in first + second]
        assert len(set(numbers)) == 8
    assert two_epochs(7) == [first, second]
    assert two_epochs(8) != [first, second]


def test_configs_find_it_by_name():
    assert FUNCTIONS.get("seed_worker") is seed_worker


def test_processes_of_one_run_draw_apart(monkeypatch):
    alone = two_epochs(7)
    monkeypatch.setenv("RANK", "0")
    assert two_epochs(7) == alone
    monkeypatch.setenv("RANK", "1")
    other = two_epochs(7)
    assert not {tuple(item) for epoch in alone for item in epoch} & {tuple(item) for epoch in other for item in epoch}
