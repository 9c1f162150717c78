"""How far the runs of a table are, live in a terminal; nothing where there is none."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mmpluld.reproduce.runner import Run

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["live_progress", "standing"]

_EPOCH = re.compile(rb"Epoch\(train\) +\[(\d+)\]\[ *(\d+)/(\d+)\].*?eta: (\S+)")
_TAIL = 1 << 14  # bytes; log lines are a few hundred


@contextmanager
def live_progress(runs: Sequence[Run], jobs: int) -> Iterator[Callable[[], None]]:
    """Show a table of rows and seeds while the block runs; yields the function that refreshes it."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.live import Live

    before, begin = sum(run.state == "done" for run in runs), time.monotonic()
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:

        def refresh() -> None:
            live.update(_view(runs, _remaining(runs, before, time.monotonic() - begin, jobs)), refresh=True)

        refresh()
        yield refresh


def standing(run: Run) -> str:
    """One word or two on a run: its state, and the epoch of a training."""
    if run.state != "training":
        return run.state
    marks = _EPOCH.findall(_tail(run.log))
    if not marks:
        return "training"
    epoch, _, _, eta = marks[-1]
    return f"epoch {int(epoch)}, {eta.decode()} left"


def _tail(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL))
        return stream.read()


def _remaining(runs: Sequence[Run], before: int, elapsed: float, jobs: int) -> str:
    """Time to go, from the runs finished since the start; empty until there is one."""
    done = sum(run.state == "done" for run in runs) - before
    left = sum(run.state not in ("done", "failed") for run in runs)
    if done < min(jobs, len(runs)) or not left:
        return ""
    minutes = elapsed / done * left / 60
    return f", about {minutes:.0f} min to go" if minutes < 90 else f", about {minutes / 60:.1f} h to go"


def _view(runs: Sequence[Run], remaining: str) -> RichTable:
    from rich.table import Table

    seeds = sorted({run.seed for run in runs})
    done = sum(run.state == "done" for run in runs)
    view = Table(title=f"{done} of {len(runs)} runs done{remaining}")
    for name in ("row", *(f"seed {seed}" for seed in seeds)):
        view.add_column(name, no_wrap=True)
    cells = {(run.row.key, run.seed): standing(run) for run in runs}
    for key, label in dict.fromkeys((run.row.key, run.row.label) for run in runs):
        view.add_row(label, *(cells.get((key, seed), "") for seed in seeds))
    return view
