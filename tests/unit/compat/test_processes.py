"""Several processes find one another, or are refused before they write the same files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmpluld.cli.main import main
from mmpluld.compat.processes import check_alone, check_launcher, is_first, started_by
from mmpluld.errors import InputError

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
# What slurm sets everywhere in an allocation of four tasks, and what a batch script and srun add.
ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_NODELIST": "node[1-2]"}
BATCH = {**ALLOCATION, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
SRUN = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}
MPIRUN = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        (ALLOCATION, None),
        (BATCH, None),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}, None),
        ({**TORCHRUN, "WORLD_SIZE": "1"}, None),
        ({"WORLD_SIZE": "two", "RANK": "0"}, None),
        (TORCHRUN, ("pytorch", 2)),
        (SRUN, ("slurm", 4)),
        (MPIRUN, ("mpi", 2)),
        # One torchrun on each node, started by srun.
        ({**SRUN, **TORCHRUN}, ("pytorch", 2)),
    ],
)
def test_who_started_the_process(environment: dict[str, str], found: tuple[str, int] | None) -> None:
    assert started_by(environment) == found
    if found is None:
        check_launcher("none", environment)
    else:
        with pytest.raises(InputError, match=f"started {found[1]} processes.* add --launcher {found[0]}$"):
            check_launcher("none", environment)


@pytest.mark.parametrize(
    ("launcher", "environment", "message"),
    [
        (
            "pytorch",
            {},
            r"\(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set\); start it with `torc.* COMMAND \.\.\. --l",
        ),
        ("pytorch", SRUN, "srun did, so use --launcher slurm$"),
        ("slurm", {}, r"\(SLURM_PROCID, .*SLURM_STEP_NUM_TASKS not set\); start it with `srun "),
        ("slurm", BATCH, r"\(SLURM_STEP_NUM_TASKS not set\); start it with `srun "),
        ("slurm", TORCHRUN, "torchrun did, so use --launcher pytorch$"),
        ("mpi", MPIRUN, r"\(MASTER_ADDR not set\)"),
    ],
)
def test_a_launcher_that_did_not_start_the_process(launcher: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_launcher(launcher, environment)


@pytest.mark.parametrize("counter", ["PMI_SIZE", "MV2_COMM_WORLD_SIZE"])
@pytest.mark.parametrize("launcher", ["none", "mpi", "pytorch"])
def test_another_mpi_is_noticed(counter: str, launcher: str) -> None:
    with pytest.raises(InputError, match=rf"started 4 processes \({counter}\), .* only Open MPI's mpirun is known"):
        check_launcher(launcher, {counter: "4", "PMI_RANK": "0"})
    check_launcher("none", {counter: "1", "PMI_RANK": "0"})


@pytest.mark.parametrize("local", ["1", "2"])
def test_torchruns_that_srun_started_beside_one_another(local: str) -> None:
    alone = {**SRUN, **TORCHRUN, "RANK": "0", "WORLD_SIZE": local, "GROUP_WORLD_SIZE": "1"}
    with pytest.raises(InputError, match="srun started 4 tasks, but this torchrun knows of 1: .* --nnodes 4"):
        check_launcher("pytorch", alone)
    check_launcher("pytorch", {**SRUN, **TORCHRUN, "WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "4"})
    check_launcher("pytorch", {**SRUN, **TORCHRUN, "SLURM_STEP_NUM_TASKS": "1", "GROUP_WORLD_SIZE": "1"})


@pytest.mark.parametrize("environment", [TORCHRUN, MPIRUN, {"PMI_SIZE": "2"}, SRUN, {**SRUN, **TORCHRUN}])
@pytest.mark.parametrize(
    "command", [["detect", "scan.nii.gz", "--checkpoint", "x.pth"], ["mine", "x.json", "--strategies", "unlabeled"]]
)
def test_one_result_in_several_processes(command, environment: dict[str, str], monkeypatch, capsys) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main([*command, "--out", "out"]) == 2
    line = capsys.readouterr().err
    assert re.search("started [24] processes", line)
    assert line.count("\n") == 1


def test_mining_in_one_process_of_a_launcher() -> None:
    check_alone("mine", {**TORCHRUN, "WORLD_SIZE": "1"})


def test_processes_of_a_launcher_wait_for_one_another_to_write_the_cache_of_yapf(tmp_path: Path) -> None:
    """In a home without the cache, several at once; the file is large enough to be read half-written otherwise."""
    code = (
        "from mmpluld.compat.processes import import_in_turn; import sys; import_in_turn();"
        "assert 'yapf' in sys.modules; from yapf_third_party._ylib2to3 import pygram"
    )
    environment = {**os.environ, **TORCHRUN, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    processes = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert any(tmp_path.rglob("*.pickle"))


def test_a_single_process_imports_nothing() -> None:
    code = "from mmpluld.compat.processes import import_in_turn as it; import sys; it(); print('yapf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_launchers_that_need_gpus() -> None:
    check_launcher("pytorch", TORCHRUN)
    if torch.cuda.is_available():
        check_launcher("slurm", SRUN)
    else:
        with pytest.raises(InputError, match="slurm needs a GPU .* use torchrun"):
            check_launcher("slurm", SRUN)


@pytest.mark.parametrize("command", [["train", "x"], ["test", "x", "y"], ["calibrate", "x", "y", "z"]])
def test_commands_refuse_before_they_look_at_anything_else(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert main(command) == 2
    line = capsys.readouterr().err
    assert line.startswith("mmpluld: error: torchrun started 2 processes")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("launcher", "environment", "first"),
    [
        ("none", {"RANK": "3"}, True),
        ("pytorch", {"RANK": "0"}, True),
        ("pytorch", {"RANK": "1"}, False),
        ("slurm", {"SLURM_PROCID": "0"}, True),
        ("slurm", {"SLURM_PROCID": "5"}, False),
        ("mpi", {"OMPI_COMM_WORLD_RANK": "2"}, False),
    ],
)
def test_the_first_process_does_for_all_what_one_may_do(launcher, environment, first):
    assert is_first(launcher, environment) == first
