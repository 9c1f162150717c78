"""Fully annotated sub-volumes to annotation files: conventions, sources of the rest, what is refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from mmpluld.cli.main import main
from mmpluld.datasets.converters import convert_deeplesion, convert_deeplesion_3d
from mmpluld.errors import InputError
from mmpluld.structures import AnnotationSet

BOXES = {
    "val": {"000009_01_02_001-030": []},
    "test": {
        "000001_01_01_004-009": [[4, 6, 4, 20, 22, 7], [4, 6, 6, 20, 22, 9], [0, 0, 8, 31, 31, 9]],
        "000001_01_01_001-002": [[4, 6, 1, 20, 22, 2]],
    },
}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(BOXES))
    return path


def load(root: Path, split: str) -> AnnotationSet:
    return AnnotationSet.load(root / "annotations" / f"manual_{split}.json")


def test_boxes_by_hand(tmp_path: Path, raw: Path) -> None:
    report = convert_deeplesion_3d(tmp_path, raw)
    assert "manual_test.json: 4 lesions, 2 volumes\nvoxel size unknown: 3 series" in report.summary()
    found = load(tmp_path, "test")
    assert found.dataset == {"name": "deeplesion-3d", "label_scope": "universal-complete"}
    assert [volume.id for volume in found.volumes] == ["000001_01_01_001-002", "000001_01_01_004-009"]
    volume = found.volumes[1]
    assert (volume.patient, volume.study, volume.series) == ("000001", "01", "01")
    assert volume.source == {"kind": "png16", "path": "Images_png/000001_01_01"}
    assert (volume.first_slice, volume.num_slices, volume.shape_yx) == (4, 6, (512, 512))
    assert np.isnan(volume.spacing_mm).all()
    # Far ends are included in the file, and are edges here.
    assert [lesion.box for lesion in found.lesions][:2] == [(4, 6, 1, 21, 23, 3), (4, 6, 4, 21, 23, 8)]
    assert [lesion.type for lesion in found.lesions] == [None] * 4
    assert (len(load(tmp_path, "val").volumes), load(tmp_path, "val").lesions) == (1, [])


def test_key_slices_give_voxel_size_and_type(tmp_path: Path, raw: Path, write_csv) -> None:
    write_csv(tmp_path / "DL_info.csv", [{"Train_Val_Test": "3", "Bounding_boxes": "5, 7, 21, 25"}])
    convert_deeplesion(tmp_path, require_images=False)
    report = convert_deeplesion_3d(tmp_path, raw)
    assert report.unknown_spacing == ["000009_01_02_001-030"]
    found = load(tmp_path, "test")
    assert [volume.spacing_mm for volume in found.volumes] == [(5.0, 0.8, 0.8)] * 2
    assert [volume.shape_yx for volume in found.volumes] == [(32, 32)] * 2
    # The lung lesion is marked on slice 5: not in the other sub-volume, not in 6 to 9, and not all of the slice.
    assert [lesion.type for lesion in found.lesions] == [None, "lung", None, None]
    assert [lesion.attributes for lesion in found.lesions] == [{}, {"key_slice_lesion": 0}, {}, {}]


def test_boxes_in_another_frame_than_the_slices_are_left_out(tmp_path: Path, raw: Path, write_slices) -> None:
    """Without the key slices' annotations slices are taken for 512 x 512."""
    write_slices(tmp_path / "Images_png" / "000001_01_01", [4], shape=(24, 30))
    report = convert_deeplesion_3d(tmp_path, raw, units="hu")
    assert [len(load(tmp_path, split).volumes) for split in ("test", "val")] == [0, 1]
    left = report.remarks["volume left out"]
    assert len(left) == 2 and left[0].startswith(
        "000001_01_01_001-002 (slices are [24, 30] (y, x), its boxes are taken"
    )
    write_slices(tmp_path / "Images_png" / "000009_01_02", [1], shape=(24, 30))
    with pytest.raises(InputError, match=r"none of 3 sub-volumes could be converted; the first: 000009_01_02"):
        convert_deeplesion_3d(tmp_path, raw, units="hu", overwrite=True)
    assert len(load(tmp_path, "val").volumes) == 1


