"""Commands that are killed or ended at random moments, or started twice: what is left is that of one whole run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
KILLS = 5
MODEL = "a3d_densenet121-fpn_7s_phantom"
SMALL = ["--set", "size=64", "max_slices=12", "lesions_per_series=4", "min_long_mm=14", "contrast_hu=180"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(arguments: Sequence[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "mmpluld", *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(arguments: Sequence[str]) -> float:
    """Run a command to its end and return the seconds it took."""
    begin = time.monotonic()
    process = start(arguments)
    out, _ = process.communicate(timeout=280)
    assert process.returncode == 0, out
    return time.monotonic() - begin


def contents(root: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones included; the volume store notes where it got its scans."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(file.relative_to(root)): file.read_bytes().replace(bytes(root), b"ROOT") for file in files}


def killed(
    tmp_path: Path,
    seed: int,
    prepare: Callable[[Path], None],
    arguments: Callable[[Path], list[str]],
    result: Callable[[Path], dict[str, object]],
) -> None:
    """Run a command in fresh folders, once without a kill, and with one at random moments."""
    moments = np.random.default_rng(seed)
    prepare(tmp_path / "whole")
    seconds = finish(arguments(tmp_path / "whole"))
    expected = result(tmp_path / "whole")
    assert expected
    for number in range(KILLS):
        root = tmp_path / f"killed{number}"
        prepare(root)
        process = start(arguments(root))
        time.sleep(seconds * moments.uniform(0.2, 1.0))
        process.kill()
        process.communicate()
        if result(root) != expected:  # else the kill came too late
            finish(arguments(root))
        found = result(root)
        assert found.keys() == expected.keys()
        assert found == expected


@pytest.mark.parametrize("layout", ["deeplesion", "luna16"])
def test_phantom(tmp_path, layout):
    patients = ["4", "1", "2"] if layout == "deeplesion" else ["5"]

    def arguments(root: Path) -> list[str]:
        return ["phantom", layout, str(root / "out"), "--patients", *patients, *SMALL]

    killed(tmp_path, 1, Path.mkdir, arguments, contents)


@pytest.mark.parametrize("layout", ["deeplesion", "lits"])
def test_convert(tmp_path, layout):
    raw = tmp_path / "raw"
    finish(["phantom", layout, str(raw), "--patients", *(["4", "1", "2"] if layout == "deeplesion" else ["6"]), *SMALL])
    killed(
        tmp_path,
        2,
        lambda root: shutil.copytree(raw, root),
        lambda root: ["convert", layout, str(root)],
        contents,
    )


def test_detect(tmp_path):
    scan = tmp_path / "scan.nii.gz"
    finish(["phantom", "scan", str(scan), *SMALL])
    command = ["detect", str(scan), "--model", MODEL]
    killed(tmp_path, 3, Path.mkdir, lambda root: [*command, "--out", str(root / "out")], contents)


def test_reproduce(tmp_path):
    data = tmp_path / "data"
    finish(["phantom", "deeplesion", str(data), "--patients", "1", "1", "1", *SMALL])
    finish(["convert", "deeplesion", str(data)])
    options = ["train_cfg.max_epochs=2", "train_dataloader.batch_size=2", "model.test_cfg.rcnn.max_per_img=5"]

    def arguments(root: Path) -> list[str]:
        chosen = ["--twins", "--rows", "a3d", "--seeds", "1", "--jobs", "1", "--pretrained", "none"]
        folders = ["--data-root", str(data), "--work-dir", str(root)]
        return ["reproduce", "table2", *chosen, *folders, "--cfg-options", *options]

    def result(root: Path) -> dict[str, object]:
        """Detections, figures and report; logs, seconds and the file of the weights are not the same twice."""
        run = root / MODEL / "seed0"
        found: dict[str, object] = {path.name: path.read_bytes() for path in root.glob("table2-twins.*")}
        if (run / "result.json").exists():
            found["figures"] = {**json.loads((run / "result.json").read_text()), "seconds": None}
            detections = (run / "detections.json").read_text()
            found["detections"] = re.sub(r"(weights \S+) \(SHA-256 \w+\)", r"\1", detections)
        found["left"] = [str(path) for path in root.rglob("*") if path.name.startswith((".tmp-", ".lock"))]
        return found

    killed(tmp_path, 4, Path.mkdir, arguments, result)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A scan, a raw dataset of three patients, and the same converted."""
    root = tmp_path_factory.mktemp("data")
    finish(["phantom", "scan", str(root / "scan.nii.gz"), *SMALL])
    finish(["phantom", "deeplesion", str(root / "raw"), "--patients", "1", "1", "1", *SMALL])
    shutil.copytree(root / "raw", root / "converted")
    finish(["convert", "deeplesion", str(root / "converted")])
    return root


