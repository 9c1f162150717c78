"""A graph of jobs that survives interruption: each begins when those it needs are done.

What a job makes lies in a folder of its own, with a record of what it depends on. So a later call finds what is done,
resumes what was interrupted, and refuses what was made from something else.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from mmpluld.atomic import TEMPORARY, atomic_write_text
from mmpluld.errors import InputError, MMPluldError
from mmpluld.inputs import sha256_of
from mmpluld.reproduce.children import Children, Resources, RunFailed, slots_of
from mmpluld.structures.text_files import read_object

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = [
    "RECORD_HINT",
    "Caller",
    "Job",
    "JobState",
    "whole_config_digest",
    "execute",
    "fail_outdated",
    "identity_digest",
    "last_weights",
    "launched",
    "refuse_unknown",
    "save_record",
]

RECORD_HINT = "the record of a run as it was written, or remove its folder to run it again"
_CHANGED = {
    "config_sha256": "another version of the config",
    "weights_config_sha256": "another version of the config of its weights",
    "data_sha256": "other data",
    "start_sha256": "another start of its backbone",
    "needs_sha256": "another version of a step before it",
}

_OUTDATED = "{}: was made from what {} held before; remove the former, or choose another --work-dir"

JobState = Literal["waiting", "training", "testing", "working", "done", "failed"]


@dataclass(frozen=True)
class Caller:
    """Runs the commands of one job.

    Attributes:
        children: Of this process.
        environment: Of the commands.
        gpus: GPUs of each command.
    """

    children: Children
    environment: Mapping[str, str]
    gpus: int = 0

    def call(self, command: Sequence[str], log: Path) -> None:
        """Run a command with its output appended to ``log``.

        Raises:
            RunFailed: If it fails.
        """
        self.children.call(command, log, dict(self.environment))


@dataclass(eq=False, kw_only=True)
class Job(ABC):
    """What is made by some commands, once.

    Attributes:
        seed: Of its trainings; what is made from a training has its seed.
        folder: Where everything of it lies.
        identity: What the result depends on; a folder of another identity is refused.
        needs: Jobs that must be done before.
        state: How far it is.
        error: Why it failed, one line.
    """

    seed: int
    folder: Path
    identity: dict[str, Any]
    needs: list[Job] = field(default_factory=list)
    state: JobState = "waiting"
    error: str = ""

    record_name = "run.json"

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in messages."""

    @abstractmethod
    def is_done(self) -> bool:
        """Whether its result is there."""

    @property
    @abstractmethod
    def product(self) -> Path:
        """File that tells what it made from what another making would give: weights, or what names their digest."""

    @abstractmethod
    def perform(self, caller: Caller) -> None:
        """Make what is missing of the result.

        Raises:
            MMPluldError: If it cannot be made.
        """

    @property
    def made(self) -> str:
        """SHA-256 of what it made, also when that was tidied away since; empty where its record does not tell."""
        known = (self.folder / self.record_name).is_file()
        return str(self.record.get("made", "")) if known else ""

    def outdated_by(self) -> Job | None:
        """A job that it needs and that has made something else since; None: none, as far as records tell."""
        before = self.record.get("made_of", ()) if (self.folder / self.record_name).is_file() else ()
        pairs = zip(self.needs, before, strict=False)
        return next((need for need, made in pairs if made and need.made and need.made != made), None)

    def do(self, caller: Caller) -> None:
        """Make what is missing of the result, and write down what it is made of.

        Raises:
            MMPluldError: If it cannot be made, or was begun with what is not there any more.
        """
        if need := self.outdated_by():
            raise RunFailed(_OUTDATED.format(self.folder, need.folder))
        self.record["made_of"] = [need.made for need in self.needs]
        self.save()
        self.perform(caller)

    def note_made(self) -> None:
        """Put into the record, which the caller saves, what was made."""
        self.record["made"] = sha256_of(self.product)

    def look(self) -> None:
        """Find out whether it is done.

        Raises:
            InputError: If its folder holds a result of another identity, of which nothing is known, or made from
                something that a job before it does not hold any more.
        """
        path = self.folder / self.record_name
        if not path.is_file():
            refuse_unknown(self.folder, self.record_name)
        else:
            known = read_object(path, RECORD_HINT, ("identity",))["identity"]
            changed = [name for name in {**self.identity, **known} if known.get(name) != self.identity.get(name)]
            if changed:
                what = " and ".join(_CHANGED.get(name, f"another {name}") for name in changed)
                raise InputError(
                    f"{self.folder}: holds a run with {what}; remove the folder or choose another --work-dir"
                )
        if need := self.outdated_by():
            raise InputError(_OUTDATED.format(self.folder, need.folder))
        if self.is_done():
            self.state = "done"

    @cached_property
    def record(self) -> dict[str, Any]:
        """What its file says, after writing it if it is new."""
        path = self.folder / self.record_name
        if path.is_file():
            return read_object(path, RECORD_HINT, ("identity", "seconds"))
        record = {"identity": self.identity, "seconds": {}}
        save_record(path, record)
        return record

    def save(self) -> None:
        """Write the record."""
        save_record(self.folder / self.record_name, self.record)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of a stage to the record, also when it is interrupted."""
        begin, before = time.monotonic(), self.record["seconds"].get(stage, 0.0)
        try:
            yield
        finally:
            self.record["seconds"][stage] = round(before + time.monotonic() - begin, 1)
            self.save()

    def fail(self, error: str) -> None:
        """Note that it cannot be made."""
        self.state, self.error = "failed", error


def execute(jobs: Sequence[Job], resources: Resources, on_tick: Callable[[], None] = lambda: None) -> None:
    """Do what is not done; a failing job leaves its error, those that need it fail too, and the others go on.

    An exception in this thread, such as an interrupt, stops the children; the next call resumes each job.

    Args:
        jobs: Those to be done, in the order in which they begin where nothing else decides.
        resources: How much may run at once.
        on_tick: Called about twice a second, in this thread.
    """
    children, slots = Children(), slots_of(resources)
    pool = ThreadPoolExecutor(resources.jobs)
    known = set(jobs)
    waiting = [job for job in jobs if job.state != "done"]
    running: set[Future[None]] = set()
    try:
        while waiting or running:
            # A job that nobody does will never be done: those that need it have failed.
            hopeless = {job for job in waiting for need in job.needs if need.state == "failed"}
            hopeless |= {job for job in waiting for need in job.needs if need.state != "done" and need not in known}
            for job in hopeless:
                job.fail("; ".join(f"needs {need.name}, {_how(need)}" for need in job.needs if need.state != "done"))
            ready = [job for job in waiting if job not in hopeless and all(need.state == "done" for need in job.needs)]
            waiting = [job for job in waiting if job not in hopeless and job not in ready]
            running |= {pool.submit(_perform, job, resources, slots, children) for job in ready}
            finished, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()  # an error that is not the job's is ours
            on_tick()
    finally:
        children.stop()
        pool.shutdown(cancel_futures=True)


def fail_outdated(jobs: Sequence[Job]) -> None:
    """Fail what was done with results that have been made anew since.

    Args:
        jobs: Those whose results count and all that they need, each after its needs.
    """
    outdated: set[Job] = set()
    for job in jobs:
        before = [need for need in job.needs if need in outdated]
        if job.state == "done" and (need := job.outdated_by() or next(iter(before), None)):
            job.fail(_OUTDATED.format(job.folder, need.folder))
            outdated.add(job)


def _how(need: Job) -> str:
    return "which failed" if need.state == "failed" else "which is not made"


def _perform(job: Job, resources: Resources, slots: SimpleQueue[int], children: Children) -> None:
    """Do one job in a free slot."""
    slot = slots.get()
    job.state = "working"
    try:
        job.do(Caller(children, resources.environment(slot), resources.gpus))
        job.state = "done"
    except MMPluldError as error:
        job.fail(str(error))
    finally:
        slots.put(slot)


def identity_digest(jobs: Sequence[Job]) -> str:
    """SHA-256 of what the results of some jobs depend on."""
    text = json.dumps([job.identity for job in jobs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def whole_config_digest(cfg: Config) -> str:
    """SHA-256 of all settings of a config."""
    return hashlib.sha256(json.dumps(cfg.to_dict(), sort_keys=True, default=str).encode()).hexdigest()


def last_weights(folder: Path) -> Path:
    """Checkpoint of the finished training in a folder.

    Raises:
        RunFailed: If there is none.
    """
    note = folder / "last_checkpoint"
    if not note.is_file():
        raise RunFailed(f"{folder}: no checkpoint of a training")
    # The file holds the path as it was when the weights were written; the folder may have moved.
    return folder / Path(note.read_text().strip()).name


def launched(gpus: int, arguments: Sequence[str]) -> list[str]:
    """An ``mmpluld`` command that runs one process for each of that many GPUs."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}"] if gpus > 1 else []
    return [sys.executable, *launch, "-m", "mmpluld", *arguments]


