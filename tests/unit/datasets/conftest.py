"""A small data set in DeepLesion's layout, and annotation files over it."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

ROW = {
    "File_name": "000001_01_01_005.png",
    "Patient_index": "1",
    "Study_index": "1",
    "Series_ID": "1",
    "Key_slice_index": "5",
    "Measurement_coordinates": "11, 12, 15, 18, 10, 16, 16, 14",
    "Bounding_boxes": "5.5, 7, 21, 23.25",
    "Lesion_diameters_Pixel_": "7.5, 6",
    "Normalized_lesion_location": "0.5, 0.4, 0.3",
    "Coarse_lesion_type": "5",
    "Possibly_noisy": "0",
    "Slice_range": "3, 7",
    "Spacing_mm_px_": "0.8, 0.8, 5",
    "Image_size": "32, 32",
    "DICOM_windows": "-175, 275",
    "Patient_gender": "F",
    "Patient_age": "62",
    "Train_Val_Test": "1",
}


def _write_csv(path: Path, rows: Iterable[dict[str, str]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROW))
        writer.writeheader()
        for row in rows:
            key_slice = row.get("File_name", ROW["File_name"])[-7:-4]
            writer.writerow({**ROW, "Key_slice_index": key_slice, **row})


def _write_slices(folder: Path, indices: Iterable[int], shape: tuple[int, int] = (32, 32)) -> None:
    """Slice i holds i HU everywhere, but 100 + i in its upper left pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in indices:
        values = np.full(shape, 32768 + index, np.uint16)
        values[0, 0] += 100
        assert cv2.imwrite(str(folder / f"{index:03d}.png"), values)


@pytest.fixture
def write_csv() -> Callable[..., None]:
    """``write_csv(path, rows)``: rows in DL_info's columns; what a row leaves out is as in a sound row."""
    return _write_csv


@pytest.fixture
def write_slices() -> Callable[..., None]:
    """``write_slices(folder, indices, shape)``: PNG slices whose HU tell their number."""
    return _write_slices


@pytest.fixture
def write_annotations(tmp_path: Path) -> Callable[..., Path]:
    """``write_annotations(lesions, ...)``: two volumes with slices, ``a`` (0 to 9, 5 mm) and ``b`` (20 to 23, 1 mm)."""

    def write(lesions: Iterable[dict[str, Any]]) -> Path:
        volumes = []
        for name, first, count, interval in (("a", 0, 10, 5.0), ("b", 20, 4, 1.0)):
            if not (tmp_path / "Images_png" / name).exists():  # a test may build several
                _write_slices(tmp_path / "Images_png" / name, range(first, first + count))
            source = {"kind": "png16", "path": f"Images_png/{name}"}
            volumes.append(
                VolumeRecord(name, f"patient-{name}", "1", "1", source, first, count, (32, 32), (interval, 0.8, 0.8))
            )
        records = [LesionRecord(**({"id": index} | lesion)) for index, lesion in enumerate(lesions)]
        AnnotationSet({"name": "test", "label_scope": "universal-complete"}, volumes, records).save(
            tmp_path / "annotations" / "train.json"
        )
        return tmp_path

    return write
