"""A short run of the fuzzing of ``python -m benchmarks fuzz``, and that it would see what it looks for."""

from __future__ import annotations

import os
import sys
import time

import pytest

from benchmarks import fuzz
from mmpluld.errors import InputError


def test_damaged_inputs_are_read_or_refused_in_one_line():
    rows = fuzz.run(inputs=5 * len(fuzz.TARGETS))["rows"]
    assert len(rows) == len(fuzz.TARGETS)
    assert [row["first bad"] for row in rows if row["first bad"]] == []
    assert all(sum(row[outcome] for outcome in fuzz.GOOD) == row["inputs"] for row in rows)
    assert all(row["refused"] > 0 for row in rows)


class _Rambling(InputError):
    def __str__(self):
        return "x:\nbad"


def _raise(error):
    raise error


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda folder: 5, "same"),
        (lambda folder: 6, "other"),
        (lambda folder: _raise(InputError("x: bad")), "refused"),
        (lambda folder: _raise(_Rambling("x:\nbad")), "several lines"),
        (lambda folder: _raise(KeyError("x")), "exception"),
        (lambda folder: os.write(2, b"advice") and 5, "printed"),
        (lambda folder: print("advice", file=sys.stderr) or 5, "printed"),
        (lambda folder: os.kill(os.getpid(), 9), "crash"),
        (lambda folder: time.sleep(60), "hang"),
        (lambda folder: len(b"x" * (200 << 20)), "memory"),
    ],
)
def test_what_a_child_does_is_seen(tmp_path, monkeypatch, read, outcome):
    monkeypatch.setattr(fuzz, "TIMEOUT_S", 0.5 if outcome == "hang" else 20.0)
    if outcome == "memory":
        monkeypatch.setattr(fuzz, "MEMORY_LIMIT", 200 << 20)
    assert fuzz.attempt(fuzz.Target("test", lambda folder: None, read), tmp_path, "5")[0] == outcome


def test_an_input_can_be_made_again(tmp_path):
    target = fuzz.TARGETS["mhd list"]
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        change = fuzz.make_input(target, 7, tmp_path / name)
        made.append((change, {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}))
    assert made[0] == made[1]
