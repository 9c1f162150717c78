"""Numbers on the command line."""

from __future__ import annotations

import argparse

import pytest

from mmpluld.cli.main import main
from mmpluld.cli.numbers import natural, not_negative, score, seed, whole


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


def test_whole_numbers_between_limits():
    assert [whole(1, 9)(text) for text in ("1", "9")] == [1, 9]
    for text in ("0", "10", "-1", "9" * 5000, "x"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no whole number from 1 to 9"):
            whole(1, 9)(text)


def test_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["phantom", "lits", str(tmp_path / "out"), "--seed", "-1"])
    assert ended.value.code == 2
    assert "argument --seed: '-1' is no whole number from 0" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_scores_and_seeds() -> None:
    assert (score("0"), score("0.3"), score("1"), seed("0"), seed("4294967295")) == (0.0, 0.3, 1.0, 0, 2**32 - 1)
    for text in ("3", "-0.1", "nan", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="is no number from 0 to 1"):
            score(text)
    for text in ("4294967296", "-1", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no whole number from 0"):
            seed(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["test", "c", "w", "--show-score-thr", "3"],
        ["train", "c", "--seed", "-1"],
        ["train", "c", "--local-rank", "-1"],
        ["browse", "c", "--seed", "1e9"],
        ["evaluate", "p", "t", "--protocol", "lens-3d", "--bootstrap", "-1"],
        ["evaluate", "p", "t", "--protocol", "lens-3d", "--bootstrap", "1000000000000"],
        ["evaluate", "p", "t", "--protocol", "lens-3d", "--first-slice", "-3"],
        ["phantom", "lits", "out", "--patients", "1000000"],
        ["phantom", "deeplesion", "out", "--patients", "1", "0", "-1"],
        ["convert", "luna16", "root", "--test-subset", "10"],
        ["convert", "luna16", "root", "--test-subset", "-1"],
        ["reproduce", "lens", "--jobs", "0"],
        *(
            ["detect", "s", "--checkpoint", "w", "--out", "o", f"--{name}", value]
            for name, value in (
                ("score-thr", "30"),
                ("link-score-thr", "-0.1"),
                ("iou-thr", "7"),
                ("tag-thr", "x"),
                ("max-gap", "-1"),
                ("min-slices", "0"),
                ("max-boxes", "0"),
            )
        ),
    ],
)
def test_commands_refuse_them(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
