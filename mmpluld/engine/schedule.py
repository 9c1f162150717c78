"""Whether a schedule fits the training that it is for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from mmpluld.errors import InputError

__all__ = ["check_schedule", "schedulers"]


def check_schedule(cfg: Config) -> str | None:
    """Refuse a schedule that would never move.

    Returns:
        What to say of one that is for a longer or shorter training; None if there is nothing to say.

    Raises:
        InputError: It counts epochs, in a loop over iterations.
    """
    loop = cfg.get("train_cfg") or {}
    by_epoch = loop.get("by_epoch", "max_iters" not in loop)
    reaches = []
    for place, scheduler in schedulers(cfg.get("param_scheduler")):
        if not isinstance(scheduler, Mapping) or not scheduler.get("by_epoch", True):
            continue
        if not by_epoch and not scheduler.get("convert_to_iter_based"):
            raise InputError(
                f"{place}: {scheduler.get('type')} counts epochs, and train_cfg is a loop over iterations, in which it "
                "never moves; set its by_epoch to False, and begin, end and milestones in iterations"
            )
        reaches.append((_end(scheduler), max(scheduler.get("milestones") or [0], default=0)))
    epochs = loop.get("max_epochs")
    if not (by_epoch and isinstance(epochs, int) and reaches):
        return None
    end, milestone = (max(values) for values in zip(*reaches, strict=True))
    if milestone >= epochs:
        return f"param_scheduler: has a milestone after epoch {milestone}, and train_cfg.max_epochs is {epochs}"
    if end not in (0, epochs):
        return f"param_scheduler: ends after epoch {end}, and train_cfg.max_epochs is {epochs}; " + (
            "its last value stays until then" if end < epochs else "the training ends before it does"
        )
    return None


def schedulers(given: Any) -> Iterator[tuple[str, Any]]:
    """Place and value of each scheduler, which may be the only one, in a list, or by the name of its optimizer."""
    named = given.items() if isinstance(given, Mapping) and "type" not in given else [("", given)]
    for name, some in named:
        place = f"param_scheduler.{name}".rstrip(".")
        if isinstance(some, (list, tuple)):
            yield from ((f"{place}[{number}]", item) for number, item in enumerate(some))
        elif some is not None:
            yield place, some


def _end(scheduler: Mapping[str, Any]) -> int:
    """Epoch after which it changes nothing; 0 where it has none of its own."""
    ends = [scheduler.get(name) for name in ("end", "T_max")]
    return max((int(end) for end in ends if isinstance(end, int | float) and math.isfinite(end)), default=0)
