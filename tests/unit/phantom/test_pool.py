"""Work in several processes."""

from __future__ import annotations

import threading

import pytest

from mmpluld.phantom.pool import in_order


def _job(number: int) -> int:
    if number == 3:
        raise ValueError("no third")
    return number


def test_a_failure_is_the_only_thing_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    for _ in range(3):
        with pytest.raises(ValueError, match="no third"):
            list(in_order(_job, range(60), 2))
    assert not told
    assert list(in_order(_job, (5, 2, 9), 2)) == [5, 2, 9]
