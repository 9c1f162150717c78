"""``mmpluld curves``."""

from __future__ import annotations

import argparse

from mmpluld.cli.outputs import OutputPicture

EXAMPLE = "mmpluld curves work_dirs/a3d work_dirs/pluld --out curves.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("work_dirs", nargs="+", metavar="WORK_DIR", help="work folder of a training; several compare")
    parser.add_argument(
        "--out", action=OutputPicture, default="curves.png", help="picture: .png, .svg or .pdf (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> int:
    """Read the logs, draw the curves, say where each training stands."""
    from mmpluld.visualization.curves import plot_curves, read_log

    logs = [read_log(folder) for folder in options.work_dirs]
    plot_curves(logs, options.out)
    for log in logs:
        print(log.summary())
    print(f"{options.out}: curves of {len(logs)} training" + ("s" if len(logs) > 1 else ""))
    return 0
