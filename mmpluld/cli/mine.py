"""``mmpluld mine``."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from mmpluld.cli.numbers import not_negative, score, whole
from mmpluld.cli.outputs import OutputFile
from mmpluld.errors import InputError
from mmpluld.mining.options import MatchBy, Several
from mmpluld.mining.strategy_table import ORACLES, STRATEGIES

EXAMPLE = (
    "mmpluld mine annotations/train.json proposals --strategies cross-slice intra-patient cross-dataset unlabeled \\\n"
    "      --embeddings embeddings --out annotations/train_mined.json"
)

# Fields of MiningOptions: how each is read, and what it is.
RULES = {
    "theta": (score, "overlap (IoU) above which a tracklet is an annotated lesion's, 0..1 (0.5)"),
    "delta": (not_negative, "distance below which a tracklet is a lesion of another volume (0.15)"),
    "sigma": (score, "score above which boxes of single-type experts are uncertain, 0..1 (0.5)"),
    "uncertain_iou": (score, "overlap with a certain lesion above which they are not, 0..1 (0: any overlap)"),
    "conflict_share": (
        score,
        "part of the smaller box above which a mined positive box is dropped where another lesion's is, 0..1 (0.5)",
    ),
    "conflict_iou": (score, "overlap above which an uncertain box is dropped where one is already, 0..1 (0.5)"),
    "box_score": (score, "score of a 2D box with which tracklets begin and end, 0..1 (0: as they were linked)"),
    "depth": (
        not_negative,
        "farthest of a lesion's boxes along z from its annotated or best slice, in longer sides of its box (any)",
    ),
    "centre_iou": (
        score,
        "overlap with its box on its annotated or best slice, laid over theirs, that a lesion's boxes exceed, 0..1 "
        "(any)",
    ),
    "max_pairs": (whole(1), "most tracklets of a volume that an annotation matches, the nearest (all)"),
    "continuity": (whole(1), "adjacent-slices: fewest slices of a tracklet (3)"),
    "reach": (whole(1), "adjacent-slices: slices to either side (1)"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("annotations", metavar="ANN", help="annotation file; may have been mined before")
    parser.add_argument(
        "proposals",
        metavar="PROPOSALS",
        nargs="*",
        help="folder that `mmpluld propose` made on ANN, or on the file ANN was mined from; several share out the "
        "patients, or are augmented views of the same volumes (distillation)",
    )
    listed = [f"{name:<15} {strategy.text}" for name, strategy in STRATEGIES.items()]
    strategies = parser.add_argument_group("what is mined, in this order", "\n".join(listed))
    strategies.add_argument(
        "--strategies", nargs="+", default=[], choices=STRATEGIES, metavar="NAME", help="one or several of these"
    )
    strategies.add_argument(
        "--oracle",
        nargs="+",
        default=[],
        choices=ORACLES,
        metavar="NAME",
        help=f"strategies to do by --truth instead: {', '.join(ORACLES)}; at least one of both is needed",
    )
    parser.add_argument("--out", required=True, action=OutputFile, metavar="FILE", help="annotation file to write")
    parser.add_argument(
        "--embeddings", nargs="+", default=[], metavar="DIR", help="folder that `mmpluld embed` made (intra-patient)"
    )
    parser.add_argument("--report", action=OutputFile, metavar="FILE", help="write counts and scores as JSON")
    parser.add_argument(
        "--truth", metavar="FILE", help="annotation file with all lesions (a phantom's truth/train.json), for scores"
    )
    parser.add_argument(
        "--bootstrap", type=whole(1, 1_000_000), metavar="N", help="resamples of patients for --truth (1000)"
    )
    rules = parser.add_argument_group("rules", "default: the value in brackets")
    for name, (kind, text) in RULES.items():
        rules.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text)
    rules.add_argument(
        "--several",
        choices=get_args(Several),
        help="whose a tracklet is that is several lesions': the best overlap's (default), or box by box of the one "
        "with the nearest annotated slice",
    )
    rules.add_argument(
        "--match",
        choices=get_args(MatchBy),
        help="distance of intra-patient: of embeddings (default), or of places in the volume, a baseline",
    )
    rules.add_argument(
        "--tracklet-experts", nargs="+", metavar="NAME", help="take tracklets with a box of these experts (all)"
    )
    rules.add_argument(
        "--single-types", nargs="+", metavar="NAME", help="single-type experts (all but the one of ANN's dataset)"
    )
    rules.add_argument(
        "--oracle-types",
        nargs="+",
        metavar="TYPE",
        help="types of lesions that single-type experts can know; the oracles of uncertain boxes find no others (all)",
    )


def run(options: argparse.Namespace) -> int:
    """Mine, print the counts, write the files."""
    from mmpluld.compat.processes import check_alone
    from mmpluld.mining.mine import mine_files
    from mmpluld.mining.options import MiningOptions
    from mmpluld.mining.report import format_result, save_report

    check_alone("mine")
    if options.bootstrap and not options.truth:
        raise InputError("--bootstrap: only scores have intervals; give --truth, too")
    names = (*RULES, "several", "match", "tracklet_experts", "single_types", "oracle_types")
    given: dict[str, Any] = {}
    for name in names:
        value = getattr(options, name)
        if value is not None:
            given[name] = tuple(value) if isinstance(value, list) else value
    result = mine_files(
        options.annotations,
        options.proposals,
        strategies=options.strategies,
        oracles=options.oracle,
        options=MiningOptions(**given),
        embedding_folders=options.embeddings,
        truth_file=options.truth,
        resamples=options.bootstrap or 1000,
    )
    result.annotations.save(options.out)
    if options.report:
        save_report(options.report, result)
    print(format_result(result))
    return 0
