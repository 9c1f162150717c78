"""Cores, locks and ways to start processes, on this system."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from mmpluld.compat.system import lock_file, start_method, usable_cores


def test_cores_follow_the_affinity_where_there_is_one(monkeypatch):
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_a_lock_is_held_until_its_file_is_closed(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as first, path.open("w") as second:
        assert lock_file(first)
        assert not lock_file(second, wait=False)
        first.close()
        assert lock_file(second, wait=False)


def test_a_file_that_cannot_be_locked_is_no_lock_of_another(tmp_path):
    with (tmp_path / "lock").open("w") as stream:
        pass
    with pytest.raises(ValueError, match="closed file"):
        lock_file(stream, wait=False)


def test_workers_can_be_started():
    context = multiprocessing.get_context(start_method())
    process = context.Process(target=usable_cores)
    process.start()
    process.join(60)
    assert process.exitcode == 0
