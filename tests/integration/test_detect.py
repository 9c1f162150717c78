"""From a scan on disk to findings on disk, in every file format."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import tracemalloc
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from mmpluld.cli.main import main
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.evaluation.evaluate import evaluate_files
from mmpluld.inference import DetectionSettings, Detector, VolumeDetector
from mmpluld.inference.formats import FORMATS
from mmpluld.io import read_volume
from mmpluld.models.roi_heads import LesionMaskHead
from mmpluld.registry import MODELS
from mmpluld.structures import (
    AnnotationSet,
    CTVolume,
    Detections,
    DetectionSet,
    LesionRecord,
    VolumeRecord,
    recist_lengths,
)
from mmpluld.zoo.index import default_model

ZOO_CONFIG = "a3d_densenet121-fpn_7s_phantom"
ORIGIN = np.array([-60.5, -40.25, 30.0])  # LPS mm of the centre of the file's first voxel
SPACING_XYZ = np.array([1.5, 1.25, 4.0])
SHAPE_ZYX = (9, 40, 48)
LESION = (12, 20, 3, 22, 30, 6)  # x1 y1 z1 x2 y2 z2, edges, in an array whose z runs upwards
NATIVE = "threshold.py"
EVERYTHING = DetectionSettings(link_score_thr=0.0, score_thr=0.0)
OUTPUTS = ("detections.json", "findings.csv", "report.html")


def detect_scan(scan, config, checkpoint, out, *, overwrite=False, identifiers=False, units=None, **options):
    """Detect and write the default outputs, as the command does."""
    found = Detector(config=config, checkpoint=checkpoint, **options)(scan, units=units)
    detections, table, report = found.save(out, overwrite=overwrite, identifiers=identifiers)
    return SimpleNamespace(findings=list(found), detections=detections, table=table, report=report)


@MODELS.register_module(force=True)
class ThresholdDetector(BaseModel):
    """Reports the bounding box of everything bright in the middle slice of a stack."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode="predict"):
        for stack, sample in zip(inputs, data_samples, strict=True):
            ys, xs = torch.nonzero(stack[len(stack) // 2] > 100, as_tuple=True)
            boxes = torch.zeros(0, 4)
            if len(xs):
                factor_x, factor_y = sample.scale_factor
                box = [xs.min() / factor_x, ys.min() / factor_y, (xs.max() + 1) / factor_x]
                boxes = torch.tensor([[*box, (ys.max() + 1) / factor_y]])
            brightness = stack[len(stack) // 2].max() / 205 * self.scale
            sample.pred_instances = InstanceData(bboxes=boxes, scores=brightness.repeat(len(boxes)))
        return data_samples


@pytest.fixture(scope="session")
def array():
    """(z, y, x) with z upwards: soft tissue in air, one very bright lesion."""
    volume = np.full(SHAPE_ZYX, -1000, dtype=np.int16)
    volume[:, 4:36, 4:44] = 30 + np.random.default_rng(0).normal(0, 8, (9, 32, 40)).astype(np.int16)
    x1, y1, z1, x2, y2, z2 = LESION
    volume[z1:z2, y1:y2, x1:x2] = 2050
    return volume


@pytest.fixture(scope="session")
def lesion_lps():
    low = ORIGIN + (np.array(LESION[:3]) - 0.5) * SPACING_XYZ
    high = ORIGIN + (np.array(LESION[3:]) - 0.5) * SPACING_XYZ
    return np.concatenate([low, high])


def as_image(array):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(SPACING_XYZ.tolist())
    image.SetOrigin(ORIGIN.tolist())
    return image


def write_dicom(array, folder):
    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for k, plane in enumerate(array):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.Modality, image.StudyInstanceUID, image.SeriesInstanceUID = "CT", study, series
        image.FrameOfReferenceUID, image.InstanceNumber = frame, len(array) - k
        image.PatientName, image.PatientID = "Phantom", "1"
        image.Rows, image.Columns = plane.shape
        image.PixelSpacing = [SPACING_XYZ[1], SPACING_XYZ[0]]
        image.SliceThickness = SPACING_XYZ[2]
        image.ImagePositionPatient = (ORIGIN + [0, 0, k * SPACING_XYZ[2]]).tolist()
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.PixelData = (plane + 1024).astype(np.int16).tobytes()
        image.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)


@pytest.fixture(scope="session")
def scans(array, tmp_path_factory):
    """One scan in four formats, each with its own order and direction of axes."""
    folder = tmp_path_factory.mktemp("scans")
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine = np.diag([*SPACING_XYZ, 1.0])
    affine[:3, 3] = ORIGIN
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), to_ras @ affine), folder / "scan.nii.gz")
    SimpleITK.WriteImage(SimpleITK.Flip(as_image(array), [True, False, True]), str(folder / "scan.mhd"))
    SimpleITK.WriteImage(SimpleITK.PermuteAxes(as_image(array), [2, 0, 1]), str(folder / "scan.nrrd"))
    write_dicom(array, folder / "scan")
    return {name: folder / name for name in ("scan.nii.gz", "scan.mhd", "scan.nrrd", "scan")}


