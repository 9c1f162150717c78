"""Findings as a DICOM structured report of measurements (TID 1500)."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmpluld.io.faults import quiet
from mmpluld.io.findings.dicom_source import (
    DicomSource,
    algorithm_details,
    finding_uid,
    lacks_findings,
    object_fields,
    object_uid,
    read_source,
    save_dicom,
    slice_rectangle,
)
from mmpluld.structures import CTVolume, Finding, ScanFindings
from mmpluld.typing import StrPath
from mmpluld.version import __version__

__all__ = ["write_sr"]

_SCHEME = "99MMPLULD"


def write_sr(path: StrPath, found: ScanFindings, identifiers: bool) -> None:
    """Write a Comprehensive 3D SR, one volumetric group of measurements (TID 1411) a finding.

    A group has the tracking identifier "finding RANK" and a UID, the finding type "Lesion", the rectangle of the box on
    each slice as an image region, and as measurements the score, the lengths of the box along the axes of the scan in
    mm, and the long and short axis on the key slice where the model has masks. Regions lie in the images themselves, so
    they are right for oblique and tilted series. Without findings nothing is written, since a report of this kind needs
    a measurement.

    Args:
        path: File to write.
        found: The findings.
        identifiers: See :func:`~mmpluld.io.findings.dicom_source.read_source`.

    Raises:
        InputError: If the scan is no DICOM series that can be referred to.

    Source: DICOM PS3.16, TID 1500 and TID 1411; PS3.3, C.18.6 for the coordinates of regions.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    if lacks_findings(found, "a report of measurements"):
        return
    source = read_source(found.volume, identifiers)
    with quiet("pydicom"), quiet("highdicom"):
        device = hd.sr.DeviceObserverIdentifyingAttributes(
            uid=object_uid(found, source, "device"), name="mmpluld", manufacturer_name="mmpluld", model_name="mmpluld"
        )
        observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
        groups = [_group(found, finding, rank, source) for rank, finding in enumerate(found, start=1)]
        report = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=observer),
            procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        dataset = hd.sr.Comprehensive3DSR(
            evidence=_evidence(found, source),
            content=report,
            is_complete=True,
            **object_fields(found, source, "sr", 9001),
        )
        save_dicom(path, dataset)


def _evidence(found: ScanFindings, source: DicomSource) -> list[Any]:
    """The images that regions refer to."""
    used = {index for finding in found for index in slice_rectangle(found.volume, finding)[0]}
    return [source.images[index] for index in sorted(used)]


def _group(found: ScanFindings, finding: Finding, rank: int, source: DicomSource) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    covered, corners = slice_rectangle(found.volume, finding)
    outline = np.concatenate([corners, corners[:1]])
    regions = [
        hd.sr.ImageRegion(
            graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
            graphic_data=outline,
            source_image=hd.sr.SourceImageForRegion.from_source_image(source.images[index]),
        )
        for index in covered
    ]
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=finding_uid(finding, source), identifier=f"finding {rank}"),
        referenced_regions=regions,
        finding_type=codes.SCT.Lesion,
        algorithm_id=hd.sr.AlgorithmIdentification("mmpluld", __version__, algorithm_details(found) or None),
        measurements=_measurements(found.volume, finding),
    )


def _measurements(volume: CTVolume, finding: Finding) -> list[Any]:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    def length(name: Any, value: float) -> Any:
        return hd.sr.Measurement(name=name, value=round(value, 4), unit=codes.UCUM.Millimeter)

    score = hd.sr.CodedConcept("score", _SCHEME, "Detection score")
    box = np.array(finding.box_canonical).reshape(2, 3)
    sizes = (box[1] - box[0]) * volume.spacing_mm[::-1]
    measurements = [hd.sr.Measurement(name=score, value=round(finding.score, 6), unit=codes.UCUM.NoUnits)]
    for axis, words, value in zip("xyz", ("left to right", "front to back", "head to foot"), sizes, strict=True):
        name = hd.sr.CodedConcept(f"box_{axis}", _SCHEME, f"Length of bounding box, {words}")
        measurements.append(length(name, float(value)))
    if finding.recist is not None:
        measurements.append(length(codes.SCT.LongAxis, finding.recist.long_mm))
        measurements.append(length(codes.SCT.ShortAxis, finding.recist.short_mm))
    return measurements
