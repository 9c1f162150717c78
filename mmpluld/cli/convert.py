"""``mmpluld convert``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmpluld.cli.numbers import natural, not_negative, whole
from mmpluld.cli.units import add_units

EXAMPLE = """mmpluld convert deeplesion data/deeplesion
  mmpluld convert boxes data/my_ct --boxes boxes.csv --label-scope universal-complete

boxes: ROOT holds scans, in any subfolders; a scan is named by its path below ROOT, or its name where that is clear.
One box a line, x, y, z along the axes of the file, voxel edges from 0, the far one outside the lesion:

  volume,x1,y1,z1,x2,y2,z2,patient,split,type,key_slice,ignore
  p1/scan.nii.gz,120,88,14,141,107,19,p1,train,liver,16,0
  p2/scan.nii.gz,,,,,,,p2,test,,,

p2 was looked through and has no lesion. Only the scan and the box are needed, the other columns may be left out. Boxes
on single slices (lesion joins them), and centres in mm (or x_ras, y_ras, z_ras; or coordX, coordY, coordZ and --world):

  volume,x1,y1,x2,y2,slice,lesion                volume,x_lps,y_lps,z_lps,diameter_mm
  scan1,120,88,141,107,16,a                      scan1,-56.2,31.0,-412.5,8.4

COCO JSON, with 4 numbers on a slice (x, y, width, height) or 6 in a scan (x, y, z, width, height, depth):

  {"images": [{"id": 1, "file_name": "scan1.nii.gz", "slice": 16, "patient": "p1", "split": "train"},
              {"id": 2, "file_name": "scan2.nii.gz", "patient": "p2", "split": "test"}],
   "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [120, 88, 21, 19], "lesion": "a"},
                   {"id": 2, "image_id": 2, "category_id": 1, "bbox": [64, 70, 9, 20, 22, 5], "iscrowd": 0}],
   "categories": [{"id": 1, "name": "liver"}]}"""

# Options that only some datasets know, by the argument of their converter.
_DEEPLESION = ("csv_name", "keep_noisy", "no_images", "masks", "tags", "tag_ontology", "lesion_pairs")
_VOLUMES = ("fractions", "seed", "pad_mm", "overrides")
_OPTIONS = {
    "deeplesion": _DEEPLESION,
    "deeplesion-3d": ("boxes",),
    "luna16": (*_VOLUMES, "test_subset", "with_excluded"),
    "lits": (*_VOLUMES, "min_voxels"),
    "nih-ln": (*_VOLUMES, "min_voxels"),
    "boxes": (*_VOLUMES, "boxes", "inclusive", "one_based", "world", "max_gap_mm", "label_scope", "name"),
}
_FLAGS = {"csv_name": "--csv", "fractions": "--split"}


# Options that are not given stay unset, so that `run` sees which ones are.
_LATER: dict[str, Any] = {"default": argparse.SUPPRESS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; those that a dataset does not know are refused in `run`."""
    parser.add_argument("dataset", choices=list(_OPTIONS), help="layout of the raw dataset")
    parser.add_argument("root", help="folder of the raw dataset; annotations/ is made in it")
    parser.add_argument("--overwrite", action="store_true", help="replace existing annotation files")
    add_units(parser)
    _add_deeplesion(parser)
    _add_boxes(parser)
    _add_volumes(parser)


