"""Writing phantoms as LUNA16, LiTS and NIH-LN store their CTs: names, file types, axis orders and units of each.

As with the real datasets, one kind of lesion is labelled in each and all others are in the images without a label:
lung lesions, liver lesions, and mediastinal or abdominal ones in the place of lymph nodes. The complete truth is beside
it, ``truth/complete.json``, with the volume ids that the converters give.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_path, atomic_write_text
from mmpluld.errors import InputError
from mmpluld.phantom.case import PhantomSeries, make_case
from mmpluld.phantom.folder import SETTINGS, phantom_folder
from mmpluld.phantom.layout_nih_ln import write_nih_ln_series
from mmpluld.phantom.placement import centre_and_sides, flipped, full_mask
from mmpluld.phantom.spec import PhantomSpec
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord
from mmpluld.typing import StrPath

__all__ = ["write_lits_layout", "write_luna16_layout", "write_nih_ln_layout"]

_NAMES = {
    "luna16": ("subset?", "annotations.csv", "annotations_excluded.csv", "candidates_V2.csv", "seriesuids.csv"),
    "lits": ("volume-*.nii", "segmentation-*.nii"),
    "nih-ln": ("CT Lymph Nodes", "MED_ABD_LYMPH_MASKS", "MED_ABD_LYMPH_ANNOTATIONS"),
}
_UID = "1.2.826.0.1.3680043.10.1338"
_LIVER_REACH_MM = 12.0
# Writes one series under the root and returns the id that the converter gives it.
_Writer = Callable[[Path, int, PhantomSeries], str]


def write_luna16_layout(
    out: StrPath, num_patients: int = 20, seed: int = 0, *, overwrite: bool = False, **settings: Any
) -> Path:
    """Write chest phantoms as LUNA16: ``subset0..9/<series UID>.mhd`` and ``.raw``, ``annotations.csv`` and more.

    Slices run upwards, and every third header reverses x and y, as some of the real ones do. ``annotations.csv`` holds
    the lung lesions (centre in LPS mm, mean diameter), ``annotations_excluded.csv`` the lesions of the mediastinum
    without diameter (-1), ``candidates_V2.csv`` both, ``seriesuids.csv`` all scans.

    Args:
        out: Folder to make.
        num_patients: Scans, one for each patient, dealt to ten subsets in turn.
        seed: Same seed and settings give the same files.
        overwrite: Replace what an earlier call wrote there; other folders are never touched.
        settings: Fields of `PhantomSpec`; ``regions`` is the chest unless given.

    Returns:
        `out`.

    Raises:
        InputError: If `out` is a non-empty folder and `overwrite` is False, or a setting is invalid.
    """
    root = Path(out)
    tables: dict[str, list[str]] = {
        "annotations": [],
        "annotations_excluded": [],
        "candidates_V2": [],
        "seriesuids": [],
    }
    settings = {"regions": ("chest",)} | settings
    return _write(
        root,
        "luna16",
        num_patients,
        seed,
        overwrite,
        settings,
        partial(_luna16, tables),
        partial(_luna16_tables, root, tables),
    )


def _luna16_tables(root: Path, tables: dict[str, list[str]]) -> None:
    head = "seriesuid,coordX,coordY,coordZ,"
    for name, header in (
        ("annotations", f"{head}diameter_mm\n"),
        ("annotations_excluded", f"{head}diameter_mm\n"),
        ("candidates_V2", f"{head}class\n"),
        ("seriesuids", ""),
    ):
        atomic_write_text(root / f"{name}.csv", header + "".join(f"{line}\n" for line in tables[name]))


def write_lits_layout(
    out: StrPath, num_patients: int = 20, seed: int = 0, *, overwrite: bool = False, **settings: Any
) -> Path:
    """Write abdominal phantoms as LiTS: ``volume-N.nii`` and ``segmentation-N.nii`` (1 liver, 2 tumour).

    File axes differ from volume to volume, as in the real dataset. Label 1 is soft tissue within 12 mm of a tumour,
    not the whole organ. Arguments, result and errors are those of `write_luna16_layout`; ``regions`` is the abdomen
    unless given.
    """
    return _write(Path(out), "lits", num_patients, seed, overwrite, {"regions": ("abdomen",)} | settings, _lits)


def write_nih_ln_layout(
    out: StrPath, num_patients: int = 20, seed: int = 0, *, overwrite: bool = False, **settings: Any
) -> Path:
    """Write phantoms as NIH-LN: DICOM series, instance masks and text annotations.

    ``CT Lymph Nodes/<id>/<study>/<series>/1-NNN.dcm``; ``MED_ABD_LYMPH_MASKS/<id>/<id>_mask.nii.gz``, one integer for
    each node; ``MED_ABD_LYMPH_ANNOTATIONS/<id>/<id>_lymphnodes_{indices,physicalPoints,sizes}.txt``. Even patients are
    abdominal (ABD_LYMPH_NNN, two diameters), odd ones mediastinal (MED_LYMPH_NNN, the short one only); give the
    regions ``("chest", "abdomen")`` by `settings` to change what is drawn. Arguments, result and errors are those of
    `write_luna16_layout`.
    """
    return _write(Path(out), "nih-ln", num_patients, seed, overwrite, settings, write_nih_ln_series)


def _write(
    root: Path,
    layout: str,
    count: int,
    seed: int,
    overwrite: bool,
    settings: dict[str, Any],
    write: _Writer,
    write_tables: Callable[[], None] = lambda: None,
) -> Path:
    """Make the patients, write each with ``write``, then the tables and the truth."""
    if seed < 0:
        raise InputError(f"phantom seed={seed}: must be 0 or more")
    if count < 1:
        raise InputError(f"phantom num_patients={count!r}: must be 1 or more")
    spec = PhantomSpec.from_settings(settings)
    record = {"layout": layout, "seed": seed, "num_patients": count, **asdict(spec)}
    truth = AnnotationSet({"name": f"phantom-{layout}", "label_scope": "universal-complete"})
    with phantom_folder(root, layout, _NAMES[layout], overwrite):
        atomic_write_text(root / SETTINGS, json.dumps(record, indent=1) + "\n")
        for patient in track(range(1, count + 1), "writing phantoms", total=count):
            series = make_case(seed, patient, spec).series[0]
            _add(truth, series, write(root, patient, series), patient)
        write_tables()
        truth.save(root / "truth" / "complete.json")
    return root


def _add(truth: AnnotationSet, series: PhantomSeries, name: str, patient: int) -> None:
    """Add one patient's series and all its lesions."""
    depth, height, width = series.volume.shape
    source = {"kind": "npy", "path": f"volumes/{name}.npy"}
    truth.volumes.append(
        VolumeRecord(name, str(patient), "1", "1", source, 0, depth, (height, width), series.volume.spacing_mm)
    )
    for lesion in series.lesions:
        box = tuple(float(edge) for edge in lesion.mask_box)
        truth.lesions.append(
            LesionRecord(len(truth.lesions), name, box, lesion.key_slice, type=lesion.type_name)  # type: ignore[arg-type]
        )