@pytest.mark.parametrize("protocol", [3, 4])
def test_pickle_of_arrays_reads_like_json(tmp_path: Path, raw: Path, protocol: int) -> None:
    convert_deeplesion_3d(tmp_path, raw)
    expected = (tmp_path / "annotations" / "manual_test.json").read_text()
    arrays = {split: {k: np.array(v, float).reshape(-1, 6) for k, v in part.items()} for split, part in BOXES.items()}
    content = pickle.dumps(arrays, protocol=protocol)
    if protocol == 3:
        # As NumPy 1 wrote it; the name of the module has no length prefix in this protocol.
        content = content.replace(b"numpy._core.", b"numpy.core.")
    raw.write_bytes(content)
    convert_deeplesion_3d(tmp_path, raw, overwrite=True)
    assert (tmp_path / "annotations" / "manual_test.json").read_text() == expected


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_pickle_runs_no_code(tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw.write_bytes(pickle.dumps({"val": Harm()}))
    with pytest.raises(InputError, match=r"neither JSON nor the published pickle \(it asks for posix.mkdir, and only"):
        convert_deeplesion_3d(tmp_path, raw)
    assert not (tmp_path / "harm").exists()


NAME = "000001_01_01_004-009"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds nothing; needed are the splits"),
        ({"train": {}}, "holds train; needed are the splits 'val' and 'test'"),
        ({"val": [1]}, "split 'val' does not map sub-volumes to boxes"),
        ({"val": {"000001_01_01": []}}, "sub-volume '000001_01_01'; needed is PATIENT_STUDY_SERIES_FIRST-LAST"),
        ({"val": {"000001_01_01_009-004": []}}, "sub-volume '000001_01_01_009-004'; needed"),
        ({"val": {NAME: [[1, 2, 4, 3, 4]]}}, f"{NAME}: boxes are not rows of 6 finite numbers"),
        ({"val": {NAME: [[1, 2, 4, 3, 4, "x"]]}}, f"{NAME}: boxes are not rows of 6 finite numbers"),
        ({"val": {NAME: [[1, 2, 3, 3, 4, 5]]}}, r"box \[1.0, 2.0, 3.0, 3.0, 4.0, 5.0\]; allowed are .* 511, 9\]"),
        ({"val": {NAME: [[1, 2, 4, 3, 1, 5]]}}, "in rising order"),
        ({"val": {NAME: [[1, 2, 4, 512, 4, 5]]}}, r"within \[0, 0, 4\] to \[511, 511, 9\], mend the box"),
    ],
)
def test_faulty_files_are_refused(tmp_path: Path, raw: Path, content: object, message: str) -> None:
    raw.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        convert_deeplesion_3d(tmp_path, raw)
    assert not list(tmp_path.glob("annotations/*"))


def test_damaged_and_missing_files(tmp_path: Path, raw: Path) -> None:
    for content in (b"", b"{", b"\x80\x03}q", b"\x80\x04\x95"):
        raw.write_bytes(content)
        with pytest.raises(InputError, match=r"boxes.json: (not valid JSON|neither JSON nor the published pickle)"):
            convert_deeplesion_3d(tmp_path, raw)
    with pytest.raises(InputError, match=r"none.json: cannot be read \(no such file"):
        convert_deeplesion_3d(tmp_path, tmp_path / "none.json")


def test_command(tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "deeplesion-3d", str(tmp_path), "--boxes", str(raw)]) == 0
    assert "manual_val.json: 0 lesions, 1 volume\n" in capsys.readouterr().out
    assert main(["convert", "deeplesion-3d", str(tmp_path), "--boxes", str(raw)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["convert", "deeplesion-3d", str(tmp_path), "--boxes", str(raw), "--overwrite"]) == 0
    assert main(["convert", "deeplesion-3d", str(tmp_path)]) == 2
    assert "name the published file with --boxes FILE" in capsys.readouterr().err


def test_published_counts(real_data: Path, tmp_path: Path) -> None:
    convert_deeplesion_3d(tmp_path, real_data / "deeplesion" / "manual_1k.json")
    for split, counts in {"val": (200, 1292, 99, 9181, 0), "test": (800, 4155, 519, 34114, 31)}.items():
        found = load(tmp_path, split)
        patients = {volume.patient for volume in found.volumes}
        slices = sum(volume.num_slices for volume in found.volumes)
        empty = sum(not lesions for lesions in found.lesions_by_volume().values())
        assert (len(found.volumes), len(found.lesions), len(patients), slices, empty) == counts
