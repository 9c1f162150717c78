"""How the processes of a run were started, and whether ``--launcher`` says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

from mmpluld.errors import InputError
from mmpluld.outputs import LOCK, folder_lock
from mmpluld.typing import StrPath

__all__ = ["check_launcher", "sole_writer", "started_by"]

# By launcher, what it calls itself, the variable that counts the processes it started, all that mmengine reads, and
# the variable that numbers the processes.
# SLURM_NTASKS is set in a whole allocation, also for a shell or a batch script that is one process of it; only srun
# sets the count of its own step.
_LAUNCHERS = {
    "pytorch": ("torchrun", "WORLD_SIZE", ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"), "RANK"),
    "slurm": (
        "srun",
        "SLURM_STEP_NUM_TASKS",
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODELIST", "SLURM_STEP_NUM_TASKS"),
        "SLURM_PROCID",
    ),
    "mpi": (
        "mpirun",
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MASTER_ADDR"),
        "OMPI_COMM_WORLD_RANK",
    ),
}
_EXAMPLES = {
    "pytorch": "torchrun --nproc-per-node 4 -m mmpluld COMMAND CONFIG --launcher pytorch",
    "slurm": "srun --ntasks 8 --gpus-per-task 1 mmpluld COMMAND CONFIG --launcher slurm",
    "mpi": "mpirun -np 4 -x MASTER_ADDR=HOST_OF_RANK_0 mmpluld COMMAND CONFIG --launcher mpi",
}


def started_by(environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Return which launcher started this process together with others, and how many they are; None if it is alone.

    Args:
        environment: Environment variables of the process.
    """
    for launcher, (_, counter, needed, _) in _LAUNCHERS.items():
        count = environment.get(counter, "")
        if count.isdigit() and int(count) > 1 and needed[0] in environment:
            return launcher, int(count)
    return None


def check_launcher(launcher: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse processes that would not find one another.

    Args:
        launcher: none | pytorch | slurm | mpi, as the user says.
        environment: Environment variables of the process.

    Raises:
        InputError: Several processes were started and ``launcher`` is "none", so that each would do all the work and
            write the same files; or ``launcher`` is not what started this process; or it needs GPUs and there are none.
    """
    found = started_by(environment)
    if launcher == "none":
        if found is not None:
            started, count = found
            raise InputError(
                f"{_LAUNCHERS[started][0]} started {count} processes, but --launcher is none: each would do all the "
                f"work alone and write the same files; add --launcher {started}"
            )
        return
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return  # whoever called us has brought the processes together
    missing = [name for name in _LAUNCHERS[launcher][2] if name not in environment]
    if missing:
        next_step = f"start it with `{_EXAMPLES[launcher]}`"
        if found is not None and found[0] != launcher:
            next_step = f"{_LAUNCHERS[found[0]][0]} did, so use --launcher {found[0]}"
        raise InputError(
            f"--launcher {launcher}: {_LAUNCHERS[launcher][0]} did not start this process ({', '.join(missing)} not "
            f"set); {next_step}"
        )
    if launcher != "pytorch" and not torch.cuda.is_available():
        raise InputError(
            f"--launcher {launcher} needs a GPU for every process, and there is none here; on CPUs use torchrun with "
            "--launcher pytorch"
        )


def sole_writer(
    folder: StrPath, launcher: str, lock: str = LOCK, environment: Mapping[str, str] = os.environ
) -> AbstractContextManager[None]:
    """Hold a folder that the processes of one run write to; the first of them does so for all.

    Args:
        folder: Work folder of the run.
        launcher: none | pytorch | slurm | mpi.
        lock: See :func:`mmpluld.outputs.folder_lock`.
        environment: Environment variables of the process.

    Raises:
        InputError: On entering, in the first process: the folder cannot be written to, or another run holds it.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        first = torch.distributed.get_rank() == 0
    else:
        first = launcher == "none" or environment.get(_LAUNCHERS[launcher][3], "0") == "0"
    return folder_lock(folder, lock) if first else nullcontext()
