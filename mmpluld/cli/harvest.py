"""``mmpluld harvest``."""

from __future__ import annotations

import argparse

from mmpluld.cli.numbers import score
from mmpluld.cli.outputs import OutputFile
from mmpluld.errors import InputError, counted, printable

EXAMPLE = "mmpluld harvest mined.json proposals_fold0 proposals_fold1 --out candidates/train.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("annotations", metavar="ANN", help="annotation file, as it is or mined")
    parser.add_argument(
        "proposals",
        nargs="+",
        metavar="PROPOSALS",
        help="folder that `mmpluld propose` wrote, with a detector that was not trained on its volumes; several "
        "folders hold different volumes, such as those of one fold each",
    )
    parser.add_argument(
        "--out", required=True, action=OutputFile, metavar="FILE", help="file of candidates to write (.json)"
    )
    parser.add_argument(
        "--theta",
        type=score,
        default=0.5,
        metavar="IOU",
        help="a proposal is a lesion above this overlap on the lesion's key slice (default: %(default)s)",
    )
    parser.add_argument(
        "--theta-fp",
        type=score,
        default=0.3,
        metavar="IOU",
        help="a proposal is a false positive below this overlap with every lesion, on every slice (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--min-score",
        type=score,
        default=0.0,
        metavar="SCORE",
        help="leave out proposals that score less (default: %(default)s, none)",
    )


def run(options: argparse.Namespace) -> int:
    """Harvest, and count what was found."""
    from mmpluld.mining.harvest import HarvestRules, harvest_files

    if not str(options.out).endswith(".json"):
        raise InputError(f"--out {options.out}: candidates are a .json file; change the suffix")
    rules = HarvestRules(options.theta, options.theta_fp, options.min_score)
    found = harvest_files(options.annotations, options.proposals, rules)
    found.save(options.out)
    lesions = sum(item.lesion is not None for item in found.candidates)
    print(
        f"{printable(str(options.out))}: {counted(lesions, 'proposal')} of lesions, "
        f"{counted(len(found.candidates) - lesions, 'false positive')} in {counted(len(found.volumes), 'volume')}"
    )
    return 0
