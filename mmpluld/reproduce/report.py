"""Reports of a table: Markdown, CSV, and the terminal. Equal runs give equal bytes: no date, no machine."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmpluld.atomic import atomic_path, atomic_write_text
from mmpluld.errors import counted
from mmpluld.io.writers import plain_cell
from mmpluld.reproduce.collect import Noise, PairResult, Part, RowResult, Summary
from mmpluld.reproduce.runner import Run

if TYPE_CHECKING:
    from rich.table import Table as RichTable

__all__ = ["export", "markdown", "pair_line", "runs_csv", "table_csv", "terminal_table", "write_report"]

_NEGATIVES = {
    "rpn": "proposal network or one-stage head",
    "rpn_centre": "the same, centre inside",
    "roi": "RoI head",
    "roi_centre": "the same, centre inside",
}


def write_report(summary: Summary, stem: Path, command: str, data: str | None, twins: bool = False) -> list[Path]:
    """Write ``<stem>.md``, ``<stem>.csv`` and ``<stem>.png``.

    Args:
        summary: What to report.
        stem: Path without suffix.
        command: The command that made it.
        data: One sentence on the data, if they are a phantom.
        twins: Whether the rows are miniatures.

    Returns:
        The files.
    """
    from mmpluld.reproduce.plots import plot_summary

    files = [stem.with_name(stem.name + suffix) for suffix in (".md", ".csv", ".png")]
    atomic_write_text(files[0], markdown(summary, files[2].name, command, data, twins))
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
    levels = [f"{level:g}" for level in summary.levels]
    lines = [["lesions", "kind", "name", "seeds", "quantity", *levels, "average", "p_average", "p_margin", "verdict"]]
    for part in (summary.whole, *summary.specialties):
        lines += [[part.name or "all", *line] for line in _part_lines(part, summary)]
    for row in summary.rows:
        for name, share in summary.negatives.get(row.row.key, {}).items():
            blank = [""] * len(levels)
            lines.append(["all", "negatives", row.row.key, "", name, *blank, _number(100 * share), "", "", ""])
    return _csv(lines)


def _part_lines(part: Part, summary: Summary) -> list[list[str]]:
    lines = []
    for item in part.rows:
        for quantity, values in (("mean", item.mean), ("low", item.low), ("high", item.high)):
            cells = map(_number, 100 * values)
            lines.append(["row", item.row.key, str(len(item.seeds)), quantity, *cells, "", "", ""])
        if item.row.paper and not part.name:
            lines.append(["row", item.row.key, "", "paper", *_paper_cells(item, summary), "", "", ""])
    for pair in part.pairs:
        if pair.difference is None:
            continue
        name = f"{pair.first.key} - {pair.second.key}"
        d = pair.difference
        for quantity, values in (("mean", d.value), ("low", d.low), ("high", d.high), ("detectable", d.detectable)):
            told = [f"{d.p_value[-1]:.4f}", f"{d.p_margin[-1]:.4f}", d.verdict] if quantity == "mean" else [""] * 3
            lines.append(["pair", name, _counts(d.seeds), quantity, *map(_number, 100 * values), *told])
    return lines


def markdown(summary: Summary, picture: str, command: str, data: str | None, twins: bool = False) -> str:
    """The report as Markdown."""
    lines = [f"# {summary.table.title}", ""]
    if twins and data is not None:
        lines += ["Twins on the phantom: miniatures of the paper's detectors, whose figures say nothing about CT.", ""]
    elif twins:
        lines += ["Twins: miniatures of the paper's detectors, whose figures say nothing about these.", ""]
    elif data is not None:
        lines += ["On a phantom, where figures say nothing about CT.", ""]
    headline = ", ".join(f"{summary.levels[index]:g}" for index in summary.headline)
    lines += [
        f"Sensitivity in % at mean false positives per {summary.per}, mean over seeds; the average is over {headline}, "
        "with the 95 % interval over seeds (Student's, with the variance of a run pooled over the rows).",
        "",
        *_row_table(summary),
    ]
    lines += ["", summary.table.note] if summary.table.note else []
    for noise in summary.whole.noises:
        lines += ["", _noise_text(noise, summary)]
    if summary.pairs:
        lines += ["", "## Differences", "", *_pair_section(summary)]
    if summary.specialties:
        lines += ["", "## Specialties", "", *_specialty_section(summary)]
    if summary.negatives:
        lines += ["", "## Negatives on unmarked lesions", "", *_negatives_section(summary)]
    lines += ["", f"![{summary.table.title}]({picture})", "", "## How this was made", "", "```", command, "```", ""]
    lines += [f"mmpluld {', '.join(summary.versions)}."] if summary.versions else []
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
    d = pair.difference
    seeds = _counts(d.seeds) + (" seed" if d.seeds == (1, 1) else " seeds")
    return f"{names}: {d.points} points, p = {_p_value(pair)} ({seeds}): {d.verdict}"


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
    return [item.row.label, f"{len(item.seeds)}{failed}", *values, _ends(item)]


def _ends(item: RowResult) -> str:
    """Interval of the average; a dash where no row has two seeds."""
    if math.isnan(item.low[-1]):
        return "-"
    return f"{100 * item.low[-1]:.2f} to {100 * item.high[-1]:.2f}"


def _paper_cells(item: RowResult, summary: Summary) -> list[str]:
    """The paper's figures and their average; empty where it has none."""
    printed = item.row.paper or (None,) * (len(summary.levels) + 1)
    return ["" if value is None else f"{value:.2f}" for value in printed]


