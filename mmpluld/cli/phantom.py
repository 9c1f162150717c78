"""``mmpluld phantom``."""

from __future__ import annotations

import argparse
import ast
import shlex
from pathlib import Path
from typing import Any

from mmpluld.cli.numbers import natural, whole

EXAMPLE = "mmpluld phantom deeplesion data/phantom --patients 60 2 20 --seed 0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "layout",
        choices=["deeplesion", "luna16", "lits", "nih-ln", "twins", "lens", "organs", "starter", "scan"],
        help="a dataset as the real one stores it, that of the twins converted, the four of LENS' twins converted, "
        "bodies with organ maps, "
        "scans of varied looks for the starter weights, or one scan as NIfTI",
    )
    parser.add_argument("out", help="folder to make, or the .nii.gz file of the scan")
    parser.add_argument(
        "--patients",
        nargs="+",
        type=whole(0, 999_999),  # ids have six digits
        metavar="N",
        help="deeplesion: patients per split, TRAIN VAL TEST (default: 40 10 10); organs: TRAIN VAL (default: 40 5); "
        "starter: TRAIN VAL (default: 2000 24); luna16, lits, nih-ln: how many (default: 20); not of twins and lens",
    )
    parser.add_argument("--seed", type=natural, help="same seed and options, same files (default: 0)")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="settings of the phantom, such as size=256 mark_prob=0.3 (see mmpluld.phantom.PhantomSpec)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def _settings(items: list[str]) -> dict[str, Any]:
    """``["size=256", "regions=('chest',)"]`` -> keyword settings; a value that is no Python literal stays text."""
    from mmpluld.errors import InputError

    settings: dict[str, Any] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"--set {item}: write NAME=VALUE, for example size=256")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = value
    return settings


def run(options: argparse.Namespace) -> int:
    """Write the phantom."""
    from mmpluld.errors import InputError
    from mmpluld.phantom import (
        PhantomSpec,
        make_phantom,
        write_deeplesion_layout,
        write_lits_layout,
        write_luna16_layout,
        write_nifti,
        write_nih_ln_layout,
        write_organs_layout,
    )

    if options.layout in ("twins", "lens"):
        return _of_tables(options)
    if options.layout == "starter":
        return _starter(options)
    settings, seed = _settings(options.set), options.seed or 0
    PhantomSpec.from_settings(settings)  # also refuses names that are arguments of the writers
    writers = {"luna16": write_luna16_layout, "lits": write_lits_layout, "nih-ln": write_nih_ln_layout}
    if options.layout in writers:
        patients = options.patients or [20]
        if len(patients) != 1:
            raise InputError(f"--patients {patients}: {options.layout} takes one number; splits are made on conversion")
        writers[options.layout](options.out, patients[0], seed, overwrite=options.overwrite, **settings)
        print(f"{options.out}: phantom written; next: mmpluld convert {options.layout} {shlex.quote(options.out)}")
        return 0
    if options.layout == "deeplesion":
        patients = options.patients or [40, 10, 10]
        if len(patients) != 3:
            raise InputError(f"--patients {patients}: deeplesion takes three numbers, TRAIN VAL TEST")
        write_deeplesion_layout(
            options.out, (patients[0], patients[1], patients[2]), seed, overwrite=options.overwrite, **settings
        )
        print(f"{options.out}: phantom written; next: mmpluld convert deeplesion {shlex.quote(options.out)}")
        return 0
    if options.layout == "organs":
        patients = options.patients or [40, 5]
        if len(patients) != 2:
            raise InputError(f"--patients {patients}: organs takes two numbers, TRAIN VAL")
        write_organs_layout(options.out, (patients[0], patients[1]), seed, overwrite=options.overwrite, **settings)
        print(f"{options.out}: phantom written")
        return 0
    if options.patients:
        raise InputError("phantom scan: makes one scan, of one patient; leave --patients out")
    _check_scan(Path(options.out), options.overwrite)
    truth = write_nifti(make_phantom(seed, **settings), options.out)
    print(f"{options.out}: phantom written; complete truth in {truth}")
    return 0


def _starter(options: argparse.Namespace) -> int:
    """Write the scans of the starter weights."""
    from mmpluld.errors import InputError
    from mmpluld.phantom import STARTER_PATIENTS, write_starter_layout

    patients = options.patients or STARTER_PATIENTS
    if options.set:
        raise InputError("phantom starter: takes no --set, all that can vary is drawn; leave it out")
    if len(patients) != 2:
        raise InputError(f"--patients {list(patients)}: starter takes two numbers, TRAIN VAL")
    write_starter_layout(options.out, (patients[0], patients[1]), options.seed or 0, overwrite=options.overwrite)
    print(f"{options.out}: phantom written")
    return 0


def _check_scan(scan: Path, overwrite: bool) -> None:
    """Refuse a scan, or its truth, that is there already; what an interrupted command left is replaced."""
    from mmpluld.atomic import is_unfinished
    from mmpluld.errors import InputError
    from mmpluld.outputs import check_output_file
    from mmpluld.phantom import truth_beside

    files = (scan, truth_beside(scan))
    begun = any(is_unfinished(file) for file in files)
    for file in files:
        check_output_file(file)
        if file.exists() and not overwrite and not begun:
            raise InputError(f"{file}: exists; choose another name or pass --overwrite")


def _of_tables(options: argparse.Namespace) -> int:
    """Write and convert the phantoms that the tables' twins train on."""
    from mmpluld.cli.main import run as run_line
    from mmpluld.errors import InputError
    from mmpluld.reproduce.twin_data import describe_phantom, ensure_phantom
    from mmpluld.reproduce.twin_datasets import describe_lens_phantoms, ensure_lens_phantoms

    if options.patients or options.set or options.seed is not None or options.overwrite:
        raise InputError(
            f"phantom {options.layout}: takes no options, its settings are those of the twins; leave them out (to make "
            "it anew, remove the folder first)"
        )
    ensure, describe = {
        "twins": (ensure_phantom, describe_phantom),
        "lens": (ensure_lens_phantoms, describe_lens_phantoms),
    }[options.layout]

    def command(arguments: list[str], _: Path) -> None:
        run_line(arguments)

    ensure(Path(options.out), command)
    print(describe(Path(options.out)))
    return 0
