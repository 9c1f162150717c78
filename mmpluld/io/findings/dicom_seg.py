"""Findings as a DICOM segmentation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mmpluld.io.faults import quiet
from mmpluld.io.findings.dicom_source import (
    DESCRIPTION,
    DicomSource,
    algorithm_details,
    finding_uid,
    lacks_findings,
    long_string,
    object_fields,
    object_uid,
    read_source,
    save_dicom,
)
from mmpluld.io.findings.label_map import label_map
from mmpluld.structures import Finding, ScanFindings
from mmpluld.typing import StrPath
from mmpluld.version import __version__

__all__ = ["write_seg"]


def write_seg(path: StrPath, found: ScanFindings, identifiers: bool) -> None:
    """Write a binary segmentation, one segment a finding: its mask on the key slice, where it has one, else its box.

    Frames have the geometry of the images that they belong to, so they are right for oblique and tilted series. Where
    findings overlap, see :func:`~mmpluld.io.findings.label_map.label_map`. Without findings nothing is written, since a
    segmentation needs a segment.

    Args:
        path: File to write.
        found: The findings.
        identifiers: See :func:`~mmpluld.io.findings.dicom_source.read_source`.

    Raises:
        InputError: If the scan is no DICOM series that can be referred to.

    Source: DICOM PS3.3, A.51.
    """
    import highdicom as hd

    if lacks_findings(found, "a DICOM segmentation"):
        return
    source = read_source(found.volume, identifiers)
    labels = replace(found.volume, array=label_map(found.volume, found.findings, "either")).array_to_source()
    used = np.flatnonzero(labels.any(axis=(0, 1))).tolist()
    frames = np.ascontiguousarray(labels[:, :, used].transpose(2, 1, 0).astype(np.uint16))
    with quiet("pydicom"), quiet("highdicom"):
        dataset = hd.seg.Segmentation(
            source_images=[source.images[index] for index in used],
            pixel_array=frames,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[
                _segment(found, finding, rank, source) for rank, finding in enumerate(found, start=1)
            ],
            device_serial_number="-",
            content_label="LESIONS",
            content_description=long_string(DESCRIPTION),
            **object_fields(found, source, "seg", 9002),
        )
        _fix_dimension_uid(dataset, object_uid(found, source, "dimensions"))
        save_dicom(path, dataset)


def _segment(found: ScanFindings, finding: Finding, rank: int, source: DicomSource) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    parameters = {name: long_string(value) for name, value in found.details.items()}
    segment = hd.seg.SegmentDescription(
        segment_number=rank,
        segment_label=f"finding {rank}",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="mmpluld",
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
            parameters=parameters or None,
        ),
        tracking_uid=finding_uid(finding, source),
        tracking_id=f"finding {rank}",
    )
    what = "box" if finding.mask is None else "mask on the key slice"
    segment.SegmentDescription = "; ".join([what, f"score {finding.score:.4f}", *algorithm_details(found)])
    return segment


def _fix_dimension_uid(dataset: Any, uid: str) -> None:
    """The library names the organisation of dimensions at random."""
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
