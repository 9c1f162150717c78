"""The complete truth beside a phantom of DeepLesion's layout.

- ``{train,val,test}.json``: all lesions in 3D; a box holds the whole lesion, it is the hull of its padded 2D boxes;
  ``attributes.marked`` tells which are in the CSV, ``attributes.slice_boxes`` the 2D boxes of the cross-sections that
  training on single slices takes;
- ``{train,val,test}_key_slices.json``: all lesions on every marked key slice, in 2D;
- ``train_unmarked_ignored.json``: the same, and to be ignored is every lesion that has no mark there: what a training
  has that knows where it must not learn background;
- ``{val,test}_subvolumes.json``: all lesions in 3D of a part of each series, as in DeepLesion's manually labelled ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmpluld.phantom.case import PhantomCase, PhantomLesion, PhantomSeries
from mmpluld.phantom.subvolumes import cut_subvolumes
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

__all__ = [
    "TRUTH",
    "WHOLE_SHARE",
    "attributes_of",
    "save_truth",
    "spacing_xyz",
    "truth_3d",
    "truth_on_key_slices",
    "volume_record",
    "window_of",
]

TRUTH = {"name": "phantom", "label_scope": "universal-complete"}
"""Header of the truth's files."""

WHOLE_SHARE = 0.7
"""A cross-section whose long diameter is a smaller share of the lesion's largest is a cap that shows little of it.

Nobody would measure the lesion there, and marks that are carried over to other slices end before it. So it counts in 2D
neither as a lesion nor as background. In 3D it belongs to the lesion, as it does to the masks of other data sets.
"""


def save_truth(
    folder: Path,
    split: str,
    volumes: list[VolumeRecord],
    lesions: list[LesionRecord],
    key_lesions: list[LesionRecord],
) -> None:
    """Write the truth of one split; lesions get their numbers, in order.

    Args:
        folder: Folder of the truth.
        split: ``train``, ``val`` or ``test``.
        volumes: Series of its patients.
        lesions: Their lesions in 3D.
        key_lesions: Their lesions on marked key slices.
    """

    def whole(found: Sequence[LesionRecord]) -> AnnotationSet:
        return AnnotationSet(dict(TRUTH), volumes, [replace(item, id=index) for index, item in enumerate(found)])

    in_3d = whole(lesions)
    in_3d.save(folder / f"{split}.json")
    whole(key_lesions).save(folder / f"{split}_key_slices.json")
    if split == "train":
        ignored = [replace(item, ignore=item.ignore or not item.attributes["marked"]) for item in key_lesions]
        whole(ignored).save(folder / "train_unmarked_ignored.json")
    else:
        cut_subvolumes(in_3d).save(folder / f"{split}_subvolumes.json")


def _is_whole(lesion: PhantomLesion, number: int) -> bool:
    """Whether a lesion's cross-section with a slice, counted from 0, is large enough to stand for it."""
    largest = max(mark.long_px for mark in lesion.slices.values())
    return number == lesion.key_slice or lesion.slices[number].long_px >= WHOLE_SHARE * largest


def spacing_xyz(series: PhantomSeries) -> tuple[float, float, float]:
    """Voxel size in mm as DeepLesion's table prints it."""
    z, y, x = series.volume.spacing_mm
    return float(f"{x:.6g}"), float(f"{y:.6g}"), float(f"{z:.6g}")


def volume_record(case: PhantomCase, series: PhantomSeries, first: int, last: int) -> VolumeRecord:
    """A series of which the slices from ``first`` to ``last`` are written."""
    name = case.series_id(series)
    patient, study, number = name.split("_")
    shape = series.volume.shape
    return VolumeRecord(
        id=name, patient=patient, study=study, series=number, source={"kind": "png16", "path": f"Images_png/{name}"},
        first_slice=first, num_slices=last - first + 1, shape_yx=(shape[1], shape[2]),
        spacing_mm=spacing_xyz(series)[::-1],
    )  # fmt: skip


def window_of(lesion: PhantomLesion) -> tuple[float, float]:
    """Lowest and highest HU of the window in which a lesion of this type is read."""
    return {5: (-1500.0, 500.0), 1: (-500.0, 1300.0)}.get(lesion.type, (-175.0, 275.0))


def attributes_of(lesion: PhantomLesion, **more: Any) -> dict[str, Any]:
    """What the truth tells of a lesion beside its box."""
    return {
        "marked": lesion.marked and not lesion.noisy,
        "lesion": lesion.number,
        "contrast_hu": round(lesion.contrast_hu, 1),
        **more,
    }


def truth_3d(case: PhantomCase, series: PhantomSeries, first: int, last: int) -> list[LesionRecord]:
    """3D records of all lesions within the slices from ``first`` to ``last``; slices count from 1, as the PNGs do."""
    records = []
    shift = (0, 0, 1, 0, 0, 1)
    for lesion in series.lesions:
        x1, y1, z1, x2, y2, z2 = lesion.box
        mask_box = [edge + more for edge, more in zip(lesion.mask_box, shift, strict=True)]
        low, high = max(z1 + 1, first), min(z2 + 1, last + 1)
        if low >= high:
            continue
        key = lesion.key_slice + 1
        inside = first <= key <= last
        boxes = [
            [number + 1, *mark.box]
            for number, mark in sorted(lesion.slices.items())
            if first <= number + 1 <= last and _is_whole(lesion, number)
        ]
        records.append(
            LesionRecord(
                id=0, volume=case.series_id(series), box=(x1, y1, low, x2, y2, high), key_slice=key if inside else None,
                recist=lesion.slices[lesion.key_slice].recist if inside else None, type=lesion.type_name,
                attributes=attributes_of(lesion, mask_box=mask_box, slice_boxes=boxes),
            )
        )  # fmt: skip
    return records


def truth_on_key_slices(case: PhantomCase, series: PhantomSeries, age: str) -> list[LesionRecord]:
    """2D records of all lesions on every key slice that carries a mark that is not noisy.

    Cross-sections that are not whole are to be ignored. The records tell window, position, sex and age as the
    converted CSV does, so that models that use them can be tested.
    """
    depth, height, width = series.volume.shape
    patient = {"gender": case.sex, "age": None if age == "NaN" else float(age)}
    keys = sorted({lesion.key_slice for lesion in series.lesions if lesion.marked and not lesion.noisy})
    records = []
    for key in keys:
        for lesion in series.lesions:
            mark = lesion.slices.get(key)
            if mark is None:
                continue
            x1, y1, x2, y2 = mark.box
            marked = lesion.key_slice == key and lesion.marked and not lesion.noisy
            place = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (key + 0.5) / depth]
            context = {
                "normalized_location": [round(value, 6) for value in place],
                "window_hu": list(window_of(lesion)),
                **patient,
            }
            records.append(
                LesionRecord(
                    id=0, volume=case.series_id(series), box=(x1, y1, key + 1.0, x2, y2, key + 2.0), key_slice=key + 1,
                    recist=mark.recist, type=lesion.type_name,
                    attributes=attributes_of(lesion, **context) | {"marked": marked}, ignore=not _is_whole(lesion, key),
                )
            )  # fmt: skip
    return records
