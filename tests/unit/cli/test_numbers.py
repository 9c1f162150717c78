"""Numbers on the command line."""

from __future__ import annotations

import argparse

import pytest

from mmpluld.cli.main import main
from mmpluld.cli.numbers import natural, not_negative


def test_allowed():
    assert (natural("0"), natural("12"), not_negative("0"), not_negative("2.5")) == (0, 12, 0.0, 2.5)


@pytest.mark.parametrize("text", ["-1", "1.5", "x", ""])
def test_no_whole_numbers(text):
    with pytest.raises(argparse.ArgumentTypeError, match="no whole number from 0"):
        natural(text)


@pytest.mark.parametrize("text", ["-0.1", "nan", "inf", "x"])
def test_no_numbers(text):
    with pytest.raises(argparse.ArgumentTypeError, match="no number from 0"):
        not_negative(text)


def test_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["phantom", "lits", str(tmp_path / "out"), "--seed", "-1"])
    assert ended.value.code == 2
    assert "argument --seed: '-1' is no whole number from 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