def _luna16(tables: dict[str, list[str]], root: Path, patient: int, series: PhantomSeries) -> str:
    import SimpleITK as sitk

    uid = f"{_UID}.{patient}"
    # Upwards, and for some also to the right and to the front.
    flips = (0, 1, 2) if patient % 3 == 0 else (0,)
    array, affine = flipped(series.volume.array, series.volume.affine_lps, flips)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    folder = root / f"subset{(patient - 1) % 10}"
    folder.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(folder / f"{uid}.mhd"))
    tables["seriesuids"].append(uid)
    for lesion in series.lesions:
        centre, sides = centre_and_sides(series, lesion)
        place = f"{uid}," + ",".join(f"{value:.7g}" for value in centre)
        if lesion.type_name == "lung":
            tables["annotations"].append(f"{place},{sum(sides) / 3:.7g}")
            tables["candidates_V2"].append(f"{place},1")
        elif lesion.type_name == "mediastinum":
            tables["annotations_excluded"].append(f"{place},-1")
            tables["candidates_V2"].append(f"{place},0")
    return uid


def _lits(root: Path, patient: int, series: PhantomSeries) -> str:
    import nibabel as nib
    from scipy import ndimage

    number = patient - 1
    hu = series.volume.array
    labels = np.zeros(hu.shape, np.uint8)
    tumours = np.zeros(hu.shape, np.bool_)
    for lesion in series.lesions:
        if lesion.type_name == "liver":
            tumours |= full_mask(series, lesion)
    if tumours.any():
        reach = ndimage.distance_transform_edt(~tumours, sampling=series.volume.spacing_mm)
        labels[(reach < _LIVER_REACH_MM) & (hu > -200)] = 1
        labels[tumours] = 2
    flips = ((0,), (0, 1), (0, 2), ())[number % 4]
    for stem, array in (("volume", hu), ("segmentation", labels)):
        stored, affine = flipped(array, series.volume.affine_lps, flips)
        ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        image: Any = nib.Nifti1Image(stored.transpose(), ras)
        image.header.set_xyzt_units("mm")
        with atomic_path(root / f"{stem}-{number}.nii") as temporary:
            nib.save(image, temporary)
    return f"volume-{number}"
