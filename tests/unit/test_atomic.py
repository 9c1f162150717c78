"""Files appear whole or not at all, whatever the target is."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from mmpluld.atomic import (
    atomic_group,
    atomic_path,
    atomic_write_text,
    is_unfinished,
    refuse_unfinished,
    remove_abandoned,
    temporary_folder,
)
from mmpluld.errors import InputError, NoRoomError
from mmpluld.io import write_volume
from mmpluld.io.array_store import write_array
from mmpluld.structures import CTVolume


def test_nothing_is_left_of_a_failure(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_the_file_behind_a_link_is_replaced(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    atomic_write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_pipe_gets_the_content(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    atomic_write_text(pipe, "text")
    reader.join(timeout=10)
    assert read == ["text"]
    assert not pipe.is_file()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """What a full disk does to a program, for every file of this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    volume = CTVolume.from_canonical(np.zeros((4, 64, 64), np.int16), (1.0, 1.0, 1.0))
    noise = np.random.default_rng(0).integers(-1000, 1000, (4, 64, 64), np.int16)
    writers = {
        "a.txt": lambda path: atomic_write_text(path, "x" * 10000),
        "a.npy": lambda path: write_array(path, volume.array),
        "a.nii": lambda path: write_volume(volume, path),
        "a.nii.gz": lambda path: write_volume(replace(volume, array=noise), path),
        "a.mha": lambda path: write_volume(volume, path),
        "a.mhd": lambda path: write_volume(volume, path),
    }
    for name, write in writers.items():
        with (
            file_size_limit(4096),
            pytest.raises(InputError, match=rf"{re.escape(name)}: (cannot be|could not be) ") as error,
        ):
            write(tmp_path / name)
        assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_errors_of_reading_are_not_taken_for_those_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_bytes((tmp_path / "missing").read_bytes())


def test_a_full_device(tmp_path):
    with pytest.raises(NoRoomError, match=r"/dev/full: cannot be written \(No space left on device\); make room"):
        atomic_write_text("/dev/full", "text")


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("n" * 251 + ".txt", "ü" * 125 + ".json"):
        atomic_write_text(tmp_path / name, "text")
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="File name too long.*choose a shorter name"):
        atomic_write_text(tmp_path / ("n" * 256), "text")


KILLED = """
import os, sys
from pathlib import Path
from mmpluld.atomic import atomic_path, temporary_folder
with atomic_path(Path(sys.argv[1]) / "b"), temporary_folder(Path(sys.argv[1]) / "c") as folder:
    (folder / "x").touch()
    os._exit(0)
"""


def test_only_what_nobody_writes_is_removed(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=True)
    (tmp_path / ".tmp-of-another-program").touch()
    assert len(list(tmp_path.iterdir())) == 3
    with atomic_path(tmp_path / "a") as temporary, temporary_folder(tmp_path / "d") as folder:
        remove_abandoned(tmp_path)
        assert set(tmp_path.iterdir()) == {temporary, folder, tmp_path / ".tmp-of-another-program"}
        temporary.write_text("whole")
    assert (tmp_path / "a").read_text() == "whole"
    remove_abandoned(tmp_path / "missing")


def test_a_group_is_unfinished_until_all_have_their_names(tmp_path, monkeypatch):
    paths = [tmp_path / f"{name}.json" for name in ("train", "val", "test")]
    old = tmp_path / "old.json"
    old.write_text("old")
    with atomic_group(paths, [old]) as temporaries:
        for number, temporary in enumerate(temporaries):
            atomic_write_text(temporary, str(number))
        assert old.exists()
    assert [path.read_text() for path in paths] == ["0", "1", "2"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    # A kill after each of the three renames.
    for done in range(3):
        code = (
            "import os, mmpluld.atomic as a\nreal, left = os.replace, [%d]\n"
            "def replace(x, y):\n"
            " if not left[0]: os._exit(9)\n"
            " left[0] -= 1; real(x, y)\n"
            "os.replace = replace\n"
            "with a.atomic_group(%r) as t:\n"
            " for x in t: x.write_text('new')\n"
        )
        subprocess.run([sys.executable, "-c", code % (done, [str(path) for path in paths])], check=False)
        assert all(is_unfinished(path) for path in paths)
        with pytest.raises(InputError, match="was interrupted; run it again"):
            refuse_unfinished(paths[0])
        with atomic_group(paths) as temporaries:
            for temporary in temporaries:
                temporary.write_text("again")
        assert not any(is_unfinished(path) for path in paths)
        remove_abandoned(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted(paths)
