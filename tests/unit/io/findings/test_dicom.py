"""DICOM objects on findings: what they hold, whom they name, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement

from mmpluld.errors import InputError
from mmpluld.inference.findings import Findings
from mmpluld.inference.formats import check_scan
from mmpluld.io.dicom import read_dicom_folder
from mmpluld.io.findings.dicom_seg import write_seg
from mmpluld.io.findings.dicom_source import check_source, long_string
from mmpluld.io.findings.dicom_sr import write_sr
from mmpluld.io.findings.rtstruct import write_rtstruct

from .conftest import findings_of, stored

WRITERS = {"sr": write_sr, "seg": write_seg, "rtstruct": write_rtstruct}
REFERENCES = {"StudyInstanceUID": "1.4", "FrameOfReferenceUID": "1.5"}
PATIENT = {
    "PatientName": "Müller^Änne",
    "PatientID": "secret-17",
    "PatientBirthDate": "19501231",
    "PatientSex": "F",
    "PatientAge": "071Y",
    "AccessionNumber": "acc-99",
    "StudyID": "study-5",
    "StudyDate": "20210203",
    "StudyTime": "101112",
    "StudyDescription": "of a private person",
    "InstitutionName": "Private hospital",
    "ReferringPhysicianName": "Doktor^X",
    "SpecificCharacterSet": "ISO_IR 100",
}


@pytest.fixture
def scan(tmp_path, write_dicom_series):
    """Function (tags) -> findings of a DICOM series with these tags."""

    def make(**tags):
        shape, affine = stored((0, 1, 2), (1, 1, -1))
        write_dicom_series(tmp_path / "in", np.zeros(shape, int), affine, **REFERENCES, **tags)
        return findings_of(read_dicom_folder(tmp_path / "in", units="hu"))

    return make


def test_volume_remembers_its_files_in_slice_order(scan):
    volume = scan().volume
    heights = [float(pydicom.dcmread(file).ImagePositionPatient[2]) for file in volume.source_files]
    places = np.array([[0, 0, k, 1] for k in range(len(heights))]) @ volume.source_affine_lps.T
    np.testing.assert_allclose(heights, places[:, 2], atol=1e-6)


def test_report_holds_what_was_measured(scan, tmp_path):
    found = scan()
    write_sr(tmp_path / "sr.dcm", found, False)
    report = hd.sr.srread(tmp_path / "sr.dcm")
    assert report.file_meta.MediaStorageSOPClassUID == pydicom.uid.Comprehensive3DSRStorage
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["finding 1", "finding 2", "finding 3"]
    assert len({group.tracking_uid for group in groups}) == 3
    assert {group.finding_type.meaning for group in groups} == {"Lesion"}
    values = {item.name.meaning: (item.value, item.unit.value) for item in groups[0].get_measurements()}
    assert values == {
        "Detection score": (0.9, "1"),
        "Length of bounding box, left to right": (pytest.approx(5 * 0.7), "mm"),
        "Length of bounding box, front to back": (pytest.approx(4 * 0.9), "mm"),
        "Length of bounding box, head to foot": (pytest.approx(4 * 2.5), "mm"),
        "Long axis": (3.0, "mm"),
        "Short axis": (2.0, "mm"),
    }
    assert len(groups[1].get_measurements()) == 4
    assert [len(group.roi) for group in groups] == [4, 2, 1]
    named = {
        item.ReferencedSOPInstanceUID
        for item in report.CurrentRequestedProcedureEvidenceSequence[0]
        .ReferencedSeriesSequence[0]
        .ReferencedSOPSequence
    }
    assert len(named) == 5  # slices 1 to 4 and 5


def test_segmentation_says_what_its_segments_are(scan, tmp_path):
    found = scan()
    write_seg(tmp_path / "seg.dcm", found, False)
    segmentation = hd.seg.segread(tmp_path / "seg.dcm")
    segments = [segmentation.get_segment_description(number) for number in segmentation.segment_numbers]
    assert [item.SegmentLabel for item in segments] == ["finding 1", "finding 2", "finding 3"]
    assert {item.SegmentAlgorithmName for item in segments} == {"mmpluld"}
    assert segments[0].SegmentDescription == "mask on the key slice; score 0.9000; Model: toy; Weights: toy.pth"
    assert segments[1].SegmentDescription.startswith("box; score 0.5")
    write_sr(tmp_path / "sr.dcm", found, False)
    groups = hd.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert [item.TrackingUID for item in segments] == [group.tracking_uid for group in groups]


def test_structures_are_named_and_numbered(scan, tmp_path):
    write_rtstruct(tmp_path / "rt.dcm", scan(), False)
    structures = pydicom.dcmread(tmp_path / "rt.dcm")
    assert [item.ROIName for item in structures.StructureSetROISequence] == ["finding 1", "finding 2", "finding 3"]
    for name in ("ROIContourSequence", "RTROIObservationsSequence"):
        assert [item.ReferencedROINumber for item in structures[name].value] == [1, 2, 3]


@pytest.mark.parametrize("kind", WRITERS)
def test_patient_is_named_on_request_alone(kind, scan, tmp_path):
    found = scan(**PATIENT)
    WRITERS[kind](tmp_path / "a.dcm", found, False)
    written = (tmp_path / "a.dcm").read_bytes()
    secrets = [value for name, value in PATIENT.items() if name not in ("PatientSex", "SpecificCharacterSet")]
    secrets += ["nne", str(tmp_path), tmp_path.name]
    assert [text for text in secrets if text.encode("latin-1") in written or text.encode() in written] == []
    plain = pydicom.dcmread(tmp_path / "a.dcm")
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"):
        assert plain[name].value in ("", None)
    assert (plain.StudyInstanceUID, plain.Modality) == ("1.4", kind.upper())
    WRITERS[kind](tmp_path / "b.dcm", found, True)
    named = pydicom.dcmread(tmp_path / "b.dcm")
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        assert str(named[name].value) == PATIENT[name]
    assert named.SOPInstanceUID != plain.SOPInstanceUID


@pytest.mark.parametrize("kind", WRITERS)
def test_equal_runs_give_equal_files(kind, scan, tmp_path):
    found = scan()
    for name, item in (("a", found), ("b", findings_of(found.volume)), ("c", replace(found, findings=found[:2]))):
        WRITERS[kind](tmp_path / name, item, False)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    uids = [pydicom.dcmread(tmp_path / name).SOPInstanceUID for name in "abc"]
    assert uids[0] == uids[1] != uids[2]


def test_no_findings(scan, tmp_path, capsys):
    found = replace(scan(), findings=())
    for kind, write in WRITERS.items():
        write(tmp_path / f"{kind}.dcm", found, False)
    assert list(tmp_path.glob("*.dcm")) == []
    assert capsys.readouterr().err.count("needs one, none is written") == 3


def test_odd_details_are_shortened(scan, tmp_path):
    found = replace(scan(), details={"Model": "a\\b\n" + "ä" * 90})
    for kind, write in WRITERS.items():
        write(tmp_path / f"{kind}.dcm", found, False)
    assert long_string("a\\b\nc") == "a/b/c"
    assert "Model: a/b/ä" in hd.seg.segread(tmp_path / "seg.dcm").get_segment_description(1).SegmentDescription


def test_other_scans_are_refused_with_the_reason(found, tmp_path):
    for name in ("dicom-sr", "dicom-seg", "rtstruct"):
        with pytest.raises(InputError, match=rf"scan.nii.gz: is no folder of DICOM images.*\(format {name}\)"):
            check_scan(["json", name], found.volume)
        with pytest.raises(InputError, match="is no folder of DICOM images"):
            Findings(found.name, found.volume, found.findings, found.details).save(tmp_path / "out", [name])
    assert not (tmp_path / "out").exists()


def test_series_without_what_references_need_are_refused(scan, tmp_path):
    volume = scan().volume
    first = volume.source_files[0]
    check_source(volume)
    original = pydicom.dcmread(first)
    faults = {
        "StudyInstanceUID": ("", "has no StudyInstanceUID"),
        "SOPClassUID": ("1.2.840.10008.5.1.4.1.1.2.1", "SOPClassUID is .*CT Image Storage"),
        "SOPInstanceUID": (pydicom.dcmread(volume.source_files[1]).SOPInstanceUID, "has the SOPInstanceUID of IM"),
    }
    for name, (value, message) in faults.items():
        header = pydicom.dcmread(first)
        setattr(header, name, value)
        header.save_as(first)
        with pytest.raises(InputError, match=message):
            check_source(volume)
        original.save_as(first)
    check_source(volume)
    (tmp_path / "in").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="cannot be read any more"):
        check_source(volume)


def _text(name, values):
    """Function (dataset, k) that sets an attribute as text, whether it may be such; a value or a function of k."""

    def change(dataset, k):
        dataset[name] = DataElement(tag_for_keyword(name), "LO", values(k) if callable(values) else values)

    return change


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        pytest.param(lambda dataset, k: None, None, id="as it should be"),
        pytest.param(_text("FrameOfReferenceUID", lambda k: f"1.5.{k}"), "IM0007: has another Frame", id="frames"),
        pytest.param(_text("StudyInstanceUID", lambda k: f"1.4.{k}"), "IM0007: has another StudyIn", id="studies"),
        pytest.param(_text("SeriesInstanceUID", ""), "IM0000: has no SeriesInstanceUID", id="no series"),
        pytest.param(
            _text("ImageOrientationPatient", lambda k: f"1\\{k % 2 * 2e-4}\\0\\0\\1\\0"),
            None,
            id="directions that vary",
        ),
        pytest.param(_text("ImageOrientationPatient", "1.004\\0.004\\0\\0\\1\\0"), None, id="directions that are odd"),
        pytest.param(_text("PixelSpacing", lambda k: f"{0.9 + k % 2 * 2e-4}\\0.7"), None, id="spacing that varies"),
        pytest.param(_text("PixelSpacing", "0.90000000000000000001\\0.7"), None, id="spacing of too many digits"),
        pytest.param(lambda dataset, k: delattr(dataset, "SliceThickness"), None, id="no thickness"),
        pytest.param(
            lambda dataset, k: delattr(dataset, "SliceThickness") if k == 3 else None, None, id="thickness of some"
        ),
        pytest.param(_text("SliceThickness", ""), None, id="empty thickness"),
        pytest.param(_text("SliceThickness", "2,5"), None, id="thickness with a comma"),
        pytest.param(_text("SliceThickness", "nan"), None, id="thickness NaN"),
        pytest.param(_text("SliceThickness", "2\\3"), None, id="two thicknesses"),
        pytest.param(_text("SliceThickness", "0"), None, id="thickness 0"),
        pytest.param(_text("Rows", "8"), None, id="rows as text"),
        pytest.param(_text("StudyInstanceUID", "1.4.ABC"), None, id="a study that is no UID"),
    ],
)
def test_a_series_that_is_read_is_written_or_refused_before_the_network_runs(scan, tmp_path, change, refusal):
    with pydicom.config.disable_value_validation():
        for k, file in enumerate(scan().volume.source_files[::-1]):  # from the first one by name
            dataset = pydicom.dcmread(file)
            change(dataset, k)
            dataset.save_as(file)
    found = findings_of(read_dicom_folder(tmp_path / "in", units="hu"))
    if refusal is not None:
        with pytest.raises(InputError, match=refusal):
            check_source(found.volume)
        return
    check_source(found.volume)
    for kind, write in WRITERS.items():
        write(tmp_path / f"{kind}.dcm", found, False)
    used = hd.seg.segread(tmp_path / "seg.dcm")
    measures = used.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    spacing = np.linalg.norm(found.volume.source_affine_lps[:3, :2], axis=0)
    np.testing.assert_allclose(measures.PixelSpacing, spacing[::-1], rtol=1e-2)
    assert float(measures.SliceThickness) == pytest.approx(2.5)
