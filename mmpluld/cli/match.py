"""``mmpluld match``."""

from __future__ import annotations

import argparse

from mmpluld.cli.numbers import score, whole
from mmpluld.cli.outputs import OutputFile

EXAMPLE = (
    "mmpluld match data/phantom/annotations/val.json --embeddings embeddings-val --truth data/phantom/truth/val.json"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("annotations", help="annotation file, of validation patients")
    parser.add_argument(
        "--embeddings", metavar="DIR", help="what `mmpluld embed` made of it (default: evaluate positions alone)"
    )
    parser.add_argument(
        "--truth",
        metavar="FILE",
        help="annotation file of all lesions with their numbers within the patient, such as a phantom's "
        "truth/val.json (default: the numbers of ANNOTATIONS)",
    )
    parser.add_argument(
        "--proposals",
        metavar="DIR",
        help="match annotated lesions with the tracklets of these proposals (default: with one another); needs --truth",
    )
    parser.add_argument(
        "--least-precision",
        type=score,
        default=0.9,
        metavar="P",
        help="choose the delta with the largest recall whose precision is at least this (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pairs",
        type=whole(1),
        metavar="N",
        help="of each lesion take only the N nearest candidates in another volume, as `mmpluld mine` with the same "
        "option (default: all within delta)",
    )
    parser.add_argument(
        "--box-score",
        type=score,
        default=0.0,
        metavar="S",
        help="tracklets begin and end with a box that scores at least this, as with the same option of `mmpluld mine` "
        "(default: %(default)s)",
    )
    parser.add_argument("--out", action=OutputFile, metavar="FILE", help="write the rows as JSON")


def run(options: argparse.Namespace) -> int:
    """Evaluate, print the table and say which delta to mine with."""
    from mmpluld.mining.match_table import format_rows, match_files

    rows = match_files(
        options.annotations,
        options.embeddings,
        truth=options.truth,
        proposals=options.proposals,
        least_precision=options.least_precision,
        max_pairs=options.max_pairs,
        box_score=options.box_score,
        out=options.out,
    )
    print(format_rows(rows))
    chosen = rows[0]
    if chosen.delta is None:
        print(f"no delta of {chosen.space} reaches a precision of {options.least_precision:g}")
    else:
        print(f"delta of {chosen.space} for a precision of at least {options.least_precision:g}: {chosen.delta:.4g}")
    return 0
