"""Phantoms with a map of their organs, for learning what the body looks like before learning lesions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.errors import InputError
from mmpluld.io.array_store import write_array
from mmpluld.phantom.case import make_case
from mmpluld.phantom.folder import phantom_folder
from mmpluld.phantom.organs import Organ
from mmpluld.phantom.pool import in_order
from mmpluld.phantom.spec import PhantomSpec
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, VolumeRecord
from mmpluld.typing import StrPath

__all__ = ["organs_record", "write_organs_layout"]

_SPLITS = ("train", "val")


def organs_record(num_patients: Sequence[int], seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """What is noted in ``phantom.json`` of a phantom with these settings; those of `write_organs_layout`."""
    spec = asdict(PhantomSpec.from_settings({"lesions_per_series": 0.0} | settings))
    organs = [organ.name.lower() for organ in Organ]
    record = {"layout": "organs", "seed": seed, "num_patients": list(num_patients), "organs": organs, **spec}
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def write_organs_layout(
    out: StrPath,
    num_patients: tuple[int, int] = (40, 5),
    seed: int = 0,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Path:
    """Write phantoms without lesions, each with the organ of every voxel; none is a patient of another layout.

    Files: ``volumes/PPPPPP_SS_RR.npy`` (HU) and, of the same shape, ``organs/PPPPPP_SS_RR.npy`` (numbers of `Organ`),
    both as `mmpluld.io.array_store` reads them; ``annotations/{train,val}.json``, the volumes of each split, without a
    lesion; ``phantom.json``, the settings and the names of the organs.

    Args:
        out: Folder to make.
        num_patients: Patients in training and validation.
        seed: Same seed and settings give the same files, whatever the number of workers.
        workers: Processes; None takes one per core.
        overwrite: Replace what an earlier call wrote there; other folders are never touched.
        settings: Fields of `PhantomSpec`; there are no lesions unless ``lesions_per_series`` is given, and those that
            there are belong to the organ that they lie in.

    Returns:
        `out`.

    Raises:
        InputError: If `out` is a non-empty folder and `overwrite` is False, or a setting is invalid.
    """
    root = Path(out)
    if len(num_patients) != 2 or min(num_patients) < 1:
        raise InputError(f"phantom num_patients={num_patients!r}: must be two counts above 0 (train, val)")
    record = organs_record(num_patients, seed, settings)
    spec = PhantomSpec.from_settings({"lesions_per_series": 0.0} | settings)
    splits = [split for split, count in zip(_SPLITS, num_patients, strict=True) for _ in range(count)]
    numbered = [(split, place) for place, split in enumerate(splits, start=1)]
    with phantom_folder(root, record, ("organs",), overwrite):
        for folder in ("volumes", "organs"):
            (root / folder).mkdir()
        job = partial(_write_patient, root, seed, spec)
        written = list(track(in_order(job, numbered, workers), "writing phantoms", total=len(numbered)))
        for split in _SPLITS:
            members = zip(numbered, written, strict=True)
            volumes = [volume for (name, _), found in members if name == split for volume in found]
            header = {"name": "phantom-organs", "label_scope": "universal-complete"}
            AnnotationSet(header, volumes).save(root / "annotations" / f"{split}.json")
    return root


def _write_patient(root: Path, seed: int, spec: PhantomSpec, which: tuple[str, int]) -> list[VolumeRecord]:
    """Make and write one patient; its volumes."""
    split, patient = which
    case = make_case(seed, f"organs/{split}", patient, spec, organs=True)
    volumes = []
    for series in case.series:
        assert series.organs is not None
        name = case.series_id(series)
        write_array(root / "volumes" / f"{name}.npy", series.volume.array.astype(np.int16))
        write_array(root / "organs" / f"{name}.npy", series.organs.astype(np.int16))
        depth, height, width = series.volume.shape
        volumes.append(
            VolumeRecord(
                id=name, patient=f"{patient:06d}", study=f"{series.study:02d}", series=f"{series.series:02d}",
                source={"kind": "npy", "path": f"volumes/{name}.npy"}, first_slice=0, num_slices=depth,
                shape_yx=(height, width), spacing_mm=series.volume.spacing_mm,
            )
        )  # fmt: skip
    return volumes
