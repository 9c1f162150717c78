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
from mmpluld.phantom import LAYOUT_REGIONS, PhantomSpec
from mmpluld.structures import AnnotationSet
from mmpluld.structures.splits import annotation_paths
from mmpluld.structures.text_files import read_object

__all__ = [
    "PATIENTS",
    "SEED",
    "SETTINGS",
    "describe_phantom",
    "digest",
    "ensure_layout",
    "ensure_phantom",
    "phantom_command",
]

_PHANTOM = "the settings that `mmpluld phantom` wrote, or remove the folder to make it anew"

PATIENTS = (60, 28, 60)
"""Patients in training, validation and test; what is chosen is chosen on validation."""

SEED = 0
"""Seed of the phantom; seeds of the trainings are other random streams."""

SETTINGS: dict[str, Any] = {
    "lesions_per_series": 18,
    "min_long_mm": 14,
    "contrast_hu": 100,
    "max_slices": 40,
    "max_studies": 2,
    "max_series": 2,
    "mark_prob": 0.17,
    "mark_bias": 1.0,
}
"""Large lesions that stand out, so that minutes of training suffice. Four in five are not marked, first of all small
ones of lung, liver and nodes; on the images of a training, about half."""


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
    made = (root / "truth" / ("test_subvolumes.json" if deeplesion else "complete.json")).is_file()
    made = made and not is_unfinished(record)
    converted = (root / "annotations" / "test.json").is_file()
    converted = converted and not any(map(is_unfinished, annotation_paths(root).values()))
    if not made:
        command(phantom_command(root, layout, patients, settings), log)
    if not made or not converted:
        command(["convert", layout, str(root), "--overwrite", *convert_options], log)
    if deeplesion:
        for name in ("train_key_slices", "train_unmarked_ignored"):
            _add_masks(root / "truth" / f"{name}.json", root)


def phantom_command(root: Path, layout: str, patients: Sequence[int], settings: Mapping[str, Any]) -> list[str]:
    """Arguments of the ``mmpluld`` command that makes a phantom, in place of what an interrupted call left.

    Arguments are those of `ensure_layout`.
    """
    arguments = ["phantom", layout, str(root), "--patients", *map(str, patients), "--seed", str(SEED)]
    arguments += ["--overwrite"] if (root / "phantom.json").is_file() else []
    # A value is a Python literal for the command, as repr writes it.
    values = [f"{name}={value!r}" for name, value in settings.items()]
    return [*arguments, *(["--set", *values] if values else [])]


def _add_masks(truth: Path, root: Path) -> None:
    """Give lesions of the truth such masks as the converter gives marks, for detectors with a mask head."""
    from mmpluld.datasets.converters import add_pseudo_masks

    annotations = AnnotationSet.load(truth)
    if not any(lesion.mask for lesion in annotations.lesions):
        add_pseudo_masks(annotations, root)
        annotations.save(truth)


def _record(layout: str, patients: Sequence[int], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the phantom writer notes of these settings, as JSON gives it back."""
    regions = {"regions": LAYOUT_REGIONS[layout]} if layout in LAYOUT_REGIONS else {}
    spec = asdict(PhantomSpec.from_settings(regions | dict(settings)))
    how = {"num_patients": patients, "all_slices": True} if layout == "deeplesion" else {"num_patients": patients[0]}
    record: dict[str, Any] = json.loads(json.dumps({"layout": layout, "seed": SEED, **how, **spec}))
    return record


def describe_phantom(root: Path, split: str = "test") -> str | None:
    """What the phantom in ``root`` holds for a report, whose rows are tested on a split; None if there is none."""
    record = root / "phantom.json"
    if not record.is_file():
        return None
    defaults = asdict(PhantomSpec())
    data = read_object(record, _PHANTOM, ("seed", "num_patients", *defaults))
    changed = [
        f"{name}={data[name]}" for name, value in defaults.items() if data[name] != json.loads(json.dumps(value))
    ]
    train, tested = (
        [item for item in AnnotationSet.load(root / "truth" / f"{part}_key_slices.json").lesions if not item.ignore]
        for part in ("train", split)
    )
    unmarked = sum(not lesion.attributes["marked"] for lesion in train) / max(len(train), 1)
    patients = data["num_patients"]
    return (
        f"Phantom of seed {data['seed']}, {patients[0]} training and "
        + (f"{patients[1]} validation patients" if split == "val" else f"{patients[2]} test patients")
        + (f", {', '.join(changed)}" if changed else "")
        + f". On the training key slices {100 * unmarked:.0f} % of {len(train)} lesions are unmarked; the "
        f"{len(tested)} lesions on the {len({(item.volume, item.key_slice) for item in tested})} key slices tested on "
        "are all in the truth."
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