@pytest.fixture(scope="session")
def threshold_model(tmp_path_factory):
    """Config and weights of the threshold detector, with a test pipeline like those of the zoo."""
    folder = tmp_path_factory.mktemp("threshold")
    load_config(ZOO_CONFIG).dump(folder / "base.py")
    (folder / NATIVE).write_text(
        """
_base_ = "base.py"
model = dict(
    _delete_=True, type="ThresholdDetector", data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32)
)
test_pipeline = [
    dict(type="LoadSliceStack", num_slices=7, slice_gap_mm=2.0),
    dict(type="WindowHU"),
    dict(type="Resize", scale=(96, 80), keep_ratio=True, interpolation="nearest"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=("img_shape", "scale_factor")),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""
    )
    torch.save({"state_dict": {"scale": torch.ones(1)}}, folder / "threshold.pth")
    return folder / NATIVE, folder / "threshold.pth"


@pytest.fixture(scope="session")
def zoo_model(tmp_path_factory):
    """A detector of the zoo with random weights."""
    torch.manual_seed(2)  # finds something
    config = load_config(ZOO_CONFIG)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        model = MODELS.build(config.model)
    model.init_weights()
    path = tmp_path_factory.mktemp("zoo") / "random.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    return ZOO_CONFIG, path


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.mhd", "scan.nrrd", "scan"])
def test_lesion_is_placed_in_the_world_whatever_the_format(name, scans, threshold_model, lesion_lps, tmp_path):
    result = detect_scan(scans[name], *threshold_model, tmp_path / "out", score_thr=0.5)
    (finding,) = result.findings
    np.testing.assert_allclose(finding.box_world_lps, lesion_lps, atol=1e-3)
    assert finding.score == pytest.approx(1, abs=1e-4)

    record = DetectionSet.load(result.detections)
    assert list(record.volumes) == ["scan"]
    detections = record.volumes["scan"]
    np.testing.assert_allclose(detections.world_lps, [lesion_lps], atol=1e-3)
    volume = read_volume(scans[name])
    np.testing.assert_allclose(volume.boxes_to_world_lps(volume.boxes_from_source(detections.boxes)), [lesion_lps])
    assert any("positions 2 mm apart" in line for line in detections.history)

    (row,) = csv.DictReader(result.table.open())
    centre = (lesion_lps[:3] + lesion_lps[3:]) / 2
    np.testing.assert_allclose([float(row[f"{axis}_lps_mm"]) for axis in "xyz"], centre, atol=1e-2)
    assert "Research use only" in result.report.read_text(encoding="utf-8")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(OUTPUTS)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_scan_whose_name_is_no_text(scans, threshold_model, tmp_path, suffix, capfd):
    name = os.fsdecode(b"\xbb\xbc 1")
    shutil.copy(scans[f"scan{suffix}"], tmp_path / f"{name}{suffix}")
    result = detect_scan(tmp_path / f"{name}{suffix}", *threshold_model, tmp_path / "out", score_thr=0.5)
    assert len(result.findings) == 1
    assert list(json.loads(result.detections.read_text(encoding="utf-8"))["volumes"]) == ["\\xbb\\xbc 1"]
    assert "\\xbb\\xbc 1" in result.report.read_text(encoding="utf-8")


def test_what_was_assumed_is_noted_on_the_terminal(scans, threshold_model, tmp_path, capfd):
    image = nibabel.load(scans["scan.nii.gz"])
    voxels = image.get_fdata()
    voxels[:, :, 1] = -1000
    image = nibabel.Nifti1Image(voxels.astype(np.int16), image.affine, image.header)
    image.header.set_xyzt_units(0)
    nibabel.save(image, tmp_path / "scan.nii")
    result = detect_scan(tmp_path / "scan.nii", *threshold_model, tmp_path / "out")
    note = "no unit of lengths in the header (xyzt_units): mm assumed"
    assert f"note: {tmp_path / 'scan.nii'}: {note}\n" in capfd.readouterr().err
    assert note in DetectionSet.load(result.detections).volumes["scan"].history
    assert note in result.report.read_text(encoding="utf-8")
    assert "with one value throughout (k 1): lost" in result.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("identifiers", [False, True])
def test_path_and_series_uid_leave_only_when_asked_for(scans, threshold_model, tmp_path, identifiers):
    folder = tmp_path / "Doe_John_1970"
    shutil.copytree(scans["scan"], folder / "scan")
    uid = pydicom.dcmread(folder / "scan/000.dcm").SeriesInstanceUID
    out = tmp_path / "out"
    detect_scan(folder / "scan", *threshold_model, out, score_thr=0.5, identifiers=identifiers)
    texts = {name: (out / name).read_text(encoding="utf-8") for name in OUTPUTS}
    assert (str(folder / "scan") in texts["detections.json"]) == identifiers
    assert (f"SeriesInstanceUID {uid}" in texts["detections.json"]) == identifiers
    assert (f"SeriesInstanceUID {uid}" in texts["report.html"]) == identifiers
    if not identifiers:
        assert not any(secret in text for text in texts.values() for secret in ("Doe", str(uid), str(tmp_path)))
        assert DetectionSet.load(out / "detections.json").volumes["scan"].source == "scan"


def test_output_can_be_evaluated_as_it_is(scans, threshold_model, tmp_path):
    result = detect_scan(scans["scan.nrrd"], *threshold_model, tmp_path / "out")
    truth = read_volume(scans["scan.nrrd"])
    z, y, x = np.nonzero(truth.array == 2050)
    box = [[x.min(), y.min(), z.min(), x.max() + 1, y.max() + 1, z.max() + 1]]
    DetectionSet({"scan": Detections(truth.boxes_to_source(box))}).save(tmp_path / "truth.json")
    froc = evaluate_files(result.detections, tmp_path / "truth.json", protocol="lens-3d")
    assert (froc["num_lesions"], froc["num_detections"], froc["average"]) == (1, 1, 1.0)


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.mhd", "scan.nrrd"])
def test_output_is_evaluated_in_the_voxels_of_the_truth(name, scans, threshold_model, tmp_path):
    """As a converter counts: canonical voxels, whatever the order of the file's axes."""
    result = detect_scan(scans[name], *threshold_model, tmp_path / "out")
    volume = read_volume(scans[name])
    z, y, x = (sorted(axis) for axis in np.nonzero(volume.array == 2050))
    box = tuple(float(edge) for edge in (x[0], y[0], z[0], x[-1] + 1, y[-1] + 1, z[-1] + 1))
    record = VolumeRecord(
        "scan", "p", "1", "1", {"kind": "npy", "path": "v"}, 0, volume.shape[0], volume.shape[1:], volume.spacing_mm
    )
    truth = AnnotationSet({"name": "x", "label_scope": "y"}, [record], [LesionRecord(0, "scan", box, int(box[2]))])
    truth.save(tmp_path / "truth.json")
    for protocol in ("lens-3d", "deeplesion-2d"):
        assert evaluate_files(result.detections, tmp_path / "truth.json", protocol)["average"] == 1.0


def test_random_model_finds_the_same_in_every_format(scans, zoo_model):
    detector = VolumeDetector(load_config(zoo_model[0]), zoo_model[1], DetectionSettings(score_thr=0.5))
    found = {}
    for name, path in scans.items():
        findings = detector.detect(read_volume(path))
        found[name] = np.array([[*f.box_world_lps, f.score] for f in findings])
    reference = found.pop("scan")
    assert len(reference) > 0
    assert (np.diff(reference[:, 6]) <= 0).all()
    for other in found.values():
        np.testing.assert_allclose(other, reference, atol=1e-3)


def test_diameters_are_those_of_the_mask_on_the_key_slice(scans, zoo_model, tmp_path):
    result = detect_scan(scans["scan.nrrd"], *zoo_model, tmp_path / "out", score_thr=0.5)
    spacing = read_volume(scans["scan.nrrd"]).spacing_mm[1:]
    record = DetectionSet.load(result.detections).volumes["scan"]
    rows = list(csv.DictReader(result.table.open()))
    assert any(finding.recist for finding in result.findings)
    for finding, row, diameters in zip(result.findings, rows, record.diameters_mm, strict=True):
        recist = finding.recist
        if recist is None:  # the mask has no pixel above one half
            assert row["long_mm"] == "" and np.isnan(diameters).all()
            continue
        x1, y1, x2, y2 = finding.key_box
        ys, xs = np.nonzero(finding.mask.on_slice(SHAPE_ZYX[1:]))
        assert x1 - 1 <= xs.min() and xs.max() <= x2 and y1 - 1 <= ys.min() and ys.max() <= y2
        points = np.reshape(recist.ends, (4, 2))
        assert (points >= [x1 - 1.5, y1 - 1.5]).all() and (points <= [x2 + 1.5, y2 + 1.5]).all()
        assert recist_lengths(recist.ends, spacing) == pytest.approx((recist.long_mm, recist.short_mm))
        assert diameters == pytest.approx((recist.long_mm, recist.short_mm))
        assert (row["long_mm"], row["short_mm"]) == (f"{recist.long_mm:.1f}", f"{recist.short_mm:.1f}")
    assert "the longest diameter" in result.report.read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", ["max", "mean"])
def test_masks_of_findings_alone_are_the_masks_of_all(scans, zoo_model, rule, monkeypatch):
    counts = []
    forward = LesionMaskHead.forward
    monkeypatch.setattr(LesionMaskHead, "forward", lambda self, x: (counts.append(len(x)), forward(self, x))[1])
    settings = DetectionSettings(score_thr=0.6, score_rule=rule)
    detector = VolumeDetector(load_config(zoo_model[0]), zoo_model[1], settings)
    volume = read_volume(scans["scan.nrrd"])
    some, few = detector.detect(volume), sum(counts)
    monkeypatch.setattr(VolumeDetector, "_masks_of_findings", lambda self: nullcontext())
    every = detector.detect(volume)
    assert 0 < few < sum(counts) - few
    assert any(finding.mask for finding in some)
    for one, other in zip(some, every, strict=True):
        assert (one.box_source, one.score, one.mask) == (other.box_source, other.score, other.mask)
        assert (one.recist is None) == (other.recist is None)
        if one.recist is not None:
            assert one.recist.ends == pytest.approx(other.recist.ends, abs=1e-4)


def test_model_without_masks_leaves_the_diameters_open(scans, threshold_model, tmp_path):
    result = detect_scan(scans["scan.nrrd"], *threshold_model, tmp_path / "out", score_thr=0.5)
    assert result.findings[0].recist is None
    assert "diameters_mm" not in result.detections.read_text()
    assert next(csv.DictReader(result.table.open()))["long_mm"] == ""


@pytest.mark.parametrize("batch_size", [2, 5, 100])
def test_batches_do_not_change_findings(batch_size, scans, threshold_model):
    volume = read_volume(scans["scan.mhd"])
    config = load_config(threshold_model[0])
    one, several = (
        VolumeDetector(config, threshold_model[1], batch_size=size).detect(volume) for size in (1, batch_size)
    )
    assert len(one) == 1
    assert one == several


@pytest.mark.parametrize("name", ["scan.mhd", "scan.nrrd"])
def test_air_around_the_body_can_be_cut_away(name, scans, threshold_model, tmp_path, monkeypatch):
    volume, sizes = read_volume(scans[name]), []
    forward = ThresholdDetector.forward

    def noted(self, inputs, *args, **kwargs):
        sizes.append(inputs.shape[2:])
        return forward(self, inputs, *args, **kwargs)

    monkeypatch.setattr(ThresholdDetector, "forward", noted)
    found = []
    for crop in ("", 'dict(type="CropBody"),'):
        config = tmp_path / "cropped.py"
        config.write_text(
            f"""
_base_ = {str(threshold_model[0])!r}
test_pipeline = [
    dict(type="LoadSliceStack", num_slices=7, slice_gap_mm=2.0),
    {crop}
    dict(type="WindowHU"),
    dict(type="Resize", scale_factor=2.0, interpolation="nearest"),
    dict(type="PackDetInputs", meta_keys=("img_shape", "scale_factor", "crop_offset")),
]
model = dict(data_preprocessor=dict(pad_size_divisor=1))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""
        )
        found.append(VolumeDetector(load_config(config), threshold_model[1]).detect(volume))
    assert len(found[0]) == 1
    assert found[0] == found[1]
    assert set(sizes) == {(80, 96), (64, 80)}  # twice those of slice and body


def test_bf16_runs(scans, zoo_model):
    detector = VolumeDetector(load_config(zoo_model[0]), zoo_model[1], EVERYTHING, precision="bf16")
    findings = detector.detect(read_volume(scans["scan.mhd"]))
    assert findings
    assert np.isfinite([[*f.box_world_lps, f.score] for f in findings]).all()


def test_2mm_scan_keeps_its_slices(threshold_model):
    array = np.full((12, 32, 32), -1000, dtype=np.int16)
    array[5, 8:16, 10:20] = 2050
    volume = CTVolume.from_canonical(array, (2.0, 1.0, 1.0))
    (finding,) = VolumeDetector(load_config(threshold_model[0]), threshold_model[1]).detect(volume)
    np.testing.assert_allclose(finding.box_canonical, [10, 8, 5, 20, 16, 6], atol=1e-4)
    assert finding.key_slice == 5


@pytest.mark.parametrize(("interval", "expected"), [(5.0, 5.0), (1.25, 2.0)])
def test_native_rule_examines_the_slices_of_thick_scans(interval, expected, threshold_model, tmp_path):
    config = load_config(threshold_model[0], ["test_dataloader.dataset.pipeline.0.interp=native"])
    detector = VolumeDetector(config, threshold_model[1])
    array = np.full((16, 32, 32), -1000, dtype=np.int16)
    array[5:9, 8:16, 10:20] = 2050
    volume = CTVolume.from_canonical(array, (interval, 1.0, 1.0))
    (finding,) = detector.detect(volume)
    assert f" positions {expected:g} mm apart" in detector.history(volume)[0]
    if interval == expected:
        assert "the scan's own slices" in detector.history(volume)[0]
        np.testing.assert_allclose(finding.box_canonical, [10, 8, 5, 20, 16, 9], atol=1e-4)
    short = CTVolume.from_canonical(array[:6], (5.0, 1.0, 1.0))
    with pytest.raises(InputError, match="6 slices 5 mm apart make 6 positions 5 mm apart; .* covers 30 mm or more"):
        detector.detect(short)


@pytest.mark.parametrize("interval", [5.0, 1.25])
def test_model_is_told_the_interval_of_the_scan(interval, tmp_path):
    torch.manual_seed(0)
    config = load_config("alignshift_densenet121-fpn_7s_phantom")
    model = MODELS.build(config.model)
    model.init_weights()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "random.pth")
    detector = VolumeDetector(config, tmp_path / "random.pth", EVERYTHING)
    seen = []
    detector.model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].thickness_mm))
    array = np.random.default_rng(0).integers(-100, 200, (13, 48, 48)).astype(np.int16)
    assert detector.detect(CTVolume.from_canonical(array, (interval, 2.8, 2.8)))
    assert len(seen) == (13 if interval == 5.0 else 8)
    assert all(thickness.tolist() == [interval] for thickness in seen)


def test_nothing_found_still_writes_everything(threshold_model, tmp_path, capsys):
    array = np.full((9, 32, 32), -1000, dtype=np.int16)
    SimpleITK.WriteImage(as_image(array), str(tmp_path / "empty.mha"))
    config, weights = map(str, threshold_model)
    command = ["detect", str(tmp_path / "empty.mha"), "-o", str(tmp_path / "out"), "--units", "hu"]
    assert main([*command, "--config", config, "--checkpoint", weights]) == 0
    assert "0 findings scored 0.3 or more; a lower --score-thr shows" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert record["volumes"]["empty"]["boxes"] == []
    assert len((tmp_path / "out" / "findings.csv").read_text().splitlines()) == 1
    assert "No findings." in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_every_format_of_a_dicom_series(scans, threshold_model, lesion_lps, tmp_path, capsys):
    config, weights = map(str, threshold_model)
    command = [
        "detect",
        str(scans["scan"]),
        "--config",
        config,
        "--checkpoint",
        weights,
        "--out",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--formats", ",".join(list(FORMATS)[:5]), *list(FORMATS)[5:]]) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {kind.file for kind in FORMATS.values()}
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file() and path.suffix != ".gz":
            assert b"Phantom" not in path.read_bytes()
    (mark,) = csv.DictReader((tmp_path / "out" / "luna16.csv").open())
    centre = [float(mark[f"coord{axis}"]) for axis in "XYZ"]
    np.testing.assert_allclose(centre, (lesion_lps[:3] + lesion_lps[3:]) / 2, atol=1e-3)
    assert main([*command, "--formats", "csv", "--overwrite"]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["findings.csv"]
    capsys.readouterr()
    command[1] = str(scans["scan.nrrd"])
    assert main([*command, "--formats", "csv", "dicom-sr", "--overwrite", "--cfg-options", "no.such=1"]) == 2
    assert "is no folder of DICOM images" in capsys.readouterr().err.splitlines()[-1]  # before the config is looked at
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["findings.csv"]


def test_equal_runs_write_equal_files(scans, threshold_model, tmp_path):
    for name in ("a", "b"):
        detect_scan(scans["scan.mhd"], *threshold_model, tmp_path / name)
    for file in ("detections.json", "findings.csv", "report.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_memory_does_not_grow_with_the_number_of_slices(threshold_model):
    detector = VolumeDetector(load_config(threshold_model[0]), threshold_model[1])
    peaks = []
    for depth in (12, 12, 60):  # the first run pays for what is made once
        volume = CTVolume.from_canonical(np.full((depth, 128, 128), -1000, dtype=np.int16), (3.0, 1.0, 1.0))
        tracemalloc.start()
        detector.detect(volume)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    one_slice = 128 * 128 * 4
    assert peaks[2] - peaks[1] < 2 * one_slice


def test_config_options_reach_the_model(scans, threshold_model, tmp_path):
    options = ["test_dataloader.dataset.pipeline.0.num_slices=5"]
    result = detect_scan(scans["scan.mhd"], *threshold_model, tmp_path / "out", cfg_options=options)
    assert len(result.findings) == 1
    options = ["test_dataloader.dataset.pipeline.0.num_slices=99"]
    with pytest.raises(InputError, match="the model needs at least 99"):
        detect_scan(scans["scan.mhd"], *threshold_model, tmp_path / "other", cfg_options=options)


def test_scan_that_is_too_short(threshold_model):
    volume = CTVolume.from_canonical(np.full((3, 32, 32), -1000, dtype=np.int16), (4.0, 1.0, 1.0))
    detector = VolumeDetector(load_config(threshold_model[0]), threshold_model[1])
    message = r"3 slices 4 mm apart make 5 positions 2 mm apart; the model needs at least 7, .* covers 12 mm or more"
    with pytest.raises(InputError, match=message):
        detector.detect(volume)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp16"}, "precision is 'fp16'; allowed are fp32, bf16"),
        ({"batch_size": 0}, "batch_size is 0; allowed is 1 or more"),
        ({"device": "gpu"}, "device is 'gpu'; allowed are cpu, cuda and cuda:N"),
        ({"device": "mps"}, "device is 'mps'; allowed are cpu, cuda and cuda:N"),
        ({"device": "meta"}, "device is 'meta'; allowed are cpu, cuda and cuda:N"),
        ({"device": "cuda:99"}, "device is 'cuda:99', but this machine has"),
    ],
)
def test_bad_settings(settings, message, threshold_model):
    with pytest.raises(InputError, match=message):
        VolumeDetector(load_config(threshold_model[0]), threshold_model[1], **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pipeline": []}, "threshold.py: test_dataloader.dataset.pipeline has no LoadSliceStack"),
        ({"pipeline.0.slice_gap_mm": 0}, "pipeline: slice_gap_mm is 0; detection needs a number of mm above 0"),
    ],
)
def test_config_without_neighbouring_slices(change, message, threshold_model):
    config = load_config(threshold_model[0])
    config.merge_from_dict({f"test_dataloader.dataset.{key}": value for key, value in change.items()})
    with pytest.raises(InputError, match=message):
        VolumeDetector(config, threshold_model[1])


def test_failed_run_leaves_nothing_behind(scans, threshold_model, tmp_path):
    with pytest.raises(InputError, match=r"missing\.nii\.gz: no such file"):
        detect_scan(tmp_path / "missing.nii.gz", *threshold_model, tmp_path / "out")
    with pytest.raises(InputError, match=r"missing\.pth: cannot be read \(no such file\)"):
        detect_scan(scans["scan.mhd"], threshold_model[0], tmp_path / "missing.pth", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_earlier_output_is_kept_unless_told(scans, threshold_model, tmp_path, capsys):
    config, weights = map(str, threshold_model)
    detect_scan(scans["scan.mhd"], *threshold_model, tmp_path / "out")
    command = ["--config", config, "--checkpoint", weights, "--out", str(tmp_path / "out")]
    assert main(["detect", str(tmp_path / "never looked at"), *command]) == 2
    assert "holds detections.json already; give another folder, or --overwrite" in capsys.readouterr().err
    detect_scan(scans["scan.mhd"], *threshold_model, tmp_path / "out", score_thr=0.9, overwrite=True)
    assert "scored 0.9" in (tmp_path / "out" / "detections.json").read_text()


@pytest.mark.skipif("MMPLULD_TEST_DATA" not in os.environ, reason="needs MMPLULD_TEST_DATA, a folder with CT scans")
def test_mask_of_a_real_tumour_is_found_where_it_is(threshold_model, tmp_path):
    folder = Path(os.environ["MMPLULD_TEST_DATA"]) / "volumes"
    image = SimpleITK.ReadImage(str(folder / "nsclc_lung1_001_image.nii.gz"))
    mask = SimpleITK.ReadImage(str(folder / "nsclc_lung1_001_mask.nii.gz"))
    voxels = SimpleITK.GetArrayFromImage(mask) > 0
    marked = np.where(voxels, 2050, np.minimum(SimpleITK.GetArrayFromImage(image), 300)).astype(np.int16)
    painted = SimpleITK.GetImageFromArray(marked)
    painted.CopyInformation(image)
    SimpleITK.WriteImage(painted, str(tmp_path / "painted.nii.gz"))
    config = threshold_model[0].with_name("full.py")  # beside the base that it inherits from
    config.write_text(threshold_model[0].read_text().replace("(96, 80)", "(512, 512)"))
    findings = detect_scan(tmp_path / "painted.nii.gz", config, threshold_model[1], tmp_path / "out").findings
    stored = np.nonzero(voxels)
    expected = [int(axis.min()) for axis in stored[::-1]] + [int(axis.max()) + 1 for axis in stored[::-1]]
    best = max(findings, key=lambda finding: np.prod(np.subtract(finding.box_source[3:], finding.box_source[:3])))
    # In plane the 3D box is a mean over the slices, so it lies within the hull; along z it is exact to a slice.
    assert (np.array(best.box_source[:2]) >= np.array(expected[:2]) - 1e-3).all()
    assert (np.array(best.box_source[3:5]) <= np.array(expected[3:5]) + 1e-3).all()
    low, high = min(f.box_source[2] for f in findings), max(f.box_source[5] for f in findings)
    assert abs(low - expected[2]) <= 1
    assert abs(high - expected[5]) <= 1
    i, j, k = (int((best.box_source[axis] + best.box_source[axis + 3]) / 2) for axis in range(3))
    corner = image.TransformContinuousIndexToPhysicalPoint([axis - 0.5 for axis in best.box_source[:3]])
    opposite = image.TransformContinuousIndexToPhysicalPoint([axis - 0.5 for axis in best.box_source[3:]])
    hull = [*np.minimum(corner, opposite), *np.maximum(corner, opposite)]
    np.testing.assert_allclose(best.box_world_lps, hull, atol=1e-3)
    assert voxels[k, j, i]


def test_default_model_is_used_and_told(scans, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["detect", str(scans["scan.mhd"]), "-o", str(out), "--score-thr", "0.9"]) == 0
    name = default_model().name
    assert f"note: model {name} on " in capsys.readouterr().err
    assert name in (out / "report.html").read_text(encoding="utf-8")
    assert re.search(
        rf'"model {name} \(config SHA-256 \w{{16}}\), weights {name}-', (out / "detections.json").read_text()
    )


def test_tags_of_the_key_slice(scans, tmp_path):
    """The twin of MULAN with random weights: numbered tags, or those of the file; each is that of the box shown."""
    config = "mulan_densenet121_9s_phantom"
    with DefaultScope.overwrite_default_scope("mmpluld"):
        torch.manual_seed(0)
        model = MODELS.build(load_config(config).model)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "random.pth")
    names = [f"kind {number}" for number in range(8)]
    (tmp_path / "labels.json").write_text(json.dumps({"term_list": names}))
    results = [
        detect_scan(
            scans["scan.mhd"], config, tmp_path / "random.pth", tmp_path / f"out{index}", score_thr=0.0, tags=tags
        )
        for index, tags in enumerate((None, tmp_path / "labels.json"))
    ]
    assert results[0].findings
    for numbered, named in zip(results[0].findings, results[1].findings, strict=True):
        assert [name.replace("tag", "kind") for name, _ in numbered.tags] == [name for name, _ in named.tags]
        scores = [score for _, score in named.tags]
        assert scores == sorted(scores, reverse=True)
        assert all(0.5 <= score <= 1 for score in scores)
    assert any(finding.tags for finding in results[1].findings)
    (record,) = DetectionSet.load(results[1].detections).volumes.values()
    assert record.tags == tuple(dict(finding.tags) for finding in results[1].findings)
    with pytest.raises(InputError, match="3 names of tags, but the model has 8"):
        VolumeDetector(load_config(config), tmp_path / "random.pth", tag_names=names[:3])


def test_names_for_a_model_without_tags(threshold_model):
    with pytest.raises(InputError, match="1 names of tags, but the model has 0"):
        VolumeDetector(load_config(threshold_model[0]), threshold_model[1], tag_names=["liver"])
