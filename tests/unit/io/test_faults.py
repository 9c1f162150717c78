"""Notes reach the user whatever other threads do to standard error."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmpluld.cli.process import open_streams
from mmpluld.io.faults import captured_stderr
from mmpluld.progress import note


@pytest.mark.parametrize("in_a_command", [False, True])
def test_a_note_is_not_caught_with_what_a_library_says(capfd, monkeypatch, in_a_command):
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)  # pytest's own would not go by the file descriptor
    if in_a_command:
        open_streams()
        assert sys.stderr is not sys.__stderr__
    with captured_stderr() as remarks, ThreadPoolExecutor(1) as pool:
        os.write(2, b"bad header\n")
        pool.submit(note, "two\n lines").result(timeout=30)
        assert remarks() == "bad header\n"
    note("after")
    assert capfd.readouterr().err == "note: two lines\nnote: after\n"
