"""Options of the commands that reduce false positives."""

from __future__ import annotations

import argparse


def add_fpr(parser: argparse.ArgumentParser, required: bool) -> None:
    """Declare the weights of false-positive reduction, its config and what becomes of its scores."""
    group = parser.add_argument_group("false-positive reduction")
    group.add_argument(
        "--fpr",
        required=required,
        metavar="WEIGHTS",
        help="weights of false-positive reduction: file, web address, or zoo:NAME"
        + ("" if required else " (default: those of the test or of the bundle; else none)"),
    )
    group.add_argument("--fpr-config", metavar="NAME", help="its config (default: that of these weights)")
    group.add_argument(
        "--fpr-mode",
        choices=["average", "alone"],
        help="score of a finding: mean of the detector's and its own, or its own (default: the bundle's or average)",
    )
