"""The lowest versions that the floors job installs are those that setup.cfg declares."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]
TOOL = str(ROOT / "tools/floors.py")
floors = runpy.run_path(TOOL)["floors"]


def cfg(*lines: str) -> str:
    return "[options]\ninstall_requires =\n" + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("numpy>=1.24", "numpy==1.24"),
        ("opencv-python>=4.8,<5", "opencv-python==4.8"),
        ("mmdet==3.3.0", "mmdet==3.3.0"),
        ("rich ~= 13.0", "rich==13.0"),
        ("a[b]<2,>=1.10,!=1.11", "a==1.10"),
        ('pandas>=2; python_version < "3.12"  # why', 'pandas==2; python_version < "3.12"'),
    ],
)
def test_lines_by_hand(line: str, expected: str) -> None:
    assert floors(cfg("# a comment", "", line)) == [expected]


@pytest.mark.parametrize(
    ("line", "message"), [("setuptools<82", "has no lowest version; write setuptools>="), ("a b", "Expected")]
)
def test_line_without_a_floor(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        floors(cfg(line))


def test_every_dependency_of_the_package_has_a_floor() -> None:
    constraints = [Requirement(line) for line in floors((ROOT / "setup.cfg").read_text())]
    assert {"torch", "mmdet", "numpy"} <= {constraint.name for constraint in constraints}
    assert all(len(constraint.specifier) == 1 for constraint in constraints)


@pytest.mark.parametrize(
    ("text", "status", "words"), [(cfg("b>=3"), 0, "b==3"), ("[a]\n", 2, "'options'"), (None, 2, "No such")]
)
def test_tool(tmp_path: Path, monkeypatch, capsys, text: str | None, status: int, words: str) -> None:
    path = tmp_path / "setup.cfg"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(sys, "argv", [TOOL, str(path)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(TOOL, run_name="__main__")
    assert stop.value.code == status
    out, err = capsys.readouterr()
    assert words in out + err
    assert (out + err).count("\n") == 1
