"""``mmpluld check-data``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmpluld.cli.outputs import OutputFile
from mmpluld.cli.units import add_units
from mmpluld.errors import InputError, counted

EXAMPLE = "mmpluld check-data data/luna16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("root", help="folder of a converted dataset, with annotations/ in it")
    parser.add_argument(
        "--all-slices",
        action="store_true",
        help="read every slice (default: first, middle, last and key slices of each volume)",
    )
    add_units(parser)
    parser.add_argument("--json", action=OutputFile, metavar="OUT", help="write all problems as JSON")


def run(options: argparse.Namespace) -> int:
    """Check and print every problem; 2 if there are any."""
    import json

    from mmpluld.atomic import atomic_write_text
    from mmpluld.datasets.check import check_dataset

    if options.json and Path(options.json).resolve().parent == Path(options.root, "annotations").resolve():
        raise InputError(f"{options.json}: there the annotation files are; write the problems elsewhere")
    check = check_dataset(options.root, all_slices=options.all_slices, units=options.units)
    if options.json:
        atomic_write_text(options.json, json.dumps(check.as_dict(), indent=1) + "\n")
    for problem in check.problems:
        print(problem)
    for note in check.notes:
        print(f"note: {note}")
    for name, (volumes, lesions) in check.files.items():
        print(f"{name}: {counted(lesions, 'lesion')} in {counted(volumes, 'volume')}")
    count = len(check.problems)
    print(f"{check.slices_read} slices read, {count or 'no'} problem{'' if count == 1 else 's'}")
    return 2 if count else 0
