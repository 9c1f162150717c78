from __future__ import annotations

import os

import pytest

from mmpluld import outputs
from mmpluld.errors import BusyError, InputError
from mmpluld.inference.output import output_folder

NAMES = ("a.json", "b.html")


def write(folder, text="new"):
    for name in NAMES:
        (folder / name).write_text(text)


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("exists", [False, True])
def test_folder_appears_at_the_end(tmp_path, exists):
    target = tmp_path / "deep" / "out"
    if exists:
        target.mkdir(parents=True)
    with output_folder(target, NAMES) as folder:
        write(folder)
        assert not target.exists() or not list(target.iterdir())
    assert contents(target) == {"a.json": "new", "b.html": "new"}
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    reference = tmp_path / "plain"
    reference.mkdir()
    assert target.stat().st_mode == reference.stat().st_mode


def test_failure_leaves_everything_as_it_was(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    write(target, "old")
    with pytest.raises(RuntimeError, match="stop"), output_folder(target, NAMES, overwrite=True) as folder:
        (folder / "a.json").write_text("half")
        raise RuntimeError("stop")
    assert contents(target) == {"a.json": "old", "b.html": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overwrite_replaces_an_earlier_output(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    write(target, "old")
    with output_folder(target, NAMES, overwrite=True) as folder:
        (folder / "a.json").write_text("new")
    assert contents(target) == {"a.json": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("present", "overwrite", "message"),
    [
        ("a.json", False, r"out: holds a.json already; give another folder, or --overwrite"),
        ("thesis.tex", False, r"out: holds thesis.tex already"),
        ("thesis.tex", True, r"out: holds thesis.tex, which is no output of this command"),
    ],
)
def test_refusal_comes_before_any_work(tmp_path, present, overwrite, message):
    target = tmp_path / "out"
    target.mkdir()
    (target / present).write_text("old")
    with pytest.raises(InputError, match=message), output_folder(target, NAMES, overwrite):
        pytest.fail("the block must not run")
    assert contents(target) == {present: "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError, match="out: is a file; give a folder"), output_folder(tmp_path / "out", NAMES):
        pytest.fail("the block must not run")


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(InputError, match="out: cannot be written"),
        output_folder(tmp_path / "file" / "out", NAMES),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_comes_during_the_work_is_not_deleted(tmp_path, overwrite):
    target = tmp_path / "out"
    target.mkdir()
    if overwrite:
        write(target, "old")
    with pytest.raises(InputError, match="out: holds thesis.tex"), output_folder(target, NAMES, overwrite) as folder:
        write(folder)
        (target / "thesis.tex").write_text("precious")
    assert contents(target) == {"thesis.tex": "precious"} | (dict.fromkeys(NAMES, "old") if overwrite else {})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_comes_while_it_is_moved_away_is_put_back(tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.mkdir()
    write(target, "old")
    real = os.replace

    def late(source, destination):
        if source == target:
            (target / "thesis.tex").write_text("precious")
        real(source, destination)

    monkeypatch.setattr(os, "replace", late)
    with pytest.raises(InputError, match="out: holds thesis.tex"), output_folder(target, NAMES, True) as folder:
        write(folder)
    assert contents(target) == {"thesis.tex": "precious", **dict.fromkeys(NAMES, "old")}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_that_comes_during_the_work_is_not_deleted(tmp_path):
    with pytest.raises(InputError, match="out: cannot be written"), output_folder(tmp_path / "out", NAMES) as folder:
        write(folder)
        (tmp_path / "out").write_text("precious")
    assert (tmp_path / "out").read_text() == "precious"


def test_one_process_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs, "_PATIENCE_S", 0.0)
    with output_folder(tmp_path / "out", NAMES) as folder:
        write(folder)
        message = rf"out: is being written by another process \(pid {os.getpid()}\)"
        with pytest.raises(BusyError, match=message), output_folder(tmp_path / "out", NAMES):
            pytest.fail("the block must not run")
    assert contents(tmp_path / "out") == dict.fromkeys(NAMES, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    alike = [tmp_path / f"{'n' * 254}{end}" for end in "12"]
    with output_folder(alike[0], NAMES) as one, output_folder(alike[1], NAMES) as two:  # names that begin alike
        write(one)
        write(two)


def test_what_a_killed_command_left_is_removed(tmp_path):
    (tmp_path / ".tmp-mmpluld-lock-out").write_text("123456")
    (tmp_path / ".tmp-mmpluld-abc-out").mkdir()
    (tmp_path / ".tmp-mmpluld-abc-out" / "a.json").write_text("half")
    with output_folder(tmp_path / "out", NAMES) as folder:
        write(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_message_names_the_folder_and_not_the_temporary(tmp_path):
    with pytest.raises(InputError) as caught, output_folder(tmp_path / "out", NAMES) as folder:
        raise InputError(f"{folder / 'a.json'}: cannot be written (no room)")
    assert str(caught.value) == f"{tmp_path / 'out' / 'a.json'}: cannot be written (no room)"
