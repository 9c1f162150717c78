"""Outputs that cannot be written are refused in one line before any work; a folder is written by one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmpluld import outputs
from mmpluld.atomic import atomic_write_text
from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.outputs import check_output_file, check_output_folder, folder_lock


def unusable(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Places that neither a file nor a folder can be written to, and what is said of them."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    return {
        "below a file": (tmp_path / "file" / "sub" / "out", "cannot be written"),
        "dangling link": (tmp_path / "dangling", "is a link to nowhere, which is not there"),
        "below a dangling link": (tmp_path / "dangling" / "out", "is a link to nowhere"),
        "circle": (tmp_path / "loop", "links in a circle"),
        "long name": (tmp_path / ("n" * 300), "longer than 255 bytes"),
        "long name to be made": (tmp_path / "new" / ("n" * 300) / "out", "longer than 255 bytes"),
        "long path": (Path(str(tmp_path) + "/d" * 3000), "cannot be written"),
        "system's own": (Path("/proc/nothing/out"), "cannot be written"),
    }


@pytest.mark.parametrize("check", [check_output_file, check_output_folder])
def test_an_empty_name_is_not_the_folder_one_is_in(check):
    with pytest.raises(InputError, match="the place to write to is empty"):
        check("")


@pytest.mark.parametrize("check", [check_output_file, check_output_folder])
def test_what_cannot_be_written_is_refused(tmp_path, check):
    for name, (path, message) in unusable(tmp_path).items():
        before = sorted(tmp_path.iterdir())
        with pytest.raises(InputError, match=message):
            check(path)
            pytest.fail(f"{name} was not refused")
        assert sorted(tmp_path.iterdir()) == before
    for path in (tmp_path / "new", tmp_path / "a" / "b" / "c", tmp_path / ("n" * 255)):
        check(path)
        assert not path.exists()


def test_files_and_folders_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="is a folder; give a file"):
        check_output_file(tmp_path)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(InputError, match="file: is a file; give a folder"):
        check_output_folder(tmp_path / "file")
    (tmp_path / "link").symlink_to("file")
    check_output_file(tmp_path / "link")
    check_output_file(os.devnull)


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", refuse)  # nothing is forbidden to the superuser
    for check in (check_output_file, check_output_folder):
        with pytest.raises(InputError, match=r"out: cannot be written \(Permission denied\); choose another place"):
            check(tmp_path / "deep" / "out")


# Every command that writes: its arguments before the output, and the output's own word.
COMMANDS = {
    "train": (["x", "--work-dir"], "folder"),
    "test": (["x", "y", "--out"], "file"),
    "test --work-dir": (["x", "y", "--work-dir"], "folder"),
    "test --show-dir": (["x", "y", "--show-dir"], "folder"),
    "detect": (["x", "--checkpoint", "y", "--out"], "folder"),
    "calibrate": (["x", "y"], "file"),
    "harvest": (["x", "y", "--out"], "file"),
    "rescore": (["x", "y", "--data-root", "z", "--fpr", "w", "--out"], "file"),
    "evaluate": (["x", "y", "--protocol", "lens-3d", "--json"], "file"),
    "evaluate --plot": (["x", "y", "--protocol", "lens-3d", "--plot"], "file"),
    "browse": (["x", "--out"], "folder"),
    "check-data": (["x", "--json"], "file"),
    "config": (["a3d_densenet121-fpn_7s_phantom", "--out"], "file"),
    "convert-checkpoint": (["mulan", "x"], "file"),
    "curves": (["x", "--out"], "file"),
    "download": (["x", "--dest"], "folder"),
    "phantom": (["luna16"], "folder"),
    "phantom scan": (["scan"], "file"),
    "reproduce": (["table1", "--work-dir"], "folder"),
    "reproduce --export": (["table1", "--export"], "folder"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_its_output_first(tmp_path, capsys, command):
    before, kind = COMMANDS[command]
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder.nii.gz").mkdir()
    wrong = [tmp_path / "file" / "below.nii.gz", tmp_path / ("folder.nii.gz" if kind == "file" else "file")]
    for path in wrong:
        assert main([command.split()[0], *before, str(path)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert str(path) in error
        assert "cannot be written" in error or "is a f" in error
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "command",
    [
        "evaluate pred truth --protocol lens-3d --json pred",
        "evaluate pred truth --protocol lens-3d --json ./truth",
        "evaluate pred truth --protocol lens-3d --plot link.svg",
        "evaluate pred truth --protocol lens-3d --json new.svg --plot new.svg",
        "convert-checkpoint mulan pred pred --overwrite",
        "calibrate truth pred pred --overwrite",
        "curves link.svg --out link.svg",
    ],
)
def test_no_input_of_a_command_is_its_output(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    for name in ("pred", "truth"):
        Path(name).write_text(name)
    Path("link.svg").symlink_to("truth")
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is named twice in this command, which writes it" in error
    assert Path("pred").read_text() == "pred" and Path("truth").read_text() == "truth"
    assert not Path("new.svg").exists()


def test_problems_are_not_written_among_the_annotations(tmp_path, capsys):
    file = tmp_path / "annotations" / "test.json"
    file.parent.mkdir()
    file.write_text("{}")
    assert main(["check-data", str(tmp_path), "--json", str(file)]) == 2
    assert "there the annotation files are" in capsys.readouterr().err
    assert file.read_text() == "{}"


HOLD = """
import sys, time
from mmpluld.outputs import folder_lock
with folder_lock(sys.argv[1]):
    print(1, flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_process_until_it_ends(tmp_path, monkeypatch):
    folder = tmp_path / "new"
    monkeypatch.setattr(outputs, "_PATIENCE_S", 0.0)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline()
        message = rf"new: is being written by another process \(pid {holder.pid}\)"
        with pytest.raises(InputError, match=message), folder_lock(folder):
            pytest.fail("held twice")
    finally:
        holder.kill()
        holder.communicate()
    with folder_lock(folder):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    assert list(folder.iterdir()) == []


def test_a_lock_leaves_nothing(tmp_path):
    with folder_lock(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a" / "b").exists()
    with folder_lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "x").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x"]


def test_a_full_disk_is_told_by_what_is_written_not_by_the_lock(tmp_path):
    """And a command that makes room, such as `phantom --overwrite`, gets so far."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(InputError, match=r"a\.txt: cannot be written"), folder_lock(tmp_path):
            atomic_write_text(tmp_path / "a.txt", "text")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
