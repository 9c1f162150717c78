"""Turn a training checkpoint into a bundle of the zoo, with its model card and its entry in the index.

Example, shipped with the package:
  python tools/publish_model.py work_dirs/a3d/epoch_17.pth checkpoints --name a3d_densenet121-fpn_7s_phantom \\
      --data "2,000 synthetic scans, seed 0" --validation val_detections.json annotations/val.json \\
      --metrics result.json --metafile configs/a3d/metafile.yml
Example, to a folder that a web server serves:
  python tools/publish_model.py work_dirs/a3d/epoch_20.pth /srv/www/mmpluld --base-url https://example.org/mmpluld \\
      --name a3d_densenet121-fpn_7s_20e_deeplesion --data "DeepLesion's training split" \\
      --metafile configs/a3d/metafile.yml
"""

import argparse
import sys
from typing import Any

from mmpluld.cli.fpr import add_fpr
from mmpluld.cli.numbers import not_negative
from mmpluld.cli.outputs import OutputFile, OutputFolder
from mmpluld.errors import InputError
from mmpluld.evaluation.functional import PROTOCOLS


def _parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="file that training wrote")
    parser.add_argument(
        "out_dir", action=OutputFolder, help="folder to write to: checkpoints, or one that a web server serves"
    )
    parser.add_argument("--name", required=True, help="model of the zoo: the name of its config")
    parser.add_argument("--config", help="config that it was trained with, if not the zoo's of that name")
    parser.add_argument("--data", required=True, help="what it was trained on, for the card")
    parser.add_argument("--metrics", metavar="JSON", help="result of `mmpluld evaluate --json`")
    parser.add_argument(
        "--validation",
        nargs=2,
        metavar=("DETECTIONS", "TRUTH"),
        help="detections in validation patients and their truth, for operating points and calibration",
    )
    parser.add_argument(
        "--protocol", choices=list(PROTOCOLS), default="lens-3d", help="rules of --validation (default: %(default)s)"
    )
    parser.add_argument(
        "--fp-rate",
        type=not_negative,
        metavar="N",
        help="with --validation: false positives per volume or image that `mmpluld detect` chooses the threshold for, "
        "unless told otherwise",
    )
    add_fpr(parser, required=False)
    parser.add_argument("--licence", default="Apache-2.0", help="of the weights (default: %(default)s)")
    parser.add_argument("--half", action="store_true", help="store weights in half precision: half the size")
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="http(s) address of out_dir on the server; without, the weights ship in checkpoints/",
    )
    parser.add_argument(
        "--metafile", metavar="YML", action=OutputFile, help="enter it here; without, the entry is printed"
    )
    return parser


def main() -> int:
    """Publish one checkpoint."""
    from mmpluld.publish.publish import metafile_entry, publish, require_entry, served_from, update_metafile
    from mmpluld.zoo.index import dump_metafile

    parser = _parser()
    try:
        options = parser.parse_args()
        if options.metafile:
            require_entry(options.metafile, options.name)
        address = served_from(options.out_dir, options.base_url, options.metafile)
        published = publish(
            options.checkpoint,
            options.out_dir,
            options.name,
            data=options.data,
            config=options.config,
            metrics=options.metrics,
            licence=options.licence,
            half=options.half,
            validation=_validation(options),
            reduction=_reduction(options),
        )
        entry = metafile_entry(published, address)
        if options.metafile:
            update_metafile(options.metafile, entry)
    except InputError as error:
        parser.exit(2, f"publish_model: error: {error}\n")
    print(f"{published.bundle} ({published.size / 1e6:.2f} MB)\n{published.card}")
    if not options.metafile:
        print(dump_metafile({"Models": [entry]}), end="")
    return 0


def _validation(options: argparse.Namespace) -> Any:
    """What the options give to measure operating points with; None: nothing."""
    from mmpluld.publish.publish import Validation

    if options.validation is None:
        if options.fp_rate is not None:
            raise InputError("--fp-rate says nothing without --validation; give detections and truth")
        return None
    detections, truth = options.validation
    return Validation(detections, truth, options.protocol, options.fp_rate)


def _reduction(options: argparse.Namespace) -> Any:
    """False-positive reduction that the options name; None: that of the config."""
    from mmpluld.publish.publish import Reduction

    if options.fpr is None:
        if options.fpr_config or options.fpr_mode:
            raise InputError("--fpr-config and --fpr-mode say nothing without --fpr; give its weights")
        return None
    return Reduction(options.fpr, options.fpr_config, options.fpr_mode or "average")


if __name__ == "__main__":
    sys.exit(main())