def command(name: str, data: Path, root: Path) -> list[str]:
    """A command that writes below ``root``, a folder that is there."""
    if name == "phantom":
        return ["phantom", "deeplesion", str(root / "out"), "--patients", "2", "1", "1", "--overwrite", *SMALL]
    if name == "convert":
        shutil.copytree(data / "raw", root / "out", dirs_exist_ok=True)
        return ["convert", "deeplesion", str(root / "out")]
    if name == "detect":
        return ["detect", str(data / "scan.nii.gz"), "--model", MODEL, "--out", str(root / "out")]
    changed = [f"data_root={data / 'converted'}", "train_cfg.max_epochs=1", "train_dataloader.num_workers=2"]
    return ["train", MODEL, "--work-dir", str(root / "out"), "--cfg-options", *changed]


def in_session(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:  # ended meanwhile
            continue
        if int(own) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for orphans in /proc")
@pytest.mark.parametrize("name", ["phantom", "convert", "detect", "train"])
def test_signals(tmp_path, data, name):
    """SIGTERM and SIGHUP in turn: the status and the line say so, and neither temporaries nor processes are left."""
    moments, kinds = np.random.default_rng(5), [signal.SIGTERM, signal.SIGHUP]
    (tmp_path / "whole").mkdir()
    seconds = finish(command(name, data, tmp_path / "whole"))
    ended = 0
    for number in range(2 * KILLS):
        kind, root = kinds[number % 2], tmp_path / str(number)
        root.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", "mmpluld", *command(name, data, root)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        time.sleep(seconds * moments.uniform(0.2, 0.9))
        process.send_signal(kind)
        _, said = process.communicate(timeout=60)
        if process.returncode not in (0, -kind):  # else it had ended, or had not begun
            ended += 1
            assert process.returncode == 128 + kind, said
            assert said.splitlines()[-1] == f"mmpluld: ended by {kind.name}"
        assert "Traceback" not in said
        assert [path for path in root.rglob("*") if path.name.startswith(".tmp-")] == []
        deadline = time.monotonic() + 10
        while in_session(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert in_session(process.pid) == []
    assert ended >= KILLS


@pytest.mark.parametrize("name", ["phantom", "convert", "detect", "train"])
def test_two_at_once(tmp_path, data, name):
    """One does its work as if it were alone, the other is refused in one line."""
    for root in (tmp_path / "alone", tmp_path / "both"):
        root.mkdir()
    finish(command(name, data, tmp_path / "alone"))
    arguments = [sys.executable, "-m", "mmpluld", *command(name, data, tmp_path / "both")]
    both = [
        subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=280)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    refusal = said[0 if both[0].returncode else 1]
    assert refusal.count("\n") == 1
    assert re.search("is being written by another process|exists already", refusal)
    alone, result = contents(tmp_path / "alone"), contents(tmp_path / "both")
    if name == "train":  # times are in names of folders, logs, and checkpoints
        alone, result = ({file for file in found if "/2" not in file} for found in (alone, result))
    assert result == alone