def _noise_text(noise: Noise, summary: Summary) -> str:
    """How far runs scatter, who is left out of the pool, and how many seeds the margin needs; one line each."""
    margin = summary.table.margin
    some = len(noise.tested) < len(summary.rows)  # the others are tested on other lesions
    ends = f"*{noise.tested[0].label}* to *{noise.tested[-1].label}*"
    lines = [f"Rows {ends}, which are tested on the same:"] if some else []
    lines += [
        f"A run's average scatters with a standard deviation of {100 * noise.of_run:.2f} points over seeds "
        f"({counted(noise.rows, 'row')} pooled, {counted(int(noise.freedom), 'degree')} of freedom)."
    ]
    if noise.loud:
        names = ", ".join(f"{row.label} ({100 * value:.2f})" for row, value in noise.loud)
        lines.append(f"Not pooled, scatters clearly more and keeps its own standard deviation: {names}.")
    if noise.quiet:
        names = ", ".join(f"{row.label} ({100 * value:.2f})" for row, value in noise.quiet)
        lines.append(f"Not pooled, scatters clearly less, yet its interval has the pool's: {names}.")
    if noise.of_patients is not None:
        alone = (
            f"the test patients' part of a difference is {100 * noise.of_patients:.2f} points, the median of the pairs"
        )
        if noise.seeds is None:
            lines.append(
                f"No number of seeds makes a difference of {margin:g} points detectable on this test set: {alone}."
            )
        else:
            lines.append(
                f"A difference of {margin:g} points between two rows is detectable from {noise.seeds} seeds of each on "
                f"({alone})."
            )
    return "  \n".join(lines)


def _pair_section(summary: Summary) -> list[str]:
    header = ["pair", "seeds", "difference of averages", "p", "verdict", "s.e. patients", "s.e. seeds", "detectable"]
    rows = []
    for pair in summary.pairs:
        if (d := pair.difference) is None:
            continue
        errors = [_points(value[-1]) for value in (d.se_patients, d.se_seeds, d.detectable)]
        rows.append([pair.names, _counts(d.seeds), d.points, _p_value(pair), d.verdict, *errors])
    left_out = [f"{pair.names} ({pair.reason})" for pair in summary.pairs if pair.difference is None]
    last = [f"Not compared: {'; '.join(left_out)}."] if left_out else []
    if not rows:
        return last
    margin = f"{summary.table.margin:g}"
    paired = any(pair.difference and pair.difference.paired for pair in summary.pairs)
    return [
        *_markdown_table(header, rows),
        "",
        "In percentage points with 95 % interval. Two things could have come out otherwise: the choice of test "
        "patients (bootstrap, the same draws for both rows) and the trainings (pooled variance of a run over the "
        "number of seeds, of both rows). p is two-sided. Verdict at 5 %: ahead if p is under 0.05; else *equivalent "
        f"within the margin* of {margin} points if two one-sided tests say that the difference is smaller (the 90 % "
        f"interval lies within -{margin} to +{margin}); else *inconclusive*. *Detectable* is the true difference "
        "that a repetition would find significant four times in five. With one seed, nothing is known about other "
        "trainings. Not corrected for the number of comparisons."
        + (" Rows that test the same trainings are paired by seed." if paired else ""),
        *(["", *last] if last else []),
    ]


def _specialty_section(summary: Summary) -> list[str]:
    """Averages of all rows by specialty, then the pairs of each, but for those with a row that was not run."""
    parts = summary.specialties
    averages = [
        [
            item.row.label,
            *("-" if math.isnan(cell.mean[-1]) else f"{100 * cell.mean[-1]:.2f} ({_ends(cell)})" for cell in cells),
        ]
        for item, *cells in zip(summary.rows, *(part.rows for part in parts), strict=True)
    ]
    pairs = [
        [part.name, *_specialty_cells(pair)]
        for part in parts
        for pair, of_all in zip(part.pairs, summary.pairs, strict=True)
        if of_all.difference
    ]
    lines = [
        "Average sensitivity in % on lesions of some types alone, with 95 % interval over seeds. False positives, and "
        "so operating points, remain those of the whole test.",
        "",
        *(f"- {part.name}: {part.test_set}" for part in parts),
        "",
        *_markdown_table(["row", *(part.name for part in parts)], averages),
    ]
    if pairs:
        lines += ["", *_markdown_table(["lesions", "pair", "difference", "p", "verdict", "detectable"], pairs)]
    return lines


def _specialty_cells(pair: PairResult) -> list[str]:
    d = pair.difference
    if d is None:
        return [pair.names, f"not compared ({pair.reason})", *["-"] * 3]
    return [pair.names, d.points, _p_value(pair), d.verdict, _points(d.detectable[-1])]


def _negatives_section(summary: Summary) -> list[str]:
    names = [name for name in _NEGATIVES if any(name in told for told in summary.negatives.values())]
    rows = [
        [item.row.label, *(f"{100 * told[name]:.2f}" if name in told else "-" for name in names)]
        for item in summary.rows
        if (told := summary.negatives.get(item.row.key))
    ]
    return [
        "Share in % of the sampled negatives that touch an unmarked lesion, mean over seeds.",
        "",
        *_markdown_table(["row", *(_NEGATIVES[name] for name in names)], rows),
    ]


def _counts(seeds: tuple[int, int]) -> str:
    """Seeds of both rows."""
    return str(seeds[0]) if seeds[0] == seeds[1] else f"{seeds[0]} and {seeds[1]}"


def _p_value(pair: PairResult) -> str:
    assert pair.difference is not None
    value = pair.difference.p_value[-1]
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _points(share: float) -> str:
    """A share in percentage points; a dash for what is not known."""
    return "-" if math.isnan(share) else f"{100 * share:.2f}"


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
