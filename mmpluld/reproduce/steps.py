"""The steps between two trainings of LENS: propose, embed, mine, and what the false-positive reduction learns from.

Each step is one ``mmpluld`` command, for one seed, in ``WORK_DIR/steps/<detector>/<step>/seed<k>/``. Its record says
what it depends on: its own settings and, through those it needs, all steps and trainings before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmpluld.reproduce.graph import Caller, Job, identity_digest, last_weights, launched
from mmpluld.reproduce.twin_data import digest

__all__ = ["Step", "step_of"]


def _no_shares(_: int) -> list[str]:
    return []


@dataclass(eq=False, kw_only=True)
class Step(Job):
    """One command between two trainings.

    Attributes:
        title: What it is called.
        arguments: Gives the arguments of ``mmpluld``; asked when all it needs is done.
        makes: File that is there when the command has ended well.
        parallel: Whether the command shares out its work among processes.
        shares: What it is told beside, by how many these are.
    """

    title: str
    arguments: Callable[[], Sequence[str]]
    makes: Path
    parallel: bool = False
    shares: Callable[[int], list[str]] = _no_shares

    record_name = "step.json"

    @property
    def name(self) -> str:
        """Its title."""
        return self.title

    @property
    def log(self) -> Path:
        """Output of its command."""
        return self.folder / "step.log"

    @property
    def product(self) -> Path:
        """What it makes; of a training the weights, of a folder the file that says what it is of."""
        return last_weights(self.folder) if self.makes.name == "last_checkpoint" else self.makes

    def is_done(self) -> bool:
        """Whether the command has ended well and what it makes is there."""
        return bool((self.folder / self.record_name).is_file() and self.record.get("done") and self.makes.exists())

    def perform(self, caller: Caller) -> None:
        """Run the command; it goes on where an interrupted one stopped."""
        gpus = caller.gpus if self.parallel else min(caller.gpus, 1)
        command = launched(gpus, self.arguments())
        command += [*self.shares(gpus), "--launcher", "pytorch"] if gpus > 1 else []
        with self.timed("step"):
            caller.call(command, self.log)
        self.record["done"] = True
        self.note_made()
        self.save()


def step_of(
    title: str,
    seed: int,
    folder: Path,
    needs: Sequence[Job],
    settings: Sequence[str],
    arguments: Callable[[], Sequence[str]],
    makes: Path,
    *,
    parallel: bool = False,
    shares: Callable[[int], list[str]] = _no_shares,
    files: Sequence[Path] = (),
) -> Step:
    """A step whose identity is that of what it needs, and its own settings.

    Args:
        title, seed, folder, needs, arguments, makes, parallel, shares: See :class:`Step` and its base.
        settings: What of the command changes the result; not where things lie.
        files: What it reads beside the results of the steps that it needs.

    Raises:
        InputError: One of the files is missing.
    """
    identity = {"step": title, "settings": list(settings), "seed": seed, "needs_sha256": identity_digest(needs)}
    identity |= {"data_sha256": digest(files)} if files else {}
    return Step(
        seed=seed,
        folder=folder,
        identity=identity,
        needs=list(needs),
        title=title,
        arguments=arguments,
        makes=makes,
        parallel=parallel,
        shares=shares,
    )
