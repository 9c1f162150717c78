"""Helpers that tests of several parts share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans and annotations; tests that need it are skipped without it."""
    folder = os.environ.get("MMPLULD_TEST_DATA")
    if not folder:
        pytest.skip("set MMPLULD_TEST_DATA to the folder with the real data to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def write_dicom_series() -> Callable[..., list[Path]]:
    """Function that writes an (i, j, k) int array in HU as single-slice CT files and returns them in k order."""
    return _write_dicom_series


def _write_dicom_series(
    folder: Path,
    array_ijk: np.ndarray,
    affine_lps: np.ndarray,
    series: str = "1.2.3",
    prefix: str = "IM",
    intercept: int = -1024,
    **tags: Any,
) -> list[Path]:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    spacing = np.linalg.norm(affine_lps[:3, :3], axis=0)
    directions = affine_lps[:3, :3] / spacing
    files = []
    for k in range(array_ijk.shape[2]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{k + 1}"
        file = folder / f"{prefix}{(7 * k) % 101:04d}"  # names that do not follow the slice order
        dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.SeriesInstanceUID = series
        dataset.Modality = "CT"
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.Columns, dataset.Rows = array_ijk.shape[:2]
        dataset.PixelSpacing = [_number(spacing[1]), _number(spacing[0])]
        dataset.SliceThickness = _number(spacing[2])
        dataset.ImageOrientationPatient = [_number(x) for x in (*directions[:, 0], *directions[:, 1])]
        dataset.ImagePositionPatient = [_number(x) for x in (affine_lps @ [0, 0, k, 1])[:3]]
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit = 15
        dataset.PixelRepresentation = 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, intercept
        stored = array_ijk[:, :, k].T.astype(np.int32) - intercept
        dataset.PixelData = np.ascontiguousarray(stored, dtype="<u2").tobytes()
        for name, value in tags.items():
            setattr(dataset, name, value)
        dataset.save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def _number(value: float) -> str:
    """A DICOM decimal string: at most 16 characters."""
    return f"{value:.10f}"[:16]
