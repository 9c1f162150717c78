"""``mmpluld convert``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from mmpluld.cli.numbers import natural, not_negative

EXAMPLE = "mmpluld convert deeplesion data/deeplesion"

# Options that only some datasets know, by the argument of their converter.
_DEEPLESION = ("csv_name", "keep_noisy", "no_images", "masks", "tags", "tag_ontology")
_VOLUMES = ("fractions", "seed", "pad_px", "overrides")
_OPTIONS = {
    "deeplesion": _DEEPLESION,
    "deeplesion-3d": ("boxes",),
    "luna16": (*_VOLUMES, "test_subset", "with_excluded"),
    "lits": (*_VOLUMES, "min_voxels"),
    "nih-ln": (*_VOLUMES, "min_voxels"),
}
_FLAGS = {"csv_name": "--csv", "fractions": "--split"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; those that a dataset does not know are refused in `run`."""
    parser.add_argument("dataset", choices=list(_OPTIONS), help="layout of the raw dataset")
    parser.add_argument("root", help="folder of the raw dataset; annotations/ is made in it")
    parser.add_argument("--overwrite", action="store_true", help="replace existing annotation files")
    later: dict[str, Any] = {"default": argparse.SUPPRESS}
    group = parser.add_argument_group("deeplesion")
    group.add_argument(
        "--csv", dest="csv_name", metavar="NAME", help="name of the table (default: DL_info.csv)", **later
    )
    group.add_argument("--keep-noisy", action="store_true", help="keep the rows marked Possibly_noisy", **later)
    group.add_argument("--no-images", action="store_true", help="do not require the slices to be there", **later)
    group.add_argument(
        "--masks",
        choices=["none", "exact", "legacy"],
        help="masks from the RECIST marks, which detectors with a mask head train on; "
        "legacy repeats the published code's (default: exact)",
        **later,
    )
    group.add_argument(
        "--tags",
        metavar="FILE",
        help="LesaNet's text_mined_labels_171_and_split.json, for detectors with tags",
        **later,
    )
    group.add_argument(
        "--tag-ontology", metavar="FILE", help="LesaNet's ontology saved as CSV: tags that exclude each other", **later
    )
    group = parser.add_argument_group("deeplesion-3d", "The fully annotated sub-volumes; convert deeplesion first.")
    group.add_argument(
        "--boxes", metavar="FILE", help="the published boxes: DeepLesion_manual_1K_test_release.pkl, or JSON", **later
    )
    group = parser.add_argument_group(
        "luna16, lits, nih-ln", "Volumes are copied to ROOT/volumes, 2 bytes a voxel, for reading single slices."
    )
    group.add_argument(
        "--split",
        dest="fractions",
        nargs=3,
        type=float,
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares of a random split by patient (default: 80 0 20)",
        **later,
    )
    group.add_argument("--seed", type=natural, help="seed of the split (default: 0)", **later)
    group.add_argument(
        "--pad-px", type=not_negative, metavar="N", help="widen boxes in the plane (default: 0)", **later
    )
    group.add_argument(
        "--overrides", metavar="FILE", help="CSV or JSON: volume, spacing_mm, flip, flip_mask, exclude", **later
    )
    group.add_argument(
        "--test-subset", type=int, metavar="N", help="luna16: test on this subset, train on the others", **later
    )
    group.add_argument(
        "--with-excluded",
        action="store_true",
        help="luna16: findings of annotations_excluded.csv become lesions to be ignored",
        **later,
    )
    group.add_argument(
        "--min-voxels", type=natural, metavar="N", help="lits, nih-ln: ignore smaller lesions (default: 5)", **later
    )


def run(options: argparse.Namespace) -> int:
    """Convert and print what was kept and what was dropped."""
    from mmpluld.datasets.converters import (
        ConversionReport,
        convert_deeplesion,
        convert_deeplesion_3d,
        convert_lits,
        convert_luna16,
        convert_nih_ln,
    )
    from mmpluld.errors import InputError

    given = {
        name: value for names in _OPTIONS.values() for name in names if (value := _given(options, name)) is not None
    }
    for name in given:
        if name not in _OPTIONS[options.dataset]:
            flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
            known = ", ".join(dataset for dataset, names in _OPTIONS.items() if name in names)
            raise InputError(f"{flag}: is no option of {options.dataset}, only of {known}; leave it out")
    if options.dataset == "deeplesion":
        given["drop_noisy"] = not given.pop("keep_noisy", False)
        given["require_images"] = not given.pop("no_images", False)
        if given.get("masks") == "none":
            given["masks"] = None
    if options.dataset == "deeplesion-3d" and "boxes" not in given:
        raise InputError("deeplesion-3d: no boxes given; name the published file with --boxes FILE")
    converters: dict[str, Callable[..., ConversionReport]] = {
        "deeplesion": convert_deeplesion,
        "deeplesion-3d": convert_deeplesion_3d,
        "luna16": convert_luna16,
        "lits": convert_lits,
        "nih-ln": convert_nih_ln,
    }
    report = converters[options.dataset](options.root, overwrite=options.overwrite, **given)
    print(report.summary())
    return 0


def _given(options: argparse.Namespace, name: str) -> object:
    return getattr(options, name, None)
