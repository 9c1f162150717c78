"""Curves of trainings from the logs that MMEngine keeps in their work folders."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpluld.errors import InputError
from mmpluld.structures.text_files import read_text
from mmpluld.typing import StrPath
from mmpluld.visualization.figures import COLOURS, MARKERS, figure_at, tidy

__all__ = ["TrainingLog", "plot_curves", "read_log"]

# Of training what is not a course of learning; of validation the levels that an average sums up.
_COUNTERS = ("epoch", "iter", "step", "time", "data_time", "memory", "base_lr")
_COLUMNS = 3

Series = tuple[list[float], list[float]]


@dataclass
class TrainingLog:
    """What a training has logged, in order.

    Attributes:
        name: Its work folder, as given.
        train: Records of training by iteration.
        val: Records of validation by epoch, or by iteration where training does not count epochs.
    """

    name: str
    train: dict[int, Mapping[str, float]] = field(default_factory=dict)
    val: dict[int, Mapping[str, float]] = field(default_factory=dict)

    def keys(self, part: str) -> list[str]:
        """Names of the values of ``train`` or ``val`` that are worth a curve, in the order of the log."""
        records = self.train if part == "train" else self.val
        found = dict.fromkeys(key for record in records.values() for key in record)
        return [key for key in found if key not in _COUNTERS and "/sens@" not in key and "/strict_sens@" not in key]

    def series(self, part: str, key: str) -> Series:
        """Places and values of a curve."""
        records = self.train if part == "train" else self.val
        pairs = [(place, record[key]) for place, record in sorted(records.items()) if key in record]
        return [float(place) for place, _ in pairs], [value for _, value in pairs]

    def summary(self) -> str:
        """Where the training stands and what its best validation was, in one line."""
        places, losses = self.series("train", "loss")
        text = f"{self.name}: iteration {places[-1]:.0f}, loss {losses[-1]:.4f}" if places else self.name
        for key in self.keys("val"):
            epochs, values = self.series("val", key)
            known = [pair for pair in zip(values, epochs, strict=True) if not math.isnan(pair[0])]
            if key.endswith("/avg") and known:
                value, epoch = max(known, key=lambda pair: (pair[0], -pair[1]))
                text += f"; best {key} {value:.4f} after epoch {epoch:.0f}"
        return text


def read_log(work_dir: StrPath) -> TrainingLog:
    """Read what a training has logged, over all its resumptions.

    Every call of a training logs into a folder of its own, named by the time. A later one replaces what earlier ones
    logged from its first iteration on: the same steps again after a kill, or all of a former training.

    Args:
        work_dir: Work folder of a training, or one of those folders within it.

    Raises:
        InputError: There is no log, or it is damaged.
    """
    folder = Path(work_dir)
    files = sorted(folder.glob("*/vis_data/scalars.json")) or sorted(folder.glob("vis_data/scalars.json"))
    log = TrainingLog(str(work_dir))
    for path in files:
        train = [record for record in _records(path) if "iter" in record]
        if train:
            first, epoch = train[0]["iter"], train[0].get("epoch", train[0]["iter"])
            log.train = {place: record for place, record in log.train.items() if place < first}
            log.val = {place: record for place, record in log.val.items() if place < epoch}
        log.train.update({int(record["iter"]): record for record in train})
        log.val.update({int(record["step"]): record for record in _records(path) if "iter" not in record})
    if not log.train:
        raise InputError(
            f"{work_dir}: no log of a training here (TIME/vis_data/scalars.json); give a `train --work-dir`"
        )
    return log


def _records(path: Path) -> Iterator[dict[str, Any]]:
    lines = read_text(path, "the log of a training").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)  # not parse_json: a diverged training logs NaN
            complete = (
                isinstance(record, dict)
                and all(isinstance(record.get(key, 0), int) for key in ("step", "iter"))
                and "step" in record
            )
        except (ValueError, RecursionError):
            complete = False
        if complete:
            yield record
        elif number < len(lines):  # the last one may be cut off where the process was killed
            raise InputError(f"{path}: line {number} is no log record; restore the file")


def plot_curves(logs: Sequence[TrainingLog], path: StrPath) -> None:
    """Plot losses, learning rate and validation metrics, a panel for each value and a colour for each training.

    Args:
        logs: At least one.
        path: Picture to write, .png, .svg or .pdf.

    Raises:
        InputError: If the suffix is unknown.
    """
    panels = [
        (part, key) for part in ("train", "val") for key in dict.fromkeys(key for log in logs for key in log.keys(part))
    ]
    # The sum of the losses first, then its parts, then the rest as logged; validation last.
    panels.sort(key=lambda panel: (panel[0], panel[1] != "loss", "loss" not in panel[1]))
    by_epoch = all("epoch" in record for log in logs for record in log.train.values())
    rows = math.ceil(len(panels) / _COLUMNS)
    with figure_at(path, (4.0 * _COLUMNS, 2.5 * rows + 0.3 * len(logs)), font_size=9) as figure:
        grid = figure.subplots(rows, _COLUMNS, squeeze=False).flat
        for (part, key), axes in zip(panels, grid, strict=False):
            for number, log in enumerate(logs):
                steps, values = log.series(part, key)
                marked = part == "val" or len(steps) == 1  # no line can be seen of a single point
                marker = MARKERS[number % len(MARKERS)] if marked else ""
                colour = COLOURS[number % len(COLOURS)]
                axes.plot(steps, values, color=colour, marker=marker, markersize=4, linewidth=1.4)
            axes.set_title(key, fontsize=9, loc="left")
            axes.set_xlabel("epoch" if part == "val" and by_epoch else "iteration")
            tidy(axes)
        for axes in list(grid):  # those that are left over
            axes.remove()
        handles = figure.axes[0].lines
        figure.legend(handles, [log.name for log in logs], loc="outside upper left", frameon=False)
