from __future__ import annotations

import csv
import filecmp
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.phantom import (
    DL_INFO_COLUMNS,
    PhantomSpec,
    make_phantom,
    write_deeplesion_layout,
    write_lits_layout,
    write_nifti,
)
from mmpluld.phantom.case import make_case
from mmpluld.structures import AnnotationSet

SPLITS = ("train", "val", "test")


def _rows(root: Path) -> list[dict[str, str]]:
    with (root / "DL_info.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_table_has_deeplesions_columns_and_number_format(layout: Path) -> None:
    lines = (layout / "DL_info.csv").read_text().splitlines()
    assert lines[0] == ",".join(DL_INFO_COLUMNS)
    number = r"-?\d+(\.\d+)?(e-\d+)?"
    pattern = re.compile(
        rf'\d{{6}}_\d\d_\d\d_\d{{3}}\.png,\d+,\d+,\d+,\d+,"({number}, ){{7}}{number}","({number}, ){{3}}{number}",'
        rf'"{number}, {number}","({number}, ){{2}}{number}",(-1|[1-8]),[01],"\d+, \d+","({number}, ){{2}}{number}",'
        rf'"64, 64","{number}, {number}",[MF],(\d+|NaN),[123]'
    )
    assert len(lines) > 3
    assert all(pattern.fullmatch(line) for line in lines[1:])


def test_columns_equal_the_real_files(real_data: Path) -> None:
    with (real_data / "deeplesion" / "DL_info_val.csv").open(newline="") as stream:
        assert tuple(next(csv.reader(stream))) == DL_INFO_COLUMNS


def test_pngs_hold_the_volume(layout: Path) -> None:
    spec = PhantomSpec(size=64, max_slices=24, max_series=2, noisy_prob=0.2)
    case = make_case(2, "deeplesion/train", 1, spec)
    for series in case.series:
        folder = layout / "Images_png" / case.series_id(series)
        assert len(list(folder.iterdir())) == series.volume.shape[0]
        for index in (0, series.volume.shape[0] - 1):
            image = cv2.imread(str(folder / f"{index + 1:03d}.png"), cv2.IMREAD_UNCHANGED)
            assert image.dtype == np.uint16
            np.testing.assert_array_equal(image.astype(int) - 32768, series.volume.array[index])


def test_splits_are_by_patient_and_types_are_hidden_in_training(layout: Path) -> None:
    for row in _rows(layout):
        assert row["Train_Val_Test"] == {"1": "1", "2": "1", "3": "1", "4": "2", "5": "3"}[row["Patient_index"]]
        assert (row["Coarse_lesion_type"] == "-1") == (row["Train_Val_Test"] == "1")


def test_marks_are_a_part_of_the_truth_with_equal_boxes(layout: Path) -> None:
    marked = {}
    for split in SPLITS:
        volume_truth = AnnotationSet.load(layout / "truth" / f"{split}.json")
        key_truth = AnnotationSet.load(layout / "truth" / f"{split}_key_slices.json")
        assert volume_truth.dataset == {"name": "phantom", "label_scope": "universal-complete"}
        in_3d = {(lesion.volume, lesion.attributes["lesion"]): lesion for lesion in volume_truth.lesions}
        for lesion in key_truth.lesions:
            assert lesion.box[2:6:3] == (lesion.key_slice, lesion.key_slice + 1)
            outer = in_3d[lesion.volume, lesion.attributes["lesion"]].box
            assert np.all(np.less_equal(outer[:3], lesion.box[:3]))
            assert np.all(np.greater_equal(outer[3:], lesion.box[3:]))
            if lesion.attributes["marked"]:
                marked[lesion.volume, lesion.key_slice, lesion.box] = lesion.recist
    table = {}
    for row in _rows(layout):
        if row["Possibly_noisy"] == "0":
            x1, y1, x2, y2 = map(float, row["Bounding_boxes"].split(","))
            key = int(row["Key_slice_index"])
            box = (x1 - 1, y1 - 1, float(key), x2, y2, float(key + 1))
            recist = tuple(float(v) - 0.5 for v in row["Measurement_coordinates"].split(","))
            table[row["File_name"][:12], key, box] = recist
    assert table
    assert marked == table


def test_key_slice_truth_is_complete() -> None:
    case = make_phantom(0, size=64, max_slices=40, intervals_mm=(5.0,), lesions_per_series=12.0)
    key = next(lesion.key_slice for lesion in case.lesions if lesion.marked)
    crossing = [lesion for lesion in case.lesions if key in lesion.slices]
    assert crossing
    for lesion in case.lesions:
        z1, z2 = lesion.mask_box[2], lesion.mask_box[5]
        assert (key in lesion.slices) <= (z1 <= key < z2)


def test_same_files_for_any_number_of_workers(tmp_path: Path) -> None:
    settings = {"size": 32, "max_slices": 6}
    one = write_deeplesion_layout(tmp_path / "a", (2, 1, 0), seed=9, workers=1, **settings)
    two = write_deeplesion_layout(tmp_path / "b", (2, 1, 0), seed=9, workers=2, **settings)
    files = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    assert files == sorted(str(path.relative_to(two)) for path in two.rglob("*") if path.is_file())
    assert filecmp.cmpfiles(one, two, files, shallow=False)[0] == files


def test_more_training_patients_leave_the_test_patients_as_they_are(tmp_path: Path) -> None:
    settings = {"size": 32, "max_slices": 4, "workers": 1}
    few = write_deeplesion_layout(tmp_path / "few", (1, 0, 2), seed=9, **settings)
    more = write_deeplesion_layout(tmp_path / "more", (2, 1, 3), seed=9, **settings)
    for old, new in (("000001", "000001"), ("000002", "000004"), ("000003", "000005")):
        for number in range(1, 5):
            name = f"Images_png/{{}}_01_01/{number:03d}.png"
            assert (few / name.format(old)).read_bytes() == (more / name.format(new)).read_bytes()


def test_near_slices_only(tmp_path: Path) -> None:
    settings = {"size": 32, "max_slices": 50, "intervals_mm": (5.0,), "lesions_per_series": 2.0}
    root = write_deeplesion_layout(tmp_path / "near", (2, 0, 0), seed=1, all_slices=False, workers=1, **settings)
    truth = AnnotationSet.load(root / "truth" / "train.json")
    assert truth.volumes
    behind = []
    for volume in truth.volumes:
        numbers = sorted(int(path.stem) for path in (root / volume.source["path"]).iterdir())
        assert numbers == list(range(volume.first_slice, volume.first_slice + volume.num_slices))
        keys = [int(row["Key_slice_index"]) for row in _rows(root) if row["File_name"].startswith(volume.id)]
        assert numbers[0] == max(1, min(keys) - 6)
        behind.append(numbers[-1] - max(keys))
    assert max(behind) == 6  # fewer where the series ends


def test_existing_folders_are_safe(tmp_path: Path) -> None:
    settings = {"size": 32, "max_slices": 4, "workers": 1}
    root = write_deeplesion_layout(tmp_path / "x", (1, 0, 0), **settings)
    with pytest.raises(InputError, match="not an empty folder"):
        write_deeplesion_layout(root, (1, 0, 0), **settings)
    assert write_deeplesion_layout(root, (1, 0, 0), overwrite=True, seed=5, **settings) == root
    assert json.loads((root / "phantom.json").read_text())["seed"] == 5
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text("{}")
    write_deeplesion_layout(root, (1, 0, 0), overwrite=True, seed=6, **settings)
    assert not (root / "annotations").exists()
    with pytest.raises(InputError, match="holds no lits phantom"):
        write_lits_layout(root, 1, overwrite=True, size=32, max_slices=4)
    foreign = tmp_path / "real"
    (foreign / "Images_png").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no deeplesion phantom, so it is not overwritten"):
        write_deeplesion_layout(foreign, (1, 0, 0), overwrite=True, **settings)
    assert (foreign / "Images_png").is_dir()


@pytest.mark.parametrize("counts", [(0, 0, 0), (1, -1, 0), (1, 2)])
def test_bad_patient_counts(tmp_path: Path, counts: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="must be three counts"):
        write_deeplesion_layout(tmp_path / "x", counts)  # type: ignore[arg-type]


def test_nifti_and_truth_beside_it(tmp_path: Path) -> None:
    from mmpluld.io import read_volume

    case = make_phantom(3, size=48, max_slices=12)
    truth_path = write_nifti(case, tmp_path / "scan.nii.gz")
    volume = read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(volume.array, case.volume.array)
    np.testing.assert_allclose(volume.affine_lps, case.volume.affine_lps, atol=1e-4)
    truth = AnnotationSet.load(truth_path)
    assert [lesion.box for lesion in truth.lesions] == [lesion.box for lesion in case.lesions]
    assert truth.volumes[0].frame == "canonical-voxels"
    np.testing.assert_allclose(truth.volumes[0].affine_lps, volume.affine_lps, atol=1e-4)
    with pytest.raises(InputError, match="change the suffix"):
        write_nifti(case, tmp_path / "scan.mhd")
    with pytest.raises(InputError, match="series=7"):
        write_nifti(case, tmp_path / "scan.nii", series=7)
