"""The phantom that twins train and test on; its specification stands here and nowhere else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmpluld.atomic import is_unfinished
from mmpluld.errors import InputError
from mmpluld.phantom import PhantomSpec
from mmpluld.structures import AnnotationSet
from mmpluld.structures.splits import annotation_paths
from mmpluld.structures.text_files import read_object

__all__ = ["PATIENTS", "SEED", "SETTINGS", "describe_phantom", "digest", "ensure_layout", "ensure_phantom"]

_PHANTOM = "the settings that `mmpluld phantom` wrote, or remove the folder to make it anew"

PATIENTS = (60, 1, 200)
"""Patients in training, validation (unused) and test."""

SEED = 0
"""Seed of the phantom; seeds of the trainings are other random streams."""

SETTINGS: dict[str, Any] = {"lesions_per_series": 10, "min_long_mm": 14, "contrast_hu": 180}
"""As in the demo: large, bright lesions, so that minutes of training suffice. Half of them are marked."""


def ensure_phantom(root: Path, command: Callable[[list[str], Path], None]) -> None:
    """Make the twins' phantom in ``root`` unless it is there.

    Args:
        root: Folder of the phantom.
        command: Runs the ``mmpluld`` command with the given arguments and log file, and raises if it fails.

    Raises:
        InputError: If the folder holds another phantom or something else.
    """
    tags = ["--tags", str(root / "tags.json"), "--tag-ontology", str(root / "tag_ontology.csv")]
    ensure_layout(root, "deeplesion", PATIENTS, SETTINGS, command, tags)


def ensure_layout(
    root: Path,
    layout: str,
    patients: Sequence[int],
    settings: Mapping[str, Any],
    command: Callable[[list[str], Path], None],
    convert_options: Sequence[str] = (),
) -> None:
    """Make a phantom in the layout of a dataset in ``root`` unless it is there, and convert it.

    Args:
        layout: As ``mmpluld phantom`` names it.
        patients: As its ``--patients`` takes them.
        settings: Fields of `PhantomSpec`.
        convert_options: Further arguments of ``mmpluld convert``.
        root, command: As in `ensure_phantom`.

    Raises:
        InputError: If the folder holds another phantom or something else.
    """
    record, log = root / "phantom.json", root.with_name(f"{root.name}.log")
    if record.is_file() and read_object(record, _PHANTOM, ()) != _record(layout, patients, settings):
        raise InputError(
            f"{record}: this phantom was made with other settings than the twins'; remove the folder, or pass it as "
            "--data-root to use it all the same"
        )
    deeplesion = layout == "deeplesion"
    # What each writes last.
    made = (root / "truth" / ("test_key_slices.json" if deeplesion else "complete.json")).is_file()
    made = made and not is_unfinished(record)
    converted = (root / "annotations" / ("test.json" if deeplesion else "train.json")).is_file()
    converted = converted and not any(map(is_unfinished, annotation_paths(root).values()))
    if not made:
        # A value is a Python literal for the command, as repr writes it.
        values = [f"{name}={value!r}" for name, value in settings.items()]
        arguments = ["phantom", layout, str(root), "--patients", *map(str, patients), "--seed", str(SEED)]
        arguments += ["--overwrite"] if record.is_file() else []  # what an interrupted call left
        command([*arguments, "--set", *values], log)
    if not made or not converted:
        command(["convert", layout, str(root), "--overwrite", *convert_options], log)


def _record(layout: str, patients: Sequence[int], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the phantom writer notes of these settings, as JSON gives it back."""
    spec = asdict(PhantomSpec.from_settings(dict(settings)))
    how = {"num_patients": patients, "all_slices": True} if layout == "deeplesion" else {"num_patients": patients[0]}
    record: dict[str, Any] = json.loads(json.dumps({"layout": layout, "seed": SEED, **how, **spec}))
    return record


def describe_phantom(root: Path) -> str | None:
    """One sentence on the phantom in ``root`` for a report; None if there is no phantom."""
    record = root / "phantom.json"
    if not record.is_file():
        return None
    defaults = asdict(PhantomSpec())
    data = read_object(record, _PHANTOM, ("seed", "num_patients", *defaults))
    changed = [
        f"{name}={data[name]}" for name, value in defaults.items() if data[name] != json.loads(json.dumps(value))
    ]
    train = AnnotationSet.load(root / "truth" / "train_key_slices.json").lesions
    test = AnnotationSet.load(root / "truth" / "test_key_slices.json").lesions
    unmarked = sum(not lesion.attributes["marked"] for lesion in train) / max(len(train), 1)
    patients = data["num_patients"]
    return (
        f"Phantom of seed {data['seed']}, {patients[0]} training and {patients[2]} test patients"
        + (f", {', '.join(changed)}" if changed else "")
        + f". On the training key slices {100 * unmarked:.0f} % of {len(train)} lesions are unmarked; the "
        f"{len(test)} lesions on the {len({(item.volume, item.key_slice) for item in test})} test key slices are "
        "all in the truth."
    )


def digest(files: Iterable[Path]) -> str:
    """SHA-256 over the contents of files, in the given order.

    Raises:
        InputError: If a file is missing.
    """
    result = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{file}: no such annotation file; make it with `mmpluld convert`, or pass the dataset as --data-root"
            )
        # Each file's own digest, so that bytes cannot move from one file to the next unnoticed.
        result.update(hashlib.sha256(file.read_bytes()).digest())
    return result.hexdigest()