def _add_deeplesion(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("deeplesion")
    group.add_argument(
        "--csv", dest="csv_name", metavar="NAME", help="name of the table (default: DL_info.csv)", **_LATER
    )
    group.add_argument("--keep-noisy", action="store_true", help="keep the rows marked Possibly_noisy", **_LATER)
    group.add_argument("--no-images", action="store_true", help="do not require the slices to be there", **_LATER)
    group.add_argument(
        "--masks",
        choices=["none", "exact", "legacy"],
        help="masks from the RECIST marks, which detectors with a mask head train on; "
        "legacy repeats the published code's (default: exact)",
        **_LATER,
    )
    group.add_argument(
        "--tags",
        metavar="FILE",
        help="LesaNet's text_mined_labels_171_and_split.json, for detectors with tags",
        **_LATER,
    )
    group.add_argument(
        "--tag-ontology", metavar="FILE", help="LesaNet's ontology saved as CSV: tags that exclude each other", **_LATER
    )
    group.add_argument(
        "--lesion-pairs",
        nargs="+",
        metavar="FILE",
        help="dls_pairs_valid.json and dls_pairs_test.json of the Deep Lesion Tracker: which marks are one lesion",
        **_LATER,
    )


def _add_boxes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "deeplesion-3d, boxes", "deeplesion-3d: the fully annotated sub-volumes; convert deeplesion first."
    )
    group.add_argument(
        "--boxes",
        metavar="FILE",
        help="deeplesion-3d: the published DeepLesion_manual_1K_test_release.pkl, or JSON; boxes: CSV or COCO JSON",
        **_LATER,
    )
    group = parser.add_argument_group("boxes", "Your own scans with a table of boxes; examples below.")
    group.add_argument(
        "--inclusive", action="store_true", help="x2, y2, z2 are the last voxel inside, not the edge behind", **_LATER
    )
    group.add_argument("--one-based", action="store_true", help="the first voxel has number 1, not 0", **_LATER)
    group.add_argument(
        "--world", choices=["lps", "ras"], help="frame of coordX, coordY, coordZ: lps is DICOM's, ras NIfTI's", **_LATER
    )
    group.add_argument(
        "--max-gap-mm",
        type=not_negative,
        metavar="MM",
        help="a lesion ends where more than this lies unmarked between two slices of its name (default: 10)",
        **_LATER,
    )
    group.add_argument(
        "--label-scope",
        metavar="WHAT",
        help="universal-partial: some lesions of any kind are labelled; universal-complete: all are; or the one kind "
        "that is labelled completely, such as lung-nodules (default: universal-partial)",
        **_LATER,
    )
    group.add_argument("--name", help="name of the dataset (default: that of the folder)", **_LATER)


def _add_volumes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "luna16, lits, nih-ln, boxes", "Volumes are copied to ROOT/volumes, 2 bytes a voxel, for reading single slices."
    )
    group.add_argument(
        "--split",
        dest="fractions",
        nargs=3,
        type=float,
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares of a random split by patient (default: 80 0 20; boxes: 70 10 20, unless the table tells splits)",
        **_LATER,
    )
    group.add_argument("--seed", type=natural, help="seed of the split (default: 0)", **_LATER)
    group.add_argument(
        "--pad-mm", type=not_negative, metavar="MM", help="widen boxes in the plane (default: 0)", **_LATER
    )
    group.add_argument(
        "--overrides", metavar="FILE", help="CSV or JSON: volume, spacing_mm, flip, flip_mask, match, exclude", **_LATER
    )
    group.add_argument(
        "--test-subset",
        type=whole(0, 9),
        metavar="N",
        help="luna16: test on this subset, train on the others",
        **_LATER,
    )
    group.add_argument(
        "--with-excluded",
        action="store_true",
        help="luna16: findings of annotations_excluded.csv become lesions to be ignored",
        **_LATER,
    )
    group.add_argument(
        "--min-voxels", type=natural, metavar="N", help="lits, nih-ln: ignore smaller lesions (default: 5)", **_LATER
    )


def run(options: argparse.Namespace) -> int:
    """Convert and print what was kept and what was dropped."""
    from mmpluld.datasets.converters import (
        ConversionReport,
        convert_boxes,
        convert_deeplesion,
        convert_deeplesion_3d,
        convert_lits,
        convert_luna16,
        convert_nih_ln,
    )
    from mmpluld.errors import InputError
    from mmpluld.outputs import folder_lock

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
    if "boxes" in _OPTIONS[options.dataset] and "boxes" not in given:
        what = "the published file" if options.dataset == "deeplesion-3d" else "the CSV or COCO file"
        raise InputError(f"{options.dataset}: no boxes given; name {what} with --boxes FILE")
    converters: dict[str, Callable[..., ConversionReport]] = {
        "deeplesion": convert_deeplesion,
        "deeplesion-3d": convert_deeplesion_3d,
        "luna16": convert_luna16,
        "lits": convert_lits,
        "nih-ln": convert_nih_ln,
        "boxes": convert_boxes,
    }
    root = Path(options.root)
    usable = root.is_dir() and os.access(root, os.W_OK)  # else the converter says what is wrong
    with folder_lock(root) if usable else nullcontext():
        report = converters[options.dataset](options.root, overwrite=options.overwrite, units=options.units, **given)
    print(report.summary())
    return 0


def _given(options: argparse.Namespace, name: str) -> object:
    return getattr(options, name, None)
