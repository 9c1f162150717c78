"""Pictures, plots and the HTML report; free of torch and mmdet."""

from mmpluld.visualization.froc_plot import plot_froc
from mmpluld.visualization.overlays import write_overlays
from mmpluld.visualization.report import render_report, write_report

__all__ = ["plot_froc", "render_report", "write_overlays", "write_report"]
