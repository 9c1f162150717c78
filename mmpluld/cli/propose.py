"""``mmpluld propose``."""

from __future__ import annotations

import argparse

from mmpluld.cli.changes import add_changes
from mmpluld.cli.detect import RULES
from mmpluld.cli.device import add_device
from mmpluld.cli.launcher import add_launcher
from mmpluld.cli.numbers import natural, seed, whole
from mmpluld.cli.outputs import OutputFolder
from mmpluld.errors import InputError

EXAMPLE = "mmpluld propose CONFIG work_dirs/lens/epoch_8.pth --out proposals"

_LINKING = ("link_score_thr", "iou_thr", "max_gap")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("config", help="config file, or the name of a config of the zoo")
    parser.add_argument("checkpoint", help="weights of the config: file, web address, or zoo:NAME")
    parser.add_argument(
        "--out",
        required=True,
        action=OutputFolder,
        metavar="DIR",
        help="folder of the proposals; what an earlier call with the same inputs has made in it stays",
    )
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        help="annotation file whose volumes to examine (default: that of the config's first training dataset)",
    )
    parser.add_argument(
        "--data-root", metavar="ROOT", help="folder that the volumes' paths start from (default: that dataset's)"
    )
    parser.add_argument(
        "--fold", type=_fold, metavar="k/K", help="only the volumes of the patients of fold k of K, from 0"
    )
    parser.add_argument(
        "--fold-seed", type=seed, metavar="N", help="of the dealing of patients to the folds of --fold (default: 0)"
    )
    rules = parser.add_argument_group(
        "rules of tracklets", "default: as the config is tested, else the value in brackets"
    )
    for name in _LINKING:
        kind, text = RULES[name]
        rules.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text.replace(_NOT_HERE, ""))
    add_device(parser)
    parser.add_argument(
        "--batch-size", type=whole(1), default=1, metavar="N", help="slices examined at once (default: %(default)s)"
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="arithmetic of the network")
    add_changes(parser)
    add_launcher(parser)


_NOT_HERE = ", not above --score-thr"


def run(options: argparse.Namespace) -> int:
    """Propose, and say what is there now."""
    from mmpluld.inference.propose import propose

    if options.fold is None and options.fold_seed is not None:
        raise InputError(f"--fold-seed {options.fold_seed}: deals patients to folds; give --fold k/K as well")
    given = {name: getattr(options, name) for name in _LINKING}
    done = propose(
        options.config,
        options.checkpoint,
        options.out,
        ann_file=options.annotations,
        data_root=options.data_root,
        fold=options.fold,
        fold_seed=options.fold_seed or 0,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        twin=options.twin,
        cfg_options=options.cfg_options,
        launcher=options.launcher,
        local_rank=options.local_rank,
        **{name: value for name, value in given.items() if value is not None},
    )
    print(done.describe("examined"))
    return 0


def _fold(text: str) -> tuple[int, int]:
    """A fold and the number of folds."""
    first, _, second = text.partition("/")
    try:
        return natural(first), whole(2)(second)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no fold; give k/K, such as 0/5 to 4/5") from None
