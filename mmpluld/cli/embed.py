"""``mmpluld embed``."""

from __future__ import annotations

import argparse

from mmpluld.cli.changes import add_changes
from mmpluld.cli.device import add_device
from mmpluld.cli.launcher import add_launcher
from mmpluld.cli.numbers import score, whole
from mmpluld.cli.outputs import OutputFolder

EXAMPLE = (
    "mmpluld embed CONFIG work_dirs/lesanet/epoch_15.pth --annotations data/deeplesion/annotations/train.json "
    "--data-root data/deeplesion --proposals proposals --out embeddings"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("config", help="config file of an embedder, or the name of one of the zoo")
    parser.add_argument("checkpoint", help="its weights: file, web address, or zoo:NAME")
    parser.add_argument("--annotations", required=True, metavar="FILE", help="annotation file whose lesions to embed")
    parser.add_argument(
        "--data-root", required=True, metavar="ROOT", help="folder that the paths of its volumes start from"
    )
    parser.add_argument(
        "--proposals",
        metavar="DIR",
        help="what `mmpluld propose` made of these volumes: embed its tracklets too (default: lesions alone)",
    )
    parser.add_argument(
        "--box-score",
        type=score,
        default=0.0,
        metavar="S",
        help="tracklets begin and end with a box that scores at least this, as they will be mined "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        required=True,
        action=OutputFolder,
        metavar="DIR",
        help="folder of the embeddings; what an earlier call with the same inputs has made in it stays",
    )
    add_device(parser)
    parser.add_argument(
        "--batch-size", type=whole(1), default=32, metavar="N", help="slices at once (default: %(default)s)"
    )
    add_changes(parser)
    add_launcher(parser)


def run(options: argparse.Namespace) -> int:
    """Embed, and say what is there now."""
    from mmpluld.inference.embed import embed

    done = embed(
        options.config,
        options.checkpoint,
        options.annotations,
        options.data_root,
        options.out,
        proposals=options.proposals,
        box_score=options.box_score,
        device=options.device,
        batch_size=options.batch_size,
        twin=options.twin,
        cfg_options=options.cfg_options,
        launcher=options.launcher,
        local_rank=options.local_rank,
    )
    print(done.describe("embedded"))
    return 0
