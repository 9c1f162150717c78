"""The phantoms that the multi-dataset twins of LENS train and test on; only here is it said what they are.

Four folders under one root, written and converted as the real datasets are, with labels as heterogeneous as theirs:

- ``deeplesion``: the marked lesions, on key slices; ``truth/test_subvolumes.json`` has all lesions in 3D of a part of
  each test patient's series, as DeepLesion's manually labelled sub-volumes do;
- ``luna16``, ``lits``, ``nih-ln``: all lesions of the lung, of the liver, in the place of lymph nodes, and no others;
  patients, contrast phases, kernels and slice intervals of their own, and two in five patients held out as the test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpluld.errors import counted
from mmpluld.phantom import PhantomSpec
from mmpluld.reproduce.twin_data import PATIENTS, SETTINGS, ensure_layout
from mmpluld.structures import AnnotationSet

__all__ = ["LENS_PATIENTS", "LENS_SETTINGS", "describe_lens_phantoms", "ensure_lens_phantoms"]

LENS_PATIENTS: dict[str, tuple[int, ...]] = {
    "deeplesion": PATIENTS,
    "luna16": (48,),
    "lits": (48,),
    "nih-ln": (48,),
}
"""Patients by layout: of deeplesion in training, validation and test; of the others all in one, of whom two in five are
held out as the test."""

_SHARED = {
    key: value for key, value in SETTINGS.items() if key not in ("mark_prob", "mark_bias", "max_studies", "max_series")
}
LENS_SETTINGS: dict[str, dict[str, Any]] = {
    "deeplesion": SETTINGS,
    "luna16": {
        **_SHARED, "lesions_per_series": 6, "lesion_mix": {"lung": 1, "mediastinum": 0.3, "bone": 0.1},
        "phases": ("native",), "sharp_prob": 0.9, "intervals_mm": (1.5, 2.0, 2.5),
    },
    "lits": {
        **_SHARED, "lesions_per_series": 12, "lesion_mix": {"liver": 1, "abdomen": 0.2, "kidney": 0.15},
        "phases": ("arterial", "portal"), "sharp_prob": 0.0, "intervals_mm": (1.5, 2.5, 5.0),
    },
    "nih-ln": {
        **_SHARED, "lesions_per_series": 7, "lesion_mix": {"mediastinum": 1, "abdomen": 1, "lung": 0.2},
        "phases": ("portal",), "sharp_prob": 0.1, "intervals_mm": (1.5, 2.0),
    },
}  # fmt: skip
"""Settings by layout: the single-type datasets are rich in what DeepLesion's radiologists rarely mark."""

# More than the fifth that the paper holds out: of so few patients it would be too few lesions to test on.
_SPLIT = ("60", "0", "40")


def ensure_lens_phantoms(
    root: Path,
    command: Callable[[list[str], Path], None],
    patients: Mapping[str, Sequence[int]] = LENS_PATIENTS,
    settings: Mapping[str, Mapping[str, Any]] = LENS_SETTINGS,
) -> None:
    """Make the four phantoms in sub-folders of ``root`` unless they are there.

    Args:
        root: Folder of the phantoms.
        command: Runs the ``mmpluld`` command with the given arguments and log file, and raises if it fails.
        patients: How many, by layout; a layout that is left out is not made.
        settings: Fields of `PhantomSpec`, by layout. Boxes of the converted datasets are padded by its ``pad_mm`` too.

    Raises:
        InputError: If a folder holds another phantom or something else.
    """
    root.mkdir(parents=True, exist_ok=True)
    for layout, counts in patients.items():
        if layout == "deeplesion":
            options = ["--tags", str(root / layout / "tags.json")]
            options += ["--tag-ontology", str(root / layout / "tag_ontology.csv")]
        else:
            pad_mm = PhantomSpec.from_settings(dict(settings[layout])).pad_mm
            options = ["--split", *_SPLIT, "--pad-mm", str(pad_mm)]
        ensure_layout(root / layout, layout, counts, settings[layout], command, options)


def describe_lens_phantoms(root: Path, split: str = "test", held_out: bool = False) -> str | None:
    """What the phantoms in ``root`` hold; None if they are not there.

    Args:
        root: Their folder.
        split: Whose sub-volumes of DeepLesion are tested.
        held_out: The held-out parts of the other datasets are tested instead.
    """
    test = root / "deeplesion" / "truth" / f"{split}_subvolumes.json"
    if not test.is_file():
        return None
    parts = []
    for layout in LENS_PATIENTS:
        files = [root / layout / "annotations" / f"{part}.json" for part in ("train", "test")]
        if layout == "deeplesion":  # its table names no types in training
            marked = AnnotationSet.load(root / layout / "truth" / "train_key_slices.json")
            found = replace(marked, lesions=[lesion for lesion in marked.lesions if lesion.attributes["marked"]])
            parts.append(f"{layout} {_counts(found)}")
        elif all(file.is_file() for file in files):
            train, kept = map(AnnotationSet.load, files)
            parts.append(f"{layout} {_counts(train)}, held out {counted(len(kept.lesions), 'lesion')}")
    truth = AnnotationSet.load(test)
    if held_out:
        return f"Phantoms, training: {'; '.join(parts)}. Each dataset is tested on its held-out part, in 3D."
    tested = f"All lesions in sub-volumes of {split} patients, in 3D: {_counts(truth)}."
    return f"Phantoms, training: {'; '.join(parts)}. {tested}"


def _counts(found: AnnotationSet) -> str:
    """``12 lesions (7 lung, 5 liver) in 3 volumes``, without those to be ignored."""
    types = Counter(lesion.type or "unknown" for lesion in found.lesions if not lesion.ignore)
    each = ", ".join(f"{count} {name}" for name, count in types.most_common())
    total = counted(types.total(), "lesion") + (f" ({each})" if each else "")
    return f"{total} in {counted(len(found.volumes), 'volume')}"
