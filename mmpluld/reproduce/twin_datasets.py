"""The phantoms that the multi-dataset twins of LENS train and test on; only here is it said what they are.

Four folders under one root, written and converted as the real datasets are, with labels as heterogeneous as theirs:

- ``deeplesion``: half of all lesions, on key slices; ``truth/test_subvolumes.json`` has all lesions in 3D of a part of
  each test patient's series, as DeepLesion's manually labelled sub-volumes do;
- ``luna16``, ``lits``, ``nih-ln``: all lesions of the lung, of the liver, in the place of lymph nodes, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpluld.errors import counted
from mmpluld.phantom.subvolumes import cut_subvolumes
from mmpluld.reproduce.twin_data import SETTINGS, ensure_layout
from mmpluld.structures import AnnotationSet

__all__ = ["LENS_PATIENTS", "LENS_SETTINGS", "describe_lens_phantoms", "ensure_lens_phantoms"]

LENS_PATIENTS: dict[str, tuple[int, ...]] = {
    "deeplesion": (60, 12, 100),
    "luna16": (30,),
    "lits": (40,),
    "nih-ln": (60,),
}
"""Patients by layout; of deeplesion in training, validation (on which experts are calibrated) and test. Only half of
those of nih-ln have nodes."""

LENS_SETTINGS: dict[str, Any] = {**SETTINGS, "pad_mm": 4}
"""Those of the other twins."""

# Where the lesions are that a dataset labels.
_REGIONS = {"luna16": ("chest",), "lits": ("abdomen",), "nih-ln": ("chest", "abdomen")}


def ensure_lens_phantoms(
    root: Path,
    command: Callable[[list[str], Path], None],
    patients: Mapping[str, Sequence[int]] = LENS_PATIENTS,
    settings: Mapping[str, Any] = LENS_SETTINGS,
) -> None:
    """Make the four phantoms in sub-folders of ``root`` unless they are there.

    Args:
        root: Folder of the phantoms.
        command: Runs the ``mmpluld`` command with the given arguments and log file, and raises if it fails.
        patients: How many, by layout; a layout that is left out is not made.
        settings: Fields of `PhantomSpec`. Boxes of all four are padded by its ``pad_mm``.

    Raises:
        InputError: If a folder holds another phantom or something else.
    """
    root.mkdir(parents=True, exist_ok=True)
    for layout, counts in patients.items():
        if layout == "deeplesion":
            tags = ["--tags", str(root / layout / "tags.json")]
            tags += ["--tag-ontology", str(root / layout / "tag_ontology.csv")]
            ensure_layout(root / layout, layout, counts, settings, command, tags)
            parts = root / layout / "truth" / "test_subvolumes.json"
            if not parts.is_file():
                cut_subvolumes(AnnotationSet.load(root / layout / "truth" / "test.json")).save(parts)
        else:
            options = ["--split", "100", "0", "0", "--pad-px", str(settings.get("pad_mm", 4) / 2.8)]
            own = {"regions": _REGIONS[layout], **settings}
            ensure_layout(root / layout, layout, counts, own, command, options)


def describe_lens_phantoms(root: Path) -> str | None:
    """What the phantoms in ``root`` hold, for a report; None if they are not there."""
    test = root / "deeplesion" / "truth" / "test_subvolumes.json"
    if not test.is_file():
        return None
    parts = []
    for layout in LENS_PATIENTS:
        path = root / layout / "annotations" / "train.json"
        if path.is_file():
            found = AnnotationSet.load(path)
            parts.append(f"{layout} {counted(len(found.lesions), 'lesion')} in {counted(len(found.volumes), 'volume')}")
    truth = AnnotationSet.load(test)
    count = sum(not lesion.ignore for lesion in truth.lesions)
    return (
        f"Phantoms, training: {'; '.join(parts)}. Test: all {count} lesions in sub-volumes of "
        f"{counted(len(truth.volumes), 'patient')}, in 3D."
    )
