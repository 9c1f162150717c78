"""``mmpluld`` commands as child processes that are stopped together, and the share of the machine that each gets.

Children, because a runner leaves global state behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from mmpluld.compat.follow import following
from mmpluld.compat.system import usable_cores
from mmpluld.errors import MMPluldError

__all__ = ["Children", "Resources", "RunFailed", "run_command", "run_commands", "slots_of"]

_GRACE_S = 10.0  # what a child may take to end before it is killed


class RunFailed(MMPluldError):
    """A child process failed; the message names its log."""


@dataclass(frozen=True)
class Resources:
    """What the runs may use.

    Attributes:
        jobs: Runs at the same time.
        threads: CPU threads of each.
        gpus: GPUs of each; 0 leaves the choice of the device to the framework.
    """

    jobs: int
    threads: int
    gpus: int = 0

    @classmethod
    def of_machine(cls, jobs: int | None, gpus: int) -> Resources:
        """Share the machine's cores among jobs; by default one job per core, or one in all with GPUs."""
        cores = usable_cores()
        jobs = jobs or (1 if gpus else cores)
        return cls(jobs, max(1, cores // jobs), gpus)

    def environment(self, slot: int) -> dict[str, str]:
        """Environment of the children in a slot, 0 to ``jobs - 1``."""
        changes = {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        if self.gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            devices = visible.split(",") if visible else list(map(str, range(self.jobs * self.gpus)))
            changes["CUDA_VISIBLE_DEVICES"] = ",".join(devices[slot * self.gpus : (slot + 1) * self.gpus])
        return {**os.environ, **changes}


class Children:
    """Child processes of this process, to be stopped together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def call(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        """Run a command with its output appended to ``log``.

        Raises:
            RunFailed: If it fails.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            with self._lock:
                if self.stopped:
                    raise RunFailed("interrupted")
                # Children get a session of their own: an interrupt reaches them through `stop`, once.
                child = subprocess.Popen(
                    following(command), stdout=stream, stderr=stream, env=environment, start_new_session=True
                )
                self._running.add(child)
            try:
                status = child.wait()
            finally:
                with self._lock:
                    self._running.discard(child)
        if self.stopped:
            raise RunFailed("interrupted")
        if status != 0:
            raise RunFailed(f"status {status}, see {log}: {_last_line(log)}")

    def stop(self) -> None:
        """End all children and refuse new ones."""
        with self._lock:
            self.stopped = True
            running = list(self._running)
        for number, deadline in ((signal.SIGTERM, time.monotonic() + _GRACE_S), (signal.SIGKILL, None)):
            for child in running:
                if child.poll() is None:
                    os.killpg(child.pid, number)
            while deadline and time.monotonic() < deadline and any(child.poll() is None for child in running):
                time.sleep(0.05)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(empty)"


def run_command(arguments: Sequence[str], log: Path) -> None:
    """Run one ``mmpluld`` command with all cores and its output in ``log``.

    Raises:
        RunFailed: If it fails.
    """
    children = Children()
    try:
        children.call([sys.executable, "-m", "mmpluld", *arguments], log, dict(os.environ))
    except BaseException:
        children.stop()
        raise


def slots_of(resources: Resources) -> SimpleQueue[int]:
    """Numbers of the jobs at once, each with GPUs of its own; who takes one puts it back."""
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(resources.jobs):
        slots.put(slot)
    return slots


def run_commands(commands: Sequence[tuple[Sequence[str], Path]], resources: Resources) -> None:
    """Run several ``mmpluld`` commands, each with its log, as many at once as the resources allow.

    Raises:
        RunFailed: If one fails; the others are stopped.
    """
    children, slots = Children(), slots_of(resources)

    def perform(arguments: Sequence[str], log: Path) -> None:
        slot = slots.get()
        try:
            children.call([sys.executable, "-m", "mmpluld", *arguments], log, resources.environment(slot))
        finally:
            slots.put(slot)

    pool = ThreadPoolExecutor(resources.jobs)
    try:
        for future in as_completed([pool.submit(perform, *command) for command in commands]):
            future.result()
    finally:
        children.stop()
        pool.shutdown(cancel_futures=True)
