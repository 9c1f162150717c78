"""Phantoms with a map of their organs, for learning what the body looks like before learning lesions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_write_text
from mmpluld.errors import InputError
from mmpluld.io.array_store import write_array
from mmpluld.phantom.case import make_case
from mmpluld.phantom.folder import SETTINGS, phantom_folder
from mmpluld.phantom.organs import Organ
from mmpluld.phantom.spec import PhantomSpec
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, VolumeRecord
from mmpluld.typing import StrPath

__all__ = ["write_organs_layout"]


def write_organs_layout(
    out: StrPath, num_patients: tuple[int, int] = (40, 5), seed: int = 0, *, overwrite: bool = False, **settings: Any
) -> Path:
    """Write phantoms without lesions, each with the organ of every voxel.

    Files: ``volumes/PPPPPP_SS_RR.npy`` (HU) and, of the same shape, ``organs/PPPPPP_SS_RR.npy`` (numbers of `Organ`),
    both as `mmpluld.io.array_store` reads them; ``annotations/{train,val}.json``, the volumes of each split, without a
    lesion; ``phantom.json``, the settings and the names of the organs.

    Args:
        out: Folder to make.
        num_patients: Patients in training and validation.
        seed: Same seed and settings give the same files.
        overwrite: Replace what an earlier call wrote there; other folders are never touched.
        settings: Fields of `PhantomSpec`; there are no lesions unless ``lesions_per_series`` is given, and those that
            there are belong to the organ that they lie in.

    Returns:
        `out`.

    Raises:
        InputError: If `out` is a non-empty folder and `overwrite` is False, or a setting is invalid.
    """
    root = Path(out)
    if seed < 0:
        raise InputError(f"phantom seed={seed}: must be 0 or more")
    if len(num_patients) != 2 or min(num_patients) < 1:
        raise InputError(f"phantom num_patients={num_patients!r}: must be two counts above 0 (train, val)")
    spec = PhantomSpec.from_settings({"lesions_per_series": 0.0} | settings)
    record = {
        "layout": "organs",
        "seed": seed,
        "num_patients": list(num_patients),
        "organs": [organ.name.lower() for organ in Organ],
        **asdict(spec),
    }
    with phantom_folder(root, "organs", ("organs",), overwrite):
        atomic_write_text(root / SETTINGS, json.dumps(record, indent=1) + "\n")
        patients = iter(track(range(1, sum(num_patients) + 1), "writing phantoms", total=sum(num_patients)))
        for split, count in zip(("train", "val"), num_patients, strict=True):
            volumes = [_write_patient(root, seed, next(patients), spec) for _ in range(count)]
            header = {"name": "phantom-organs", "label_scope": "universal-complete"}
            AnnotationSet(header, [volume for found in volumes for volume in found]).save(
                root / "annotations" / f"{split}.json"
            )
    return root


def _write_patient(root: Path, seed: int, patient: int, spec: PhantomSpec) -> list[VolumeRecord]:
    """Make and write one patient; its volumes."""
    case = make_case(seed, patient, spec, organs=True)
    volumes = []
    for series in case.series:
        assert series.organs is not None
        name = case.series_id(series)
        for folder, array in (("volumes", series.volume.array), ("organs", series.organs)):
            (root / folder).mkdir(exist_ok=True)
            write_array(root / folder / f"{name}.npy", array.astype(np.int16))
        depth, height, width = series.volume.shape
        volumes.append(
            VolumeRecord(
                id=name, patient=f"{patient:06d}", study=f"{series.study:02d}", series=f"{series.series:02d}",
                source={"kind": "npy", "path": f"volumes/{name}.npy"}, first_slice=0, num_slices=depth,
                shape_yx=(height, width), spacing_mm=series.volume.spacing_mm,
            )
        )  # fmt: skip
    return volumes
