"""Checking a converted dataset: every fault is found and named, a good dataset has none."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from mmpluld.cli.main import main
from mmpluld.datasets import CTLesionDataset
from mmpluld.datasets.check import check_dataset
from mmpluld.datasets.slice_pictures import read_slice
from mmpluld.errors import InputError
from mmpluld.io import write_volume
from mmpluld.io.array_store import write_array
from mmpluld.structures import AnnotationSet, CTVolume, LesionRecord, VolumeRecord


def volume(name, patient=None, **changes):
    source = {"kind": "npy", "path": f"volumes/{name}.npy"}
    fields = {"first_slice": 0, "num_slices": 6, "shape_yx": (16, 20), "spacing_mm": (5.0, 1.0, 1.0)}
    return VolumeRecord(name, name if patient is None else patient, "1", "1", **({"source": source} | fields | changes))


@pytest.fixture
def root(tmp_path):
    """Volume a in train, b in test, with one lesion each."""
    for name in "ab":
        array = np.random.default_rng(0).integers(-1000, 300, (6, 16, 20)).astype(np.int16)
        write_array(tmp_path / "volumes" / f"{name}.npy", array)
    save(tmp_path, "train", [volume("a")], [LesionRecord(0, "a", (2, 3, 1, 8, 9, 3), key_slice=1)])
    save(tmp_path, "test", [volume("b")], [LesionRecord(0, "b", (2, 3, 1, 8, 9, 3), key_slice=5 - 3)])
    return tmp_path


def save(root, split, volumes, lesions=()):
    AnnotationSet({"name": "x", "label_scope": "y"}, volumes, list(lesions)).save(
        root / "annotations" / f"{split}.json"
    )


def found(root, **options):
    return [str(problem).replace(f"{root}/", "") for problem in check_dataset(root, **options).problems]


def test_a_good_dataset(root, capsys):
    check = check_dataset(root)
    assert (check.problems, check.files) == ([], {"train.json": (1, 1), "test.json": (1, 1)})
    assert check.slices_read == 8  # first, middle, last and key slice of two volumes
    assert check_dataset(root, all_slices=True).slices_read == 12
    assert main(["check-data", str(root)]) == 0
    assert capsys.readouterr().out.endswith("8 slices read, no problems\n")


def test_a_volume_whose_source_says_that_it_is_in_hu(root):
    bone = np.random.default_rng(0).integers(300, 1600, (6, 16, 20)).astype(np.int16)
    crop = CTVolume.from_canonical(bone, (5.0, 1.0, 1.0))
    write_volume(crop, root / "volumes" / "a.nii.gz")
    source = {"kind": "nifti", "path": "volumes/a.nii.gz"}
    for said in ({}, {"units": "hu"}):
        save(root, "train", [volume("a", source=source | said)], [LesionRecord(0, "a", (2, 3, 1, 8, 9, 3), 1)])
        check = check_dataset(root)
        what = [str(item) for item in (check.notes if said else check.problems)]
        assert len(what) == len(check.notes + check.problems) == 1 and "values are not HU" in what[0]
    dataset = CTLesionDataset("annotations/train.json", str(root))
    assert read_slice(dataset.get_data_info(0)["img_path"]).tolist() == crop.array[1].tolist()


def test_lesion_faults(root):
    lesions = [
        LesionRecord(0, "a", (-1, 3, 1, 8, 9, 3)),
        LesionRecord(1, "a", (2, 3, 1, 8, 17, 3)),
        LesionRecord(2, "a", (4, 4, 1, 4, 9, 3)),
        LesionRecord(5, "a", (10, 3, 1, 18, 9, 3)),
        LesionRecord(6, "a", (10, 3, 1, 18, 9.1, 3)),
        LesionRecord(7, "a", (10, 3, 1, 18, 9, 3), ignore=True),
    ]
    save(root, "train", [volume("a")], lesions)
    assert found(root) == [
        "annotations/train.json: lesion 0 in volume a: box (-1, 3, 1, 8, 9, 3) leaves the image of 20 x 16 pixels",
        "annotations/train.json: lesion 1 in volume a: box (2, 3, 1, 8, 17, 3) leaves the image of 20 x 16 pixels",
        "annotations/train.json: lesion 2 in volume a: box is empty",
        "annotations/train.json: lesions 5 and 6 in volume a: the same box twice; remove one",
    ]


def test_boxes_of_slices_that_training_would_leave_out(root):
    rows = [[1, 2, 3, 8, 9], [2, 2, 3, 21, 9], [3, 4, 3, 4, 9]]
    save(root, "train", [volume("a")], [LesionRecord(0, "a", (2, 3, 1, 8, 9, 4), attributes={"slice_boxes": rows})])
    where = "annotations/train.json: lesion 0 in volume a: box on slice"
    assert found(root) == [
        f"{where} 2 (2, 3, 21, 9) leaves the image of 20 x 16 pixels",
        f"{where} 3 is empty",
    ]


def test_patients_in_two_splits_and_records_that_differ(root):
    save(root, "test", [volume("b", patient="a")])
    save(root, "train_mined", [volume("a", spacing_mm=(2.5, 1.0, 1.0))])
    assert found(root) == [
        "annotations/test.json: patient a: is in two splits, train.json and test.json",
        "annotations/train_mined.json: volume a: is described differently in train.json",
    ]


def test_sources_that_disagree_with_their_record(root):
    save(root, "train", [volume("a", num_slices=7, shape_yx=(20, 16))])
    save(root, "test", [volume("c")])
    missing, size, slices = sorted(found(root), key=lambda text: ("volume a" in text, "slices 0 to" in text))
    assert missing.startswith("annotations/test.json: volume c: volumes/c.npy: cannot be read (no such file")
    assert slices == "annotations/train.json: volume a: slices 0 to 5 exist, the record says 0 to 6; convert again"
    assert size.endswith("volume a: slices are [16, 20] (y, x), the record says [20, 16]; convert again")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hu: hu + 1024, "values are not HU: no value is below 0"),
        (lambda hu: hu * 0 - 5, "values are not HU: all values are -5"),
        (
            lambda hu: np.where(hu > 290, 32700, hu),
            "highest value read is 32700, above any HU; are these unsigned values?",
        ),
    ],
)
def test_values_that_are_no_hu(root, capsys, change, message):
    stored = root / "volumes" / "a.npy"
    write_array(stored, change(np.load(stored)).astype(np.int16))
    (problem,) = found(root)
    assert problem.startswith(f"annotations/train.json: volume a: {message}")
    if "not HU" in message:
        assert found(root, units="hu") == []
        assert main(["check-data", str(root), "--units", "hu"]) == 0
        assert "note: " in (out := capsys.readouterr().out) and message in out


def test_offset_that_slices_lack(root):
    stored = root / "volumes" / "a.npy"
    array = np.load(stored)
    array[1:] = array[0]
    array[4:] += 1024
    write_array(stored, array)
    (problem,) = found(root, all_slices=True)
    assert "values are not HU: all values jump by +1024 from slice 3 to 4" in problem


def test_damaged_files_are_named(root, capsys):
    stored = root / "volumes" / "a.npy"
    stored.write_bytes(stored.read_bytes()[:2000])
    (root / "annotations" / "test.json").write_text("{")
    out = root / "problems.json"
    assert main(["check-data", str(root), "--json", str(out)]) == 2
    first, second = json.loads(out.read_text())["problems"]
    assert first["file"].endswith("test.json") and first["what"].startswith("not valid JSON")
    assert second["item"] == "volume a" and "a.npy: not a whole .npy file" in second["what"]
    assert capsys.readouterr().out.endswith("0 slices read, 2 problems\n")


def test_a_png_that_does_not_decode(root):
    folder = root / "png"
    folder.mkdir()
    for number in (1, 2, 4):
        values = np.resize(np.uint16([31768, 32678, 32808]), (16, 20))
        cv2.imwrite(str(folder / f"{number:03d}.png"), values)
    (folder / "004.png").write_bytes((folder / "004.png").read_bytes()[:-8])
    record = volume("p", first_slice=1, num_slices=4)
    record.source = {"kind": "png16", "path": "png"}
    save(root, "val", [record])
    (problem,) = found(root)
    assert "volume p: png/004.png: PNG is cut off" in problem


def test_more_lesion_and_volume_faults(root):
    annotations = AnnotationSet({"name": "x", "label_scope": "y", "tags": {"terms": ["lung", "cyst"]}})
    annotations.volumes = [volume("a", spacing_mm=(500.0, 1.0, 1.0)), volume("x/../a", "a", source=volume("a").source)]
    annotations.lesions = [
        LesionRecord(0, "a", (2, 3, 1, 8, 9, 3), key_slice=1, recist=(2, 3, 8, 9, 2, 9, 8, 17)),
        LesionRecord(1, "a", (9, 3, 1, 18, 9, 3), attributes={"tags": [0, 2]}),
    ]
    annotations.save(root / "annotations" / "train.json")
    train = "annotations/train.json: "
    assert found(root) == [
        f"{train}volume a: voxel size along z is 500 mm; a CT has 0.05 to 50",
        f"{train}volume x/../a: its id cannot be part of a file name; leave out / \\ .. and line breaks",
        f"{train}lesion 0 in volume a: RECIST mark (2, 3, 8, 9, 2, 9, 8, 17) leaves the image of 20 x 16 pixels",
        f"{train}lesion 1 in volume a: has tag 2, the file names 2 (dataset.tags.terms)",
    ]


def test_one_scan_under_two_patients_in_two_splits(root):
    save(root, "test", [volume("c", source=volume("a").source)])
    (problem,) = found(root)
    assert problem.endswith(
        "volume c: its scan volumes/a.npy is in two splits, train.json and test.json, under two patients"
    )


def test_volumes_of_no_named_patient_are_patients_of_their_own(root):
    save(root, "train", [volume("a", patient="")])
    save(root, "test", [volume("b", patient="")])
    assert found(root) == []
    save(root, "test", [volume("b", patient=""), volume("c", patient="", source=volume("a").source)])
    (problem,) = found(root)
    assert problem.endswith(
        "volume c: its scan volumes/a.npy is in two splits, train.json and test.json, and no patient is named"
    )


@pytest.mark.parametrize("path", ["/etc/x.npy", "../x.npy", "volumes/../../x.npy", "C:/x.npy", "a\nb.npy"])
def test_a_path_that_leaves_the_root(root, path):
    save(root, "train", [volume("a", source={"kind": "npy", "path": path})])
    (problem,) = found(root)
    assert "volume a: volume 'a': its path " in problem and "leaves the data root" in problem


def test_hidden_files_are_none_of_the_dataset(root):
    (root / "annotations" / ".tmp-x-val.json").write_text("{")
    assert found(root) == []


def test_missing_slices_are_noted(root, capsys):
    folder = root / "png"
    folder.mkdir()
    for number in (1, 2, 5):
        picture = np.resize(np.uint16([31768, 32678, 32808]), (16, 20))
        cv2.imwrite(str(folder / f"{number:03d}.png"), picture)
    save(root, "val", [volume("p", first_slice=1, num_slices=5, source={"kind": "png16", "path": "png"})])
    assert main(["check-data", str(root)]) == 0
    note = "volume p: 2 slices between first and last are missing (3, 4), the nearest stand in\n"
    assert note in capsys.readouterr().out


def test_a_folder_without_annotations(tmp_path, capsys):
    with pytest.raises(InputError, match=r"no annotations/\*\.json in it; convert the dataset first"):
        check_dataset(tmp_path)
    assert main(["check-data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_parts_of_one_folder_of_slices(tmp_path):
    """Sub-volumes of a series are checked for their own slices alone."""
    folder = tmp_path / "Images_png" / "p_01_01"
    folder.mkdir(parents=True)
    for number in range(10, 30):
        image = np.random.default_rng(number).integers(31768, 33000, (16, 20)).astype(np.uint16)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
    source = {"kind": "png16", "path": "Images_png/p_01_01"}
    parts = [volume(f"part{first}", "p", first_slice=first, source=source) for first in (10, 20)]
    save(tmp_path, "test", parts)
    assert found(tmp_path) == []
    assert check_dataset(tmp_path, all_slices=True).slices_read == 12
    save(tmp_path, "test", [volume("part", "p", first_slice=26, source=source)])
    assert found(tmp_path) == [
        "annotations/test.json: volume part: slices 26 to 29 exist, the record says 26 to 31; convert again"
    ]


def test_hidden_files_are_no_annotations(root):
    (root / "annotations" / ".tmp-mmpluld-x-val.json").write_text("{")
    assert check_dataset(root).files == {"train.json": (1, 1), "test.json": (1, 1)}
