"""``mmpluld doctor``."""

from __future__ import annotations

import argparse

EXAMPLE = "mmpluld doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""


def run(options: argparse.Namespace) -> int:
    """Print one line per fact."""
    from mmpluld.compat.versions import describe_environment

    for name, value in describe_environment().items():
        print(f"{name:<24} {value}")
    return 0
