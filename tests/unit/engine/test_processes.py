"""Several processes find one another, or are refused before they write the same files."""

from __future__ import annotations

import os

import pytest
import torch

from mmpluld import outputs
from mmpluld.cli.main import main
from mmpluld.engine.processes import check_launcher, sole_writer, started_by
from mmpluld.errors import InputError
from mmpluld.outputs import folder_lock

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
            r"torchrun did not .*\(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set\); start it with `torc",
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
    ("launcher", "environment", "holds"),
    [
        ("none", {"RANK": "3"}, True),
        ("pytorch", {"RANK": "0"}, True),
        ("pytorch", {"RANK": "1"}, False),
        ("slurm", {"SLURM_PROCID": "0"}, True),
        ("slurm", {"SLURM_PROCID": "5"}, False),
        ("mpi", {"OMPI_COMM_WORLD_RANK": "2"}, False),
    ],
)
def test_the_first_process_holds_the_work_folder(tmp_path, launcher, environment, holds):
    with sole_writer(tmp_path, launcher, environment=environment):
        assert (tmp_path / ".lock").exists() == holds
    assert list(tmp_path.iterdir()) == []


def test_two_trainings_in_one_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(outputs, "_PATIENCE_S", 0.0)
    monkeypatch.setenv("LOCAL_RANK", "0")
    config = "a3d_densenet121-fpn_7s_phantom"
    for lock, command in ((".lock", ["train", config]), (".lock-test", ["test", config, "weights.pth"])):
        with folder_lock(tmp_path / "work", lock):
            assert main([*command, "--work-dir", str(tmp_path / "work")]) == 2
        assert capsys.readouterr().err == (
            f"mmpluld: error: {tmp_path / 'work'}: is being written by another process (pid {os.getpid()}); "
            "wait for it, or choose another place\n"
        )
