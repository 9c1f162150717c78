"""DICOM folders: find the CT series, order its slices by position, and refuse what cannot be one regular volume."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.errors import InputError, did_you_mean
from mmpluld.io.faults import captured_stderr, quiet, reading
from mmpluld.io.hounsfield import Units, to_hu
from mmpluld.progress import track
from mmpluld.structures.volume import CTVolume
from mmpluld.typing import FloatArray

__all__ = ["read_dicom_folder"]

_CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
_TAGS = [
    "SOPClassUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "Modality",
    "ImageType",
    "NumberOfFrames",
    "SamplesPerPixel",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
]
_NEEDED = {"Rows": 1, "Columns": 1, "PixelSpacing": 2, "ImagePositionPatient": 3, "ImageOrientationPatient": 6}
# Positions are often rounded to 0.1 mm, which may move a gap by that much.
_ROUNDING_MM = 0.11


@dataclass(frozen=True)
class _Slice:
    """Header of one CT image file. Positions and directions are LPS."""

    file: Path
    series: str
    position: FloatArray
    row_direction: FloatArray
    column_direction: FloatArray
    pixel_spacing: tuple[float, float]
    shape_yx: tuple[int, int]
    thickness: float

    @property
    def normal(self) -> FloatArray:
        return np.cross(self.row_direction, self.column_direction)


def read_dicom_folder(folder: Path, series: str | None = None, units: Units | None = None) -> CTVolume:
    """Read one CT series of a folder.

    File axes of the result: i = column, j = row, k = slice, ordered along the normal (row direction x column
    direction). Slices shifted evenly within their plane (gantry tilt) give a sheared affine.

    Args:
        folder: Searched with its subfolders; files are recognised by content.
        series: SeriesInstanceUID, needed if there are several CT series.
        units: See :func:`~mmpluld.io.hounsfield.to_hu`.

    Raises:
        InputError: If there is no CT series, or several and none is chosen; if its slices differ in size or direction,
            are missing, doubled, or unevenly spaced; or if a file is damaged, in colour, or multi-frame.
    """
    with quiet("pydicom"):
        by_series, skipped = _scan(folder)
        headers = _choose(folder, by_series, skipped, series)
        slices = _sorted_slices(folder, [_parsed(file, header) for file, header in headers])
        affine = _affine(folder, slices)
        raw, slopes, intercepts = _pixels(slices)
    history = [f"DICOM series {slices[0].series}, {len(slices)} slices"]
    names = [item.file.name for item in slices]
    hu = to_hu(raw.transpose(), slopes, intercepts, source=str(folder), units=units, notes=history, slice_names=names)
    if skipped:
        listed = ", ".join(f"{count} {what}" for what, count in sorted(skipped.items()))
        history.append(f"skipped files that are not CT images: {listed}")
    return CTVolume.from_file_array(hu, affine, str(folder), history)


def _scan(folder: Path) -> tuple[dict[str, list[tuple[Path, Any]]], Counter[str]]:
    """Read all headers; return CT images by series, and how many files of which kind were passed over."""
    import pydicom

    by_series: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    skipped: Counter[str] = Counter()
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if not files:
        raise InputError(f"{folder}: the folder is empty; give a folder of DICOM files, or a volume file")
    for file in track(files, "reading headers"):
        with reading(file, "DICOM"):
            try:
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
            except pydicom.errors.InvalidDicomError:
                skipped["not DICOM"] += 1
                continue
            modality = header.get("Modality") or ("CT" if header.get("SOPClassUID") == _CT_STORAGE else "unknown")
            if modality != "CT":
                skipped[str(modality)] += 1
            elif "LOCALIZER" in (header.get("ImageType") or ()):
                skipped["localizer"] += 1
            else:
                by_series[str(header.get("SeriesInstanceUID", ""))].append((file, header))
    return by_series, skipped


def _choose(
    folder: Path, by_series: dict[str, list[tuple[Path, Any]]], skipped: Counter[str], series: str | None
) -> list[tuple[Path, Any]]:
    listed = ", ".join(f"{uid} ({len(items)} files)" for uid, items in sorted(by_series.items()))
    if not by_series:
        found = ", ".join(f"{count} {what}" for what, count in sorted(skipped.items()))
        raise InputError(f"{folder}: no CT image among its files (found {found}); give a folder with a CT series")
    if series is not None:
        if series not in by_series:
            hint = did_you_mean(series, by_series, "choose one of them")
            raise InputError(f"{folder}: no CT series '{series}'; there are {listed}{hint}")
        return by_series[series]
    if len(by_series) > 1:
        raise InputError(f"{folder}: {len(by_series)} CT series: {listed}; choose one with --series UID")
    return next(iter(by_series.values()))


def _parsed(file: Path, header: Any) -> _Slice:
    """Check one header and keep its geometry; its values are decoded only now."""
    with reading(file, "DICOM"), np.errstate(over="ignore"):
        return _parse(file, header)


def _parse(file: Path, header: Any) -> _Slice:
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise InputError(
            f"{file}: multi-frame DICOM ({header.NumberOfFrames} frames); allowed is one slice a file, "
            "convert the scan to NIfTI"
        )
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise InputError(
            f"{file}: colour image ({header.SamplesPerPixel} samples a pixel); allowed is a CT in HU, "
            "give the original series instead of a screenshot"
        )
    for tag, count in _NEEDED.items():
        value = header.get(tag)
        if value is None or np.size(value) != count:
            raise InputError(f"{file}: {tag} is {value}; needed are {count} numbers, export the series again")
    orientation = np.array(header.ImageOrientationPatient, dtype=np.float64)
    spacing = (float(header.PixelSpacing[0]), float(header.PixelSpacing[1]))
    position = np.array(header.ImagePositionPatient, dtype=np.float64)
    upright = abs(np.linalg.norm(np.cross(orientation[:3], orientation[3:])) - 1.0) < 0.01
    if not (upright and np.isfinite(position).all() and 0 < min(spacing) <= max(spacing) < np.inf):
        raise InputError(
            f"{file}: position {position.tolist()}, orientation {orientation.tolist()}, pixel spacing {list(spacing)}; "
            "needed are finite numbers, unit directions and a spacing above 0, export the series again"
        )
    return _Slice(
        file=file,
        series=str(header.get("SeriesInstanceUID", "")),
        position=position,
        row_direction=orientation[:3],
        column_direction=orientation[3:],
        pixel_spacing=spacing,
        shape_yx=(int(header.Rows), int(header.Columns)),
        thickness=float(header.get("SliceThickness") or 0.0),
    )


def _sorted_slices(folder: Path, slices: list[_Slice]) -> list[_Slice]:
    """Order slices along their normal; all must lie on the same grid."""
    first = slices[0]
    for other in slices[1:]:
        for what, one, two, tolerance in (
            ("image size", first.shape_yx, other.shape_yx, 0.0),
            ("pixel spacing", first.pixel_spacing, other.pixel_spacing, 1e-3),
            ("row direction", first.row_direction, other.row_direction, 1e-3),
            ("column direction", first.column_direction, other.column_direction, 1e-3),
        ):
            if not np.allclose(one, two, rtol=0.0, atol=tolerance):
                raise InputError(
                    f"{folder}: {what} is {np.asarray(one).tolist()} in {first.file.name} but "
                    f"{np.asarray(two).tolist()} in {other.file.name}; a series needs one, keep files of one scan"
                )
    return sorted(slices, key=lambda item: (float(item.position @ first.normal), item.file))


def _affine(folder: Path, slices: list[_Slice]) -> FloatArray:
    """Return voxel (i, j, k) to LPS; refuse missing, doubled and uneven slices."""
    first = slices[0]
    positions = np.array([item.position for item in slices])
    depth = positions @ first.normal
    gaps = np.diff(depth)
    if gaps.size:
        _check_gaps(folder, slices, depth, gaps)
        step = (positions[-1] - positions[0]) / gaps.size
        strays = np.linalg.norm(positions - positions[0] - np.arange(len(slices))[:, None] * step, axis=1)
        worst = int(strays.argmax())
        if strays[worst] > 0.5 * np.linalg.norm(step):
            raise InputError(
                f"{folder}: {slices[worst].file.name} lies {strays[worst]:.2f} mm off the line of the other slices; "
                "allowed is one even stack, keep the files of one scan"
            )
    elif first.thickness > 0:
        step = first.normal * first.thickness
    else:
        raise InputError(f"{folder}: one slice without SliceThickness; needed is a volume, add the other slices")
    affine = np.eye(4)
    affine[:3, 0] = first.row_direction * first.pixel_spacing[1]
    affine[:3, 1] = first.column_direction * first.pixel_spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return affine


def _check_gaps(folder: Path, slices: list[_Slice], depth: FloatArray, gaps: FloatArray) -> None:
    def between(gap: int) -> str:
        return (
            f"{slices[gap].file.name} (at {depth[gap]:.2f} mm) and "
            f"{slices[gap + 1].file.name} (at {depth[gap + 1]:.2f} mm)"
        )

    smallest = int(gaps.argmin())
    if gaps[smallest] < 1e-3:
        raise InputError(f"{folder}: {between(smallest)} share one position; allowed is one file a slice, remove one")
    usual = float(np.median(gaps))
    worst = int(np.abs(gaps - usual).argmax())
    if gaps[worst] > 1.5 * usual:
        raise InputError(
            f"{folder}: slices are missing between {between(worst)}: the gap is {gaps[worst]:.2f} mm where others are "
            f"{usual:.2f} mm; add the missing files"
        )
    if abs(gaps[worst] - usual) > max(_ROUNDING_MM, 0.1 * usual):
        raise InputError(
            f"{folder}: uneven slice spacing: {gaps[worst]:.2f} mm between {between(worst)}, elsewhere {usual:.2f} mm; "
            "allowed is even spacing, resample the scan"
        )


def _pixels(slices: list[_Slice]) -> tuple[npt.NDArray[Any], list[float], list[float]]:
    """Return stored values (k, j, i) and each slice's rescale slope and intercept."""
    stack: npt.NDArray[Any] | None = None
    slopes, intercepts = [], []
    for k, item in enumerate(track(slices, "reading slices")):
        values, slope, intercept = _slice_pixels(item)
        if stack is None:
            stack = np.empty((len(slices), *item.shape_yx), dtype=values.dtype)
        elif values.dtype != stack.dtype:
            stack = stack.astype(np.result_type(stack, values))
        stack[k] = values
        slopes.append(slope)
        intercepts.append(intercept)
    assert stack is not None  # a series has at least one slice
    return stack, slopes, intercepts


def _slice_pixels(item: _Slice) -> tuple[npt.NDArray[Any], float, float]:
    """Return stored values (row, column), rescale slope and intercept."""
    import pydicom

    with reading(item.file, "DICOM"):
        dataset = pydicom.dcmread(item.file)
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax.is_compressed and syntax != pydicom.uid.RLELossless:
            return _itk_pixels(item), 1.0, 0.0
        values = dataset.pixel_array
        slope, intercept = dataset.get("RescaleSlope", 1.0), dataset.get("RescaleIntercept", 0.0)
        return values.reshape(item.shape_yx), float(slope), float(intercept)


def _itk_pixels(item: _Slice) -> npt.NDArray[Any]:
    """Decode JPEG of any kind with ITK, which applies the rescale itself."""
    import SimpleITK as sitk

    with captured_stderr():
        values: npt.NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(str(item.file)))
    return values.reshape(item.shape_yx)
