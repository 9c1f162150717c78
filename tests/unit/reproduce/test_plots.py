"""Curves of a table that has several."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.figure import Figure

from mmpluld.reproduce.collect import collect
from mmpluld.reproduce.plots import _lines, plot_summary
from mmpluld.reproduce.tables import TABLES, Table

ROWS = tuple(
    replace(TABLES["table1"].row(key), line=line, x=x)
    for key, line, x in (
        ("a3d", "LUNA16, joint", 50.0),
        ("pluld-a3d", "LUNA16, joint", 25.0),
        ("alignshift", "LUNA16, alone", 50.0),
        ("pluld-alignshift", "LiTS, joint", 25.0),
    )
)
TABLE = Table("lines", "Three curves", ROWS, x_label="% of the patients")


def test_each_line_is_a_curve_in_the_order_of_x(planned, finish, tmp_path):
    runs = planned(TABLE, seeds=2)
    for run in runs:
        if run.row.key != "pluld-alignshift":
            finish(run, 0.5)
    summary = collect(TABLE, runs)
    axes = Figure().add_subplot()
    _lines(axes, summary)
    curves = {curve.get_label(): curve for curve in axes.lines}
    assert list(curves) == ["LUNA16, joint", "LUNA16, alone", "LiTS, joint"]
    assert curves["LUNA16, joint"].get_xdata().tolist() == [25, 50]
    assert len(curves["LiTS, joint"].get_xdata()) == 0  # not run
    joint, alone, other = curves.values()
    assert joint.get_color() == alone.get_color() != other.get_color()
    assert joint.get_linestyle() != alone.get_linestyle()
    plot_summary(summary, tmp_path / "lines.png")
    assert (tmp_path / "lines.png").stat().st_size > 5000


def test_the_curves_of_figure_7_are_told_apart():
    axes = Figure().add_subplot()
    _lines(axes, collect(TABLES["lens-figure7"], []))
    looks = {(curve.get_color(), curve.get_linestyle(), curve.get_marker()) for curve in axes.lines}
    assert len(looks) == len(axes.lines) == 9