def batch_shares(cfg: Config, gpus: int) -> list[str]:
    """Changes to a config that share out the batch of its training among GPUs, so that they train as one does.

    Raises:
        InputError: The batch cannot be shared evenly.
    """
    loader = cfg.train_dataloader
    size = int(loader.batch_size)
    if gpus < 2:
        return []
    if size % gpus:
        allowed = ", ".join(str(count) for count in range(1, size + 1) if size % count == 0)
        raise InputError(
            f"--gpus {gpus}: batches of {size} cannot be shared evenly, and others would be another recipe; allowed "
            f"here are {allowed}, with --jobs for runs side by side"
        )
    options = [f"train_dataloader.batch_size={size // gpus}"]
    if loader.sampler.get("batch_size") is not None:  # batches of one dataset
        options.append(f"train_dataloader.sampler.batch_size={size // gpus}")
    return options


def refuse_unknown(folder: Path, record: str) -> None:
    """Refuse a folder with files of which no record says what they depend on: they would be taken for ours.

    Raises:
        InputError: It holds files.
    """
    if folder.is_dir() and any(not path.name.startswith(TEMPORARY) for path in folder.iterdir()):
        raise InputError(
            f"{folder}: has files and no {record}, so what they were made from is not known; remove the folder or "
            "choose another --work-dir"
        )


def save_record(path: Path, data: Mapping[str, Any]) -> None:
    """Write what is known of a job, whole or not at all."""
    atomic_write_text(path, json.dumps(data, indent=1) + "\n")
