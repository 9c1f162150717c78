"""What DICOM objects on findings need of the scan's own images: geometry, references, and who the patient is."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.atomic import atomic_path
from mmpluld.errors import InputError, printable
from mmpluld.io.dicom_files import DicomImage, header_text, open_dicom
from mmpluld.io.dicom_geometry import TAGS, parse_slice
from mmpluld.io.faults import quiet
from mmpluld.io.findings.label_map import box_voxels
from mmpluld.progress import note
from mmpluld.structures import CTVolume, Finding, ScanFindings
from mmpluld.typing import FloatArray, StrPath
from mmpluld.version import __version__

__all__ = [
    "DESCRIPTION",
    "DicomSource",
    "algorithm_details",
    "check_source",
    "finding_uid",
    "lacks_findings",
    "long_string",
    "object_fields",
    "object_uid",
    "read_source",
    "save_dicom",
    "slice_rectangle",
]

DESCRIPTION = "Detected lesions (research use only)"
"""Of every series that is written."""
_UTF_8 = "ISO_IR 192"
_CT = "1.2.840.10008.5.1.4.1.1.2"
_NAMESPACE = uuid.UUID("5b1c3f2e-9c0e-5d0b-8f3e-0d6b8a4c7e21")
_REFERENCES = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# Of these an object has one; software that writes single images makes up another for each.
_SHARED = ("StudyInstanceUID", "FrameOfReferenceUID")
# What the standard wants in every object, but lets be empty: of the patient, and of the study.
_NAMES = ("PatientName", "ReferringPhysicianName")
_NUMBERS = ("PatientID", "AccessionNumber", "StudyID")
_DATES = {"PatientBirthDate": "DA", "StudyDate": "DA", "StudyTime": "TM"}
_NO_DATE, _NO_TIME = "19000101", "000000"


@dataclass(frozen=True)
class DicomSource:
    """The images of a scan.

    Attributes:
        images: One pydicom dataset a slice, in the order of file axis k, with geometry, UIDs and, if wanted, identity;
            without pixels.
        content_date: Day that objects get whose date the standard requires: that of the study where identity is
            wanted, else the first of 1900, so that equal runs give equal files.
        content_time: The time of day.
    """

    images: tuple[Any, ...]
    content_date: str
    content_time: str


def check_source(volume: CTVolume) -> None:
    """Check that DICOM objects can refer to a scan.

    Raises:
        InputError: It is no series of DICOM CT images, or they lack what references need.
    """
    read_source(volume, identifiers=False)


def read_source(volume: CTVolume, identifiers: bool) -> DicomSource:
    """Read the headers of a scan's slices.

    Args:
        volume: The scan.
        identifiers: Take over name, id, birth date and sex of the patient, and number, day and physician of the study.

    Raises:
        InputError: See :func:`check_source`.
    """
    if not volume.source_files:
        raise InputError(
            f"{volume.source}: is no folder of DICOM images, which a DICOM object on findings has to refer to; give "
            "the DICOM series, or choose other formats"
        )
    with quiet("pydicom"):
        images = tuple(_header(Path(file), identifiers) for file in volume.source_files)
    _check_uids(images, volume.source_files)
    distance = float(np.linalg.norm(volume.source_affine_lps[:3, 2]))
    for image in images:  # directions and spacing that differ less than the reader minds are those of the volume
        image.ImageOrientationPatient = images[0].ImageOrientationPatient
        image.PixelSpacing = images[0].PixelSpacing
        image.SliceThickness = image.SliceThickness or distance  # without one highdicom reads no segmentation
    dated = images[0].StudyDate
    return DicomSource(images, dated or _NO_DATE, (images[0].StudyTime if dated else "") or _NO_TIME)


def object_uid(found: ScanFindings, source: DicomSource, kind: str) -> str:
    """A UID that follows from what an object holds: equal runs give equal objects, other objects other UIDs."""
    named = [str(source.images[0].get(name)) for name in (*_NAMES, *_NUMBERS, *_DATES, "PatientSex")]
    text = repr((found.findings, sorted(found.details.items()), __version__, named))
    return _uid(kind, str(source.images[0].SeriesInstanceUID), hashlib.sha256(text.encode()).hexdigest())


def object_fields(found: ScanFindings, source: DicomSource, kind: str, series_number: int) -> dict[str, Any]:
    """What highdicom wants to know of every object: its series and instance, who made it, and when."""
    return {
        "series_instance_uid": object_uid(found, source, f"{kind} series"),
        "series_number": series_number,
        "sop_instance_uid": object_uid(found, source, kind),
        "instance_number": 1,
        "manufacturer": "mmpluld",
        "manufacturer_model_name": "mmpluld",
        "software_versions": __version__,
        "series_description": long_string(DESCRIPTION),
        "specific_character_set": _UTF_8,
        "content_date": source.content_date,
        "content_time": source.content_time,
    }


def finding_uid(finding: Finding, source: DicomSource) -> str:
    """A UID that follows from the finding and its scan; the same in every object."""
    return _uid("finding", str(source.images[0].SeriesInstanceUID), repr(finding))


def algorithm_details(found: ScanFindings) -> list[str]:
    """What was done, one text each."""
    return [long_string(f"{name}: {value}") for name, value in found.details.items()]


def long_string(text: str) -> str:
    r"""Text that a DICOM long string can hold: 64 characters without "\" and control characters."""
    plain = "".join(sign if sign.isprintable() and sign != "\\" else "/" for sign in printable(text))
    return plain[:64].strip() or "-"


