"""``mmpluld detect``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from mmpluld.cli.changes import add_changes
from mmpluld.cli.device import add_device
from mmpluld.cli.fpr import add_fpr
from mmpluld.cli.launcher import add_launcher
from mmpluld.cli.numbers import natural, not_negative, score, whole
from mmpluld.cli.outputs import OutputFolder
from mmpluld.cli.scan_table import print_scans
from mmpluld.cli.units import add_units
from mmpluld.inference.formats import DEFAULT_FORMATS, FORMATS, parse_formats

if TYPE_CHECKING:
    from mmpluld.inference import Detector

EXAMPLE = "mmpluld detect scan.nii.gz --out findings"

# Those of DetectionSettings that a user may want to change for a scan; the others belong to a config.
RULES = {
    "score_thr": (score, "lowest score of a finding, 0..1; without, that which the model was published with (0.3)"),
    "link_score_thr": (score, "lowest score of 2D boxes that are linked along z, 0..1, not above --score-thr (0.05)"),
    "iou_thr": (score, "2D boxes of neighbouring slices are linked above this overlap, 0..1 (0.5)"),
    "max_gap": (natural, "slices of the grid without a box that a finding may bridge (0)"),
    "min_slices": (whole(1), "fewest slices of the grid with a box of a finding (1)"),
    "max_boxes": (whole(1), "most findings, those with the best scores (all)"),
    "tag_thr": (score, "lowest score of a finding's tags, 0..1 (0.5)"),
}


class Formats(argparse.Action):
    """Names of formats, as words or with commas; refused with an InputError if one is unknown."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option: object = None) -> None:
        """Check and store the names."""
        assert isinstance(values, list)  # nargs="+"
        setattr(namespace, self.dest, parse_formats(values))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "scan",
        nargs="+",
        metavar="INPUT",
        help="NIfTI, MHD, MHA, NRRD or NHDR file, DICOM folder, DICOMDIR, zip archive, or folder of many scans",
    )
    add_model(parser)
    end = parser.add_mutually_exclusive_group(required=True)
    end.add_argument(
        "-o",
        "--out",
        action=OutputFolder,
        help="folder for the files of --formats; of several scans for a folder each, and summary.csv",
    )
    end.add_argument(
        "--list", action="store_true", help="say which scans there are, with their numbers for --series, and end"
    )
    listed = [f"{name:<9} {kind.file:<20} {kind.text}" for name, kind in FORMATS.items()]
    formats = parser.add_argument_group("what is written", "\n".join(listed))
    formats.add_argument(
        "--formats",
        nargs="+",
        action=Formats,
        default=list(DEFAULT_FORMATS),
        metavar="NAME",
        help=f"names of these, as words or with commas (default: {','.join(DEFAULT_FORMATS)})",
    )
    _add_rules(parser)
    add_fpr(parser, required=False)
    parser.add_argument(
        "--no-fpr", action="store_true", help="no false-positive reduction, where config or bundle have one"
    )
    parser.add_argument(
        "--series",
        metavar="CHOICE",
        help="where there are several scans: a number of --list, the UID of a DICOM series, UID:ATTRIBUTE=VALUE for a "
        "part of one that is several volumes (such as :AcquisitionNumber=2), ATTRIBUTE=VALUE for the series that have "
        "it, or all",
    )
    add_units(parser)
    parser.add_argument(
        "--tags", metavar="FILE", help="names of the model's tags: LesaNet's JSON of labels, or an annotation file"
    )
    parser.add_argument(
        "--identifiers",
        action="store_true",
        help="say whose scan it is: its path in json, the UID of its series in json, html and luna16, the patient in "
        "DICOM objects, and results named after paths (default: its file name alone)",
    )
    add_machine(parser)
    add_changes(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace earlier results")
    add_launcher(parser)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    """Declare the options of what counts as a finding."""
    rules = parser.add_argument_group(
        "rules of findings", "default: as the config is tested, else the value in brackets"
    )
    for name, (kind, text) in RULES.items():
        rules.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text)
    rules.add_argument(
        "--fp-rate",
        type=not_negative,
        metavar="N",
        help="instead of --score-thr: false positives per volume (or image) that the model's validation measured",
    )
    rules.add_argument(
        "--operating-points", metavar="FILE", help="with --fp-rate: of `mmpluld evaluate` (default: the bundle's)"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declare the options that choose the model."""
    group = parser.add_argument_group("model", "default: the zoo's own default, see `mmpluld models`")
    group.add_argument("--model", metavar="MODEL", help="model of the zoo by its name, or the file of a bundle")
    group.add_argument("--config", help="instead, with --checkpoint: config file, or the name of a config of the zoo")
    group.add_argument("--checkpoint", help="weights of the config: file, web address, or zoo:NAME")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Declare the options of where and how the network runs."""
    add_device(parser)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="arithmetic (default: fp32)")
    parser.add_argument(
        "--batch-size", type=whole(1), metavar="N", help="slices at once (default: cpu 1, cuda 1 for every 4 GiB)"
    )


def run(options: argparse.Namespace) -> int:
    """Detect and name the files written, or list the scans."""
    from mmpluld.inference.many_scans import Request, detect_inputs
    from mmpluld.io.scan_choice import SeveralSeriesError

    if options.list:
        return _list(options)
    request = Request(
        options.scan,
        options.out,
        options.series,
        options.units,
        options.formats,
        options.identifiers,
        options.overwrite,
        options.launcher,
        options.local_rank,
    )
    try:
        return detect_inputs(lambda: _detector(options), request)
    except SeveralSeriesError as error:
        print_scans(error.scans, sys.stderr)
        raise


def _detector(options: argparse.Namespace) -> Detector:
    """The detector that the options describe."""
    from mmpluld.inference.detector import Detector

    given = {name: getattr(options, name) for name in RULES}
    return Detector(
        options.model,
        config=options.config,
        checkpoint=options.checkpoint,
        device=options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        fp_rate=options.fp_rate,
        operating_points=options.operating_points,
        tags=options.tags,
        twin=options.twin,
        cfg_options=options.cfg_options,
        fpr=options.fpr,
        fpr_config=options.fpr_config,
        fpr_mode=options.fpr_mode,
        no_fpr=options.no_fpr,
        **{name: value for name, value in given.items() if value is not None},
    )


def _list(options: argparse.Namespace) -> int:
    """Print the scans that would be examined, or could be chosen."""
    from mmpluld.io.scan_choice import SeveralSeriesError, choose_scans
    from mmpluld.io.scans import ScanReader, find_scans

    with ScanReader() as reader:
        scans = find_scans(options.scan, reader, options.series)
        try:
            chosen = choose_scans(scans, options.series)
        except SeveralSeriesError:
            chosen = []
    print_scans(scans, sys.stdout, chosen, options.identifiers)
    return 2 if any(scan.fault for scan in scans) else 0
