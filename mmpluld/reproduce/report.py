"""Reports of a table: Markdown, CSV, and the terminal. Equal runs give equal bytes: no date, no machine."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmpluld.atomic import atomic_path, atomic_write_text
from mmpluld.io.writers import plain_cell
from mmpluld.reproduce.collect import PairResult, RowResult, Summary
from mmpluld.reproduce.runner import Run
from mmpluld.version import __version__

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["export", "markdown", "pair_line", "runs_csv", "table_csv", "terminal_table", "write_report"]


def write_report(summary: Summary, stem: Path, command: str, data: str | None) -> list[Path]:
    """Write ``<stem>.md``, ``<stem>.csv`` and ``<stem>.png``.

    Args:
        summary: What to report.
        stem: Path without suffix.
        command: The command that made it.
        data: One sentence on the data, if there is one.

    Returns:
        The files.
    """
    from mmpluld.reproduce.plots import plot_summary

    files = [stem.with_name(stem.name + suffix) for suffix in (".md", ".csv", ".png")]
    atomic_write_text(files[0], markdown(summary, files[2].name, command, data))
    atomic_write_text(files[1], table_csv(summary))
    plot_summary(summary, files[2])
    return files


def export(files: Sequence[Path], runs: Iterable[Run], folder: Path) -> Path:
    """Copy a report, and the figures of its runs without detections, to a folder that can be committed.

    Returns:
        The folder ``<folder>/<stem of the report>``.
    """
    target = folder / files[0].stem
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        with atomic_path(target / file.name) as temporary:
            temporary.write_bytes(file.read_bytes())
    atomic_write_text(target / "runs.csv", runs_csv(runs))
    return target


def runs_csv(runs: Iterable[Run]) -> str:
    """One line per finished run: row, seed, config, sensitivities and average as fractions, seconds."""
    lines: list[list[str]] = []
    for run in sorted(runs, key=lambda run: (run.row.key, run.seed)):
        result = run.result()
        if run.state != "done" or result is None:
            continue
        if not lines:
            names = [f"sens@{level:g}" for level in result["levels"]]
            lines.append(["row", "seed", "config", *names, "average", "train_s", "test_s", "version"])
        values = [f"{value:.6f}" for value in (*result["sensitivity"], result["average"])]
        seconds = [f"{result['seconds'][stage]:.0f}" for stage in ("train", "test")]
        lines.append([run.row.key, str(run.seed), run.config, *values, *seconds, result["version"]])
    return _csv(lines)


def table_csv(summary: Summary) -> str:
    """Rows and pairs with all intervals, in per cent; the paper's figures in lines of their own."""
    header = ["kind", "name", "seeds", "quantity", *(f"{level:g}" for level in summary.levels), "average", "p_average"]
    lines = [header]
    for item in summary.rows:
        for quantity, values in (("mean", item.mean), ("low", item.low), ("high", item.high)):
            lines.append(["row", item.row.key, str(len(item.seeds)), quantity, *map(_number, 100 * values), ""])
        if item.row.paper:
            lines.append(["row", item.row.key, "", "paper", *_paper_cells(item, summary), ""])
    for pair in summary.pairs:
        if pair.difference is None:
            continue
        name = f"{pair.first.key} - {pair.second.key}"
        d = pair.difference
        for quantity, values in (("mean", d.value), ("low", d.low), ("high", d.high), ("detectable", d.detectable)):
            p = f"{d.p_value[-1]:.4f}" if quantity == "mean" else ""
            lines.append(["pair", name, str(d.seeds), quantity, *map(_number, 100 * values), p])
    return _csv(lines)


def markdown(summary: Summary, picture: str, command: str, data: str | None) -> str:
    """The report as Markdown."""
    lines = [f"# {summary.table.title}", ""]
    if data is not None:
        lines += ["Twins on the phantom: miniatures of the paper's detectors, whose figures say nothing about CT.", ""]
    headline = ", ".join(f"{summary.levels[index]:g}" for index in summary.headline)
    lines += [
        f"Sensitivity in % at mean false positives per {summary.per}, mean over seeds; the average is over {headline}, "
        "with the 95 % interval over seeds (Student's).",
        "",
        *_row_table(summary),
    ]
    lines += ["", summary.table.note] if summary.table.note else []
    if summary.pairs:
        lines += ["", "## Differences", "", *_pair_section(summary)]
    lines += ["", f"![{summary.table.title}]({picture})", "", "## How this was made", "", "```", command, "```", ""]
    lines += [f"mmpluld {__version__}."]
    lines += [f"Test set: {summary.test_set}."] if summary.test_set else []
    lines += [data] if data is not None else []
    return "\n".join(lines) + "\n"