def save_dicom(path: StrPath, dataset: Any) -> None:
    """Write an object without the moment of its making, so that equal runs give equal files."""
    equipment = dataset.get("ContributingEquipmentSequence") or []
    for part in (dataset, *equipment):
        for name in ("InstanceCreationDate", "InstanceCreationTime", "ContributionDateTime"):
            if name in part:
                delattr(part, name)
    with atomic_path(path) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def slice_rectangle(volume: CTVolume, finding: Finding) -> tuple[range, FloatArray]:
    """The file's slices that a finding covers, and its box on each: (4, 2) corners, column and row edges, in turn."""
    i1, j1, k1, i2, j2, k2 = finding.box_source
    covered = box_voxels(k1, k2, volume.source_shape[2])
    (i1, i2), (j1, j2) = np.clip([i1, i2], 0, volume.source_shape[0]), np.clip([j1, j2], 0, volume.source_shape[1])
    return range(covered.start, covered.stop), np.array([[i1, j1], [i2, j1], [i2, j2], [i1, j2]], dtype=np.float64)


def lacks_findings(found: ScanFindings, what: str) -> bool:
    """Whether there are no findings, which an object needs; said on standard error."""
    if not found.findings:
        note(f"no findings: {what} needs one, none is written")
    return not found.findings


def _uid(*parts: str) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join(parts)).int}"


def _check_uids(images: Sequence[Any], files: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for image, file in zip(images, files, strict=True):
        if (uid := str(image.SOPInstanceUID)) in seen:
            raise InputError(
                f"{file}: has the SOPInstanceUID of {Path(seen[uid]).name}; DICOM objects tell images apart by it, "
                "export the series again or choose other formats"
            )
        seen[uid] = file
        for name in _SHARED:
            if image.get(name) != images[0].get(name):
                raise InputError(
                    f"{file}: has another {name} than {Path(files[0]).name}; DICOM objects refer to one, export the "
                    "series again or choose other formats"
                )


def _header(file: Path, identifiers: bool) -> Any:
    from pydicom.dataset import Dataset

    try:
        with file.open("rb") as stream:
            header = open_dicom(
                stream,
                stop_before_pixels=True,
                specific_tags=[
                    *_REFERENCES,
                    *TAGS,
                    *_NAMES,
                    *_NUMBERS,
                    *_DATES,
                    "PatientSex",
                    "SpecificCharacterSet",
                ],
            )
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read any more ({error.strerror or error}); DICOM objects refer to it, keep the series "
            "in place until they are written"
        ) from None
    image = Dataset()
    for name in _REFERENCES:
        value = header_text(header, name)
        if not value:
            raise InputError(
                f"{file}: has no {name}, by which DICOM objects refer to it; export the series again, or choose other "
                "formats"
            )
        setattr(image, name, value)
    if image.SOPClassUID != _CT:
        raise InputError(
            f"{file}: SOPClassUID is {image.SOPClassUID}; DICOM objects are written for CT Image Storage ({_CT}) "
            "alone, choose other formats"
        )
    _set_geometry(image, DicomImage(file, {name: header_text(header, name) for name in TAGS}))
    for name in _NAMES:
        setattr(image, name, str(header.get(name) or "") if identifiers else "")
    for name in _NUMBERS:
        setattr(image, name, header_text(header, name) if identifiers else "")
    for name, kind in _DATES.items():
        setattr(image, name, _moment(header_text(header, name), kind) if identifiers else "")
    sex = header_text(header, "PatientSex") if identifiers else ""
    image.PatientSex = sex if sex in ("F", "M", "O") else ""
    image.Modality, image.SpecificCharacterSet = "CT", _UTF_8
    return image


def _set_geometry(image: Any, source: DicomImage) -> None:
    """The geometry as it was read for the volume: a header may hold numbers that are none to pydicom."""
    place = parse_slice(source)
    image.Rows, image.Columns = place.shape_yx
    image.PixelSpacing = list(place.pixel_spacing)
    image.ImagePositionPatient = place.position.tolist()
    image.ImageOrientationPatient = [*place.row_direction.tolist(), *place.column_direction.tolist()]
    try:
        thickness = float(source.header["SliceThickness"])
    except ValueError:
        thickness = math.nan
    image.SliceThickness = thickness if 0 < thickness < math.inf else None


def _moment(text: str, kind: str) -> str:
    """A date or a time as the standard writes it; "" if it is none."""
    from pydicom.valuerep import DA, TM

    try:
        return text if (DA if kind == "DA" else TM)(text) is not None else ""
    except (ValueError, TypeError):
        return ""
