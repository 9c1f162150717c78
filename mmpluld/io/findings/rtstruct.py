"""Findings as a DICOM radiotherapy structure set."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmpluld.io.faults import quiet
from mmpluld.io.findings.dicom_source import (
    DESCRIPTION,
    DicomSource,
    algorithm_details,
    lacks_findings,
    long_string,
    object_uid,
    read_source,
    save_dicom,
    slice_rectangle,
)
from mmpluld.structures import CTVolume, Finding, ScanFindings
from mmpluld.typing import StrPath
from mmpluld.version import __version__

__all__ = ["write_rtstruct"]

_STUDY = (
    "SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName",
    "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
)  # fmt: skip


def write_rtstruct(path: StrPath, found: ScanFindings, identifiers: bool) -> None:
    """Write a structure set, one ROI a finding: the rectangle of its box on each slice, LPS mm.

    Without findings nothing is written, since a structure set needs a structure.

    Args:
        path: File to write.
        found: The findings.
        identifiers: See :func:`~mmpluld.io.findings.dicom_source.read_source`.

    Raises:
        InputError: If the scan is no DICOM series that can be referred to.

    Source: DICOM PS3.3, A.19.
    """
    if lacks_findings(found, "a structure set"):
        return
    source = read_source(found.volume, identifiers)
    with quiet("pydicom"):
        dataset = _head(found, source)
        dataset.ReferencedFrameOfReferenceSequence = [_referenced(source)]
        dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
        for rank, finding in enumerate(found, start=1):
            roi, contours, observation = _structure(found, finding, rank, source)
            dataset.StructureSetROISequence.append(roi)
            dataset.ROIContourSequence.append(contours)
            dataset.RTROIObservationsSequence.append(observation)
        save_dicom(path, dataset)


def _head(found: ScanFindings, source: DicomSource) -> Any:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = object_uid(found, source, "rtstruct")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset: Any = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for name in _STUDY:
        setattr(dataset, name, source.images[0].get(name))
    dataset.Modality, dataset.SeriesNumber, dataset.OperatorsName = "RTSTRUCT", 9003, ""
    dataset.SeriesInstanceUID = object_uid(found, source, "rtstruct series")
    dataset.SeriesDescription = long_string(DESCRIPTION)
    dataset.Manufacturer = dataset.ManufacturerModelName = "mmpluld"
    dataset.SoftwareVersions = __version__
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = source.images[0].FrameOfReferenceUID, ""
    dataset.StructureSetLabel = "LESIONS"
    dataset.StructureSetDescription = "; ".join(algorithm_details(found))
    dataset.StructureSetDate, dataset.StructureSetTime = source.content_date, source.content_time
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _image(image: Any) -> Any:
    return _item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)


def _referenced(source: DicomSource) -> Any:
    first = source.images[0]
    series = _item(
        SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=[_image(image) for image in source.images]
    )
    study = _item(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # detached study management, as the standard asks for
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _structure(found: ScanFindings, finding: Finding, rank: int, source: DicomSource) -> tuple[Any, Any, Any]:
    roi = _item(
        ROINumber=rank,
        ReferencedFrameOfReferenceUID=source.images[0].FrameOfReferenceUID,
        ROIName=f"finding {rank}",
        ROIDescription=f"box; score {finding.score:.4f}",
        ROIGenerationAlgorithm="AUTOMATIC",
    )
    contours = _item(
        ROIDisplayColor=[230, 25, 25],
        ContourSequence=_contours(found.volume, finding, source),
        ReferencedROINumber=rank,
    )
    observation = _item(ObservationNumber=rank, ReferencedROINumber=rank, RTROIInterpretedType="", ROIInterpreter="")
    return roi, contours, observation


def _contours(volume: CTVolume, finding: Finding, source: DicomSource) -> list[Any]:
    covered, corners = slice_rectangle(volume, finding)
    affine = volume.source_affine_lps
    contours = []
    for index in covered:
        points = np.column_stack([corners - 0.5, np.full(4, index)]) @ affine[:3, :3].T + affine[:3, 3]
        contours.append(
            _item(
                ContourImageSequence=[_image(source.images[index])],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=4,
                ContourData=[f"{value + 0.0:.4f}" for value in points.ravel()],
            )
        )
    return contours
