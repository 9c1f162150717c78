"""Work on patients in several processes, with results in the patients' order."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from mmpluld.compat.system import start_method, usable_cores

__all__ = ["in_order"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(job: Callable[[Item], Result], items: Sequence[Item], workers: int | None) -> Iterator[Result]:
    """Results of a job, one after the other in the order of the items, worked out in processes if that pays.

    Args:
        job: Function that can be pickled; it may use NumPy, but no torch.
        items: What it takes, one each.
        workers: Processes; None takes one per core.
    """
    count = min(workers or usable_cores(), len(items))
    if count <= 1:
        yield from map(job, items)
        return
    # A fork is safe here: the workers use NumPy only.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context(start_method())) as pool:
        try:
            # Not pool.map, which cancels what is left: the pool's thread fails over that once its workers have ended.
            waiting = deque(pool.submit(job, item) for item in items)
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            for worker in multiprocessing.active_children():  # else the pool waits for what they have begun
                worker.terminate()
            raise
