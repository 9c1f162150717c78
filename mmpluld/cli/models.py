"""``mmpluld models``."""

from __future__ import annotations

import argparse
import json

EXAMPLE = "mmpluld models 'pluld-*_deeplesion'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("pattern", nargs="?", default="*", help="part of a name, or a pattern with * and ?")
    parser.add_argument("--json", action="store_true", help="print everything the index says, as JSON")


def run(options: argparse.Namespace) -> int:
    """List the models."""
    from mmpluld.zoo.listing import as_records, format_models, select_models

    models = select_models(options.pattern)
    print(json.dumps(as_records(models), indent=2) if options.json else format_models(models))
    return 0
