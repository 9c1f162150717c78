"""What mining did, as text and as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from mmpluld.atomic import atomic_write_text
from mmpluld.mining.mine import MiningResult
from mmpluld.text_table import text_table
from mmpluld.typing import StrPath

__all__ = ["SCHEMA", "format_result", "save_report"]

SCHEMA = "mmpluld.mining-report/1"

_COUNTS = {"lesions_3d": "3D truth", "boxes_2d": "2D truth", "uncertain_2d": "2D uncertain", "slices": "slices"}


def format_result(result: MiningResult) -> str:
    """The counts after each strategy and, if the truth was given, precision and recall of each; a table each."""
    rows = [["strategy", *_COUNTS.values()]]
    for index, row in enumerate(result.counts):
        sign = "+ " if index else ""
        rows.append([f"{sign}{row['strategy']}", *(f"{row[key]:,}" for key in _COUNTS)])
    text = text_table(rows)
    scores = [row for row in result.scores if row["stratum"] == "all"]
    if not scores:
        return text
    head = ["strategy", "measure", "share", "95 %", "of"]
    lines = [
        [
            row["strategy"], row["measure"], f"{row['value']:.3f}",
            "-" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}", f"{row['total']:,}",
        ]
        for row in scores
    ]  # fmt: skip
    return f"{text}\n\n{text_table([head, *lines])}"


def save_report(path: StrPath, result: MiningResult) -> None:
    """Write counts and scores as JSON; a share of nothing is null."""
    scores = [{key: _plain(value) for key, value in row.items()} for row in result.scores]
    report = {"schema": SCHEMA, "mined": result.annotations.dataset["mined"], "counts": result.counts, "scores": scores}
    atomic_write_text(path, json.dumps(report, indent=1) + "\n")


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
