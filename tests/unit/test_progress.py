"""Progress where standard error is no terminal, as in a batch job."""

from __future__ import annotations

import threading

from mmpluld import progress
from mmpluld.progress import track


def _told(capfd, items, **arguments):
    assert [*track(items, "detecting", **arguments)] == [*"abc"]
    return [line.rpartition(" after ")[0] for line in capfd.readouterr().err.splitlines()]


def test_a_line_now_and_then(capfd, monkeypatch):
    assert _told(capfd, [*"abc"]) == []  # half a minute apart
    monkeypatch.setattr(progress, "_EVERY_S", 0.0)
    assert _told(capfd, [*"abc"]) == [f"detecting: {number} of 3" for number in range(3)]
    assert _told(capfd, iter("abc"), total=3) == [f"detecting: {number} of 3" for number in range(3)]
    assert _told(capfd, (sign for sign in "abc")) == [f"detecting: {number}" for number in range(3)]
    beside = threading.Thread(target=lambda: [*track("abc", "reading")])
    beside.start()
    beside.join()
    assert capfd.readouterr().err == ""
