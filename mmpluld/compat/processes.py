"""How the processes of a run were started, and whether ``--launcher`` says so."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mmpluld.compat.system import lock_file
from mmpluld.errors import InputError

__all__ = ["PATIENCE_S", "check_alone", "check_launcher", "import_in_turn", "is_first", "started_by"]

PATIENCE_S = 7200
"""How long processes wait for one another, whose shares, as of the volumes of a test, are unequal; NCCL's own patience
is ten minutes."""

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
# How the processes of other MPIs are counted; mmengine knows Open MPI's alone.
_OTHER_MPI = {"PMI_SIZE": "MPICH or Intel MPI", "MV2_COMM_WORLD_SIZE": "MVAPICH"}
_EXAMPLES = {
    "pytorch": "torchrun --nproc-per-node 4 -m mmpluld COMMAND ... --launcher pytorch",
    "slurm": "srun --ntasks 8 --gpus-per-task 1 mmpluld COMMAND ... --launcher slurm",
    "mpi": "mpirun -np 4 -x MASTER_ADDR=HOST_OF_RANK_0 mmpluld COMMAND ... --launcher mpi",
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


def import_in_turn(environment: Mapping[str, str] = os.environ) -> None:
    """Let the processes that a launcher started import yapf one after the other.

    mmengine imports it; at its first import by a user it writes a cache that another process may read half-written, and
    end with ``EOFError``.
    """
    if started_by(environment) is None:
        return
    spec = importlib.util.find_spec("yapf")
    if spec is None or spec.origin is None:
        return
    folder = os.open(Path(spec.origin).parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            lock_file(folder)
        importlib.import_module("yapf")
    finally:
        os.close(folder)


def check_alone(command: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse processes of a command that knows of no others, where each would do the same.

    Raises:
        InputError: If a launcher started several processes.
    """
    _refuse_other_mpi(environment)
    found = started_by(environment)
    if found is not None:
        name = _LAUNCHERS[found[0]][0]
        raise InputError(
            f"{name} started {found[1]} processes, but {command} runs in one: each would do the same work and write "
            f"the same files; start it without {name}"
        )


def _refuse_other_mpi(environment: Mapping[str, str]) -> None:
    for counter, name in _OTHER_MPI.items():
        count = environment.get(counter, "")
        if count.isdigit() and int(count) > 1 and started_by(environment) is None:
            raise InputError(
                f"{name} started {count} processes ({counter}), and they would not find one another: only Open MPI's "
                "mpirun is known; use that, srun or torchrun"
            )


def _refuse_separate_groups(environment: Mapping[str, str]) -> None:
    """Refuse torchruns that srun started beside one another without telling them so."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "")
    groups = environment.get("GROUP_WORLD_SIZE", "")
    if tasks.isdigit() and groups.isdigit() and int(tasks) > int(groups):
        raise InputError(
            f"srun started {tasks} tasks, but this torchrun knows of {groups}: each would do all the work and write "
            f"the same files; give torchrun --nnodes {tasks} --rdzv-backend c10d --rdzv-endpoint HOST:PORT, or leave "
            "it out and use --launcher slurm"
        )


def check_launcher(launcher: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse processes that would not find one another.

    Args:
        launcher: none | pytorch | slurm | mpi, as the user says.
        environment: Environment variables of the process.

    Raises:
        InputError: Several processes were started and ``launcher`` is "none", so that each would do all the work and
            write the same files; or ``launcher`` is not what started this process; or it needs GPUs and there are none.
    """
    _refuse_other_mpi(environment)
    found = started_by(environment)
    if launcher == "none":
        if found is not None:
            started, count = found
            raise InputError(
                f"{_LAUNCHERS[started][0]} started {count} processes, but --launcher is none: each would do all the "
                f"work alone and write the same files; add --launcher {started}"
            )
        return
    if launcher == "pytorch":
        _refuse_separate_groups(environment)
    import torch  # here, because commands that start no network ask for the rest of this module

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


def is_first(launcher: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process does for all processes of a run what only one may do.

    Args:
        launcher: none | pytorch | slurm | mpi.
        environment: Environment variables of the process.
    """
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return int(torch.distributed.get_rank()) == 0
    return launcher == "none" or environment.get(_LAUNCHERS[launcher][3], "0") == "0"
