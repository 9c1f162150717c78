"""Writing phantoms as LUNA16, LiTS and NIH-LN store their CTs: names, file types, axis orders and units of each.

As with the real datasets, one kind of lesion is labelled in each and all others are in the images without a label:
lung lesions, liver lesions, and mediastinal or abdominal ones in the place of lymph nodes. The complete truth is beside
it, ``truth/complete.json``, with the volume ids that the converters give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_path, atomic_write_text
from mmpluld.errors import InputError
from mmpluld.phantom.case import PhantomSeries, make_case
from mmpluld.phantom.folder import phantom_folder
from mmpluld.phantom.layout_nih_ln import nih_ln_case, write_nih_ln_series
from mmpluld.phantom.placement import centre_and_sides, flipped, full_mask
from mmpluld.phantom.pool import in_order
from mmpluld.phantom.spec import PhantomSpec
from mmpluld.progress import track
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord
from mmpluld.typing import StrPath

__all__ = ["LAYOUT_REGIONS", "write_lits_layout", "write_luna16_layout", "write_nih_ln_layout"]

_NAMES = {
    "luna16": ("subset?", "annotations.csv", "annotations_excluded.csv", "candidates_V2.csv", "seriesuids.csv"),
    "lits": ("volume-*.nii", "segmentation-*.nii"),
    "nih-ln": ("CT Lymph Nodes", "MED_ABD_LYMPH_MASKS", "MED_ABD_LYMPH_ANNOTATIONS"),
}
_UID = "1.2.826.0.1.3680043.10.1338"
_LIVER_REACH_MM = 12.0
LAYOUT_REGIONS = {"luna16": ("chest",), "lits": ("abdomen",), "nih-ln": ("chest", "abdomen")}
"""Regions of each layout unless the settings say others: where the lesions are that the dataset labels."""

# Writes one series under the root; returns the id that the converter gives it, and lines of the dataset's tables.
_Writer = Callable[[Path, int, PhantomSeries], tuple[str, dict[str, list[str]]]]


@dataclass(frozen=True)
class _Written:
    """What one patient adds to the truth and to the tables."""

    volume: VolumeRecord
    lesions: list[LesionRecord]
    tables: dict[str, list[str]]


def write_luna16_layout(
    out: StrPath,
    num_patients: int = 20,
    seed: int = 0,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Path:
    """Write chest phantoms as LUNA16: ``subset0..9/<series UID>.mhd`` and ``.raw``, ``annotations.csv`` and more.

    Slices run upwards, and every third header reverses x and y, as some of the real ones do. ``annotations.csv`` holds
    the lung lesions (centre in LPS mm, mean diameter), ``annotations_excluded.csv`` the lesions of the mediastinum
    without diameter (-1), ``candidates_V2.csv`` both, ``seriesuids.csv`` all scans.

    Args:
        out: Folder to make.
        num_patients: Scans, one for each patient, dealt to ten subsets in turn.
        seed: Same seed and settings give the same files; no patient is one of another layout, and more
            of them leave the first as they are.
        workers: Processes; None takes one per core.
        overwrite: Replace what an earlier call wrote there; other folders are never touched.
        settings: Fields of `PhantomSpec`; ``regions`` is the chest unless given.

    Returns:
        `out`.

    Raises:
        InputError: If `out` is a non-empty folder and `overwrite` is False, or a setting is invalid.
    """
    root = Path(out)
    return _write(
        root, "luna16", num_patients, seed, workers=workers, overwrite=overwrite, settings=settings, write=_luna16,
        write_tables=partial(_luna16_tables, root),
    )  # fmt: skip


def _luna16_tables(root: Path, written: list[_Written]) -> None:
    head = "seriesuid,coordX,coordY,coordZ,"
    for name, header in (
        ("annotations", f"{head}diameter_mm\n"),
        ("annotations_excluded", f"{head}diameter_mm\n"),
        ("candidates_V2", f"{head}class\n"),
        ("seriesuids", ""),
    ):
        atomic_write_text(
            root / f"{name}.csv", header + "".join(f"{line}\n" for item in written for line in item.tables[name])
        )


def write_lits_layout(
    out: StrPath,
    num_patients: int = 20,
    seed: int = 0,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Path:
    """Write abdominal phantoms as LiTS: ``volume-N.nii`` and ``segmentation-N.nii`` (1 liver, 2 tumour).

    File axes differ from volume to volume, as in the real dataset. Label 1 is soft tissue within 12 mm of a tumour,
    not the whole organ. Arguments, result and errors are those of `write_luna16_layout`; ``regions`` is the abdomen
    unless given.
    """
    return _write(
        Path(out), "lits", num_patients, seed, workers=workers, overwrite=overwrite, settings=settings, write=_lits
    )


def write_nih_ln_layout(
    out: StrPath,
    num_patients: int = 20,
    seed: int = 0,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Path:
    """Write phantoms as NIH-LN: DICOM series, instance masks and text annotations.

    ``CT Lymph Nodes/<id>/<study>/<series>/1-NNN.dcm``; ``MED_ABD_LYMPH_MASKS/<id>/<id>_mask.nii.gz``, one integer for
    each node; ``MED_ABD_LYMPH_ANNOTATIONS/<id>/<id>_lymphnodes_{indices,physicalPoints,sizes}.txt``. Even patients are
    abdominal (ABD_LYMPH_NNN, two diameters), odd ones mediastinal (MED_LYMPH_NNN, the short one only). Each has a node,
    if ten draws yield one. Arguments, result and errors are those of `write_luna16_layout`; ``regions`` are chest and
    abdomen unless given, of which each patient takes those where its nodes are.
    """
    return _write(
        Path(out), "nih-ln", num_patients, seed, workers=workers, overwrite=overwrite, settings=settings,
        write=_nih_ln,
    )  # fmt: skip


def _write(
    root: Path,
    layout: str,
    count: int,
    seed: int,
    *,
    overwrite: bool,
    workers: int | None,
    settings: dict[str, Any],
    write: _Writer,
    write_tables: Callable[[list[_Written]], None] = lambda _: None,
) -> Path:
    """Make the patients, write each with ``write``, then the tables and the truth."""
    if count < 1:
        raise InputError(f"phantom num_patients={count!r}: must be 1 or more")
    spec = PhantomSpec.from_settings({"regions": LAYOUT_REGIONS[layout]} | settings)
    record = {"layout": layout, "seed": seed, "num_patients": count, **asdict(spec)}
    job = partial(_write_patient, root=root, layout=layout, seed=seed, spec=spec, write=write)
    with phantom_folder(root, record, _NAMES[layout], overwrite):
        patients = range(1, count + 1)
        written = list(track(in_order(job, patients, workers), "writing phantoms", total=count))
        write_tables(written)
        lesions = [lesion for item in written for lesion in item.lesions]
        for index, lesion in enumerate(lesions):
            lesion.id = index
        dataset = {"name": f"phantom-{layout}", "label_scope": "universal-complete"}
        truth = AnnotationSet(dataset, [item.volume for item in written], lesions)
        truth.save(root / "truth" / "complete.json")
    return root


def _write_patient(patient: int, *, root: Path, layout: str, seed: int, spec: PhantomSpec, write: _Writer) -> _Written:
    """Make and write one patient."""
    if layout == "nih-ln":
        series = nih_ln_case(seed, patient, spec).series[0]
    else:
        series = make_case(seed, layout, patient, spec).series[0]
    name, tables = write(root, patient, series)
    depth, height, width = series.volume.shape
    source = {"kind": "npy", "path": f"volumes/{name}.npy"}
    volume = VolumeRecord(name, str(patient), "1", "1", source, 0, depth, (height, width), series.volume.spacing_mm)
    lesions = []
    for lesion in series.lesions:
        x1, y1, z1, x2, y2, z2 = map(float, lesion.mask_box)
        lesions.append(LesionRecord(0, name, (x1, y1, z1, x2, y2, z2), lesion.key_slice, type=lesion.type_name))
    return _Written(volume, lesions, tables)


def _nih_ln(root: Path, patient: int, series: PhantomSeries) -> tuple[str, dict[str, list[str]]]:
    return write_nih_ln_series(root, patient, series), {}


def _luna16(root: Path, patient: int, series: PhantomSeries) -> tuple[str, dict[str, list[str]]]:
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
    tables: dict[str, list[str]] = {
        "annotations": [],
        "annotations_excluded": [],
        "candidates_V2": [],
        "seriesuids": [uid],
    }
    for lesion in series.lesions:
        centre, sides = centre_and_sides(series, lesion)
        place = f"{uid}," + ",".join(f"{value:.7g}" for value in centre)
        if lesion.type_name == "lung":
            tables["annotations"].append(f"{place},{sum(sides) / 3:.7g}")
            tables["candidates_V2"].append(f"{place},1")
        elif lesion.type_name == "mediastinum":
            tables["annotations_excluded"].append(f"{place},-1")
            tables["candidates_V2"].append(f"{place},0")
    return uid, tables


def _lits(root: Path, patient: int, series: PhantomSeries) -> tuple[str, dict[str, list[str]]]:
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
    return f"volume-{number}", {}