def terminal_table(summary: Summary) -> RichTable:
    """The rows, and the average of the paper beside them, for a terminal."""
    from rich.table import Table

    view = Table(title=summary.table.title)
    for index, name in enumerate([*_row_header(summary), "paper avg"]):
        view.add_column(name, justify="right" if index else "left", no_wrap=True)
    for item in summary.rows:
        view.add_row(*_row_cells(item, summary), _paper_cells(item, summary)[-1])
    return view


def pair_line(pair: PairResult) -> str:
    """One line on a comparison."""
    names = f"{pair.first.label} - {pair.second.label}"
    if pair.difference is None:
        return f"{names}: not compared ({pair.reason})"
    return f"{names}: {_interval(pair)} points, p = {_p_value(pair)} ({_seeds(pair.difference.seeds)})"


def _row_table(summary: Summary) -> list[str]:
    """Rows with the paper's figures beside ours, if it has any."""
    header, cells = _row_header(summary), [_row_cells(item, summary) for item in summary.rows]
    if any(item.row.paper for item in summary.rows):
        header += [*(f"{level:g} (paper)" for level in summary.levels), "average (paper)"]
        cells = [own + _paper_cells(item, summary) for own, item in zip(cells, summary.rows, strict=True)]
    return _markdown_table(header, cells)


def _row_header(summary: Summary) -> list[str]:
    return ["row", "seeds", *(f"{level:g}" for level in summary.levels), "average", "95 %"]


def _row_cells(item: RowResult, summary: Summary) -> list[str]:
    failed = f", {item.failed} failed" if item.failed else ""
    if not item.seeds:
        return [item.row.label, item.state, *["-"] * (len(summary.levels) + 2)]
    values = [f"{100 * value:.2f}" for value in item.mean]
    ends = "-" if len(item.seeds) == 1 else f"{100 * item.low[-1]:.2f} to {100 * item.high[-1]:.2f}"
    return [item.row.label, f"{len(item.seeds)}{failed}", *values, ends]


def _paper_cells(item: RowResult, summary: Summary) -> list[str]:
    """The paper's figures and their average; empty where it has none."""
    printed = item.row.paper or (None,) * (len(summary.levels) + 1)
    return ["" if value is None else f"{value:.2f}" for value in printed]


def _pair_section(summary: Summary) -> list[str]:
    header = ["pair", "seeds", "difference of averages", "p", "s.e. patients", "s.e. seeds", "detectable"]
    rows = []
    for pair in summary.pairs:
        names = f"{pair.first.label} − {pair.second.label}"
        if pair.difference is None:
            rows.append([names, "0", *["-"] * 5])
            continue
        d = pair.difference
        errors = [f"{100 * value[-1]:.2f}" for value in (d.se_patients, d.se_seeds, d.detectable)]
        rows.append([names, str(d.seeds), _interval(pair), _p_value(pair), *errors])
    return [
        *_markdown_table(header, rows),
        "",
        "In percentage points with 95 % interval. Paired over seeds and patients: the standard error joins a bootstrap "
        "over test patients and the spread over seeds; p is two-sided. *Detectable* is the true difference that a "
        "repetition would find significant four times in five. With one seed, nothing is known about other trainings. "
        "Not corrected for the number of comparisons.",
    ]


def _interval(pair: PairResult) -> str:
    d = pair.difference
    assert d is not None
    return f"{100 * d.value[-1]:+.2f} ({100 * d.low[-1]:+.2f} to {100 * d.high[-1]:+.2f})"


def _p_value(pair: PairResult) -> str:
    assert pair.difference is not None
    value = pair.difference.p_value[-1]
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _number(value: float) -> str:
    """Three digits; empty for what does not exist."""
    return "" if math.isnan(value) else f"{value:.3f}"


def _csv(lines: Iterable[Sequence[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(map(plain_cell, line) for line in lines)
    return stream.getvalue()


def _markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """First column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return ["| " + " | ".join(cell or "-" for cell in line) + " |" for line in lines]
