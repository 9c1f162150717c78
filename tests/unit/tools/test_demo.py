"""What the demo removes: nothing that it did not write."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from mmpluld.errors import InputError

empty = runpy.run_path(str(Path(__file__).resolve().parents[3] / "tools/demo.py"))["empty"]


def test_only_a_demo_s_folder_is_emptied(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    (data / "phantom").mkdir(parents=True)  # somebody's own, called as a demo calls its data
    with pytest.raises(InputError, match="data: holds phantom and is no folder of a demo; remove it, or give another"):
        empty(data)
    assert (data / "phantom").exists()

    out.mkdir()
    empty(out)
    (out / "phantom").mkdir()
    (out / "phantom/truth.json").touch()
    (out / "download").symlink_to(data)
    empty(out)
    assert [path.name for path in out.iterdir()] == [".mmpluld-demo"]
    assert (data / "phantom").exists()
    (out / "scan.log").touch()
    (out / "notes.txt").touch()
    with pytest.raises(InputError, match="notes.txt: is no part of a demo"):
        empty(out)
    assert (out / "scan.log").exists()
