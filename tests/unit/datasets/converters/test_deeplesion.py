"""DeepLesion to annotation files: conventions of the numbers, what is dropped, what is refused."""

from __future__ import annotations

import csv
import math
import shutil

import cv2
import numpy as np
import pytest

from mmpluld.datasets.converters.deeplesion import convert_deeplesion
from mmpluld.errors import InputError
from mmpluld.structures import LESION_TYPES, AnnotationSet


@pytest.fixture
def convert(tmp_path, write_csv):
    """``convert(rows, **options)`` without images, returning the report."""

    def run(rows, **options):
        write_csv(tmp_path / "DL_info.csv", rows)
        return convert_deeplesion(tmp_path, **({"require_images": False} | options))

    return run


def load(tmp_path, split="train"):
    return AnnotationSet.load(tmp_path / "annotations" / f"{split}.json")


def test_one_row_by_hand(tmp_path, convert):
    convert([{}])
    found = load(tmp_path)
    assert found.dataset == {"name": "deeplesion", "label_scope": "universal-partial"}
    (volume,), (lesion,) = found.volumes, found.lesions
    assert (volume.id, volume.patient, volume.study, volume.series) == ("000001_01_01", "000001", "01", "01")
    assert volume.source == {"kind": "png16", "path": "Images_png/000001_01_01"}
    assert (volume.first_slice, volume.num_slices, volume.shape_yx) == (3, 5, (32, 32))
    assert volume.spacing_mm == (5.0, 0.8, 0.8)
    # 1-based inclusive 5.5..21 is pixels 4.5..20 counted from 0, whose far edge is 21.
    assert lesion.box == (4.5, 6.0, 5.0, 21.0, 23.25, 6.0)
    assert lesion.key_slice == 5
    assert lesion.recist == (10.5, 11.5, 14.5, 17.5, 9.5, 15.5, 15.5, 13.5)
    assert (lesion.id, lesion.type, lesion.ignore, lesion.origin, lesion.score) == (0, "lung", False, "annotated", None)
    assert lesion.attributes == {
        "row": 0,
        "diameters_mm": pytest.approx([6.0, 4.8]),
        "normalized_location": [0.5, 0.4, 0.3],
        "slice_range": [3, 7],
        "window_hu": [-175, 275],
        "gender": "F",
        "age": 62,
        "noisy": False,
    }


def test_rows_go_to_their_split_and_keep_their_row_number(tmp_path, convert):
    names = ["000001_01_01_005.png", "000002_01_01_005.png", "000003_01_01_005.png", "000002_01_01_006.png"]
    rows = [{"File_name": name, "Train_Val_Test": split} for name, split in zip(names, "1232", strict=True)]
    report = convert(rows)
    ids = {name: [lesion.id for lesion in load(tmp_path, name).lesions] for name in ("train", "val", "test")}
    assert ids == {"train": [0], "val": [1, 3], "test": [2]}
    assert {name: (c.volumes, c.key_slices, c.lesions) for name, c in report.splits.items()} == {
        "train": (1, 1, 1),
        "val": (1, 2, 2),
        "test": (1, 1, 1),
    }


def test_several_lesions_on_a_slice_and_equal_rows_are_all_kept(tmp_path, convert):
    report = convert([{}, {"Bounding_boxes": "1, 1, 4, 4"}, {}])
    assert [lesion.id for lesion in load(tmp_path).lesions] == [0, 1, 2]
    assert report.splits["train"].key_slices == 1


@pytest.mark.parametrize(("number", "name"), [*LESION_TYPES.items(), (-1, None)])
def test_types(tmp_path, convert, number, name):
    convert([{"Coarse_lesion_type": str(number)}])
    assert load(tmp_path).lesions[0].type == name


def test_noisy_rows(tmp_path, convert):
    rows = [{}, {"Possibly_noisy": "1"}]
    report = convert(rows)
    assert [lesion.id for lesion in load(tmp_path).lesions] == [0]
    assert [(row.row, row.line, row.reason) for row in report.dropped] == [(1, 3, "possibly noisy")]
    assert "dropped, possibly noisy: 1 row: line 3 (000001_01_01_005.png)" in report.summary()
    convert(rows, drop_noisy=False, overwrite=True)
    assert [lesion.attributes["noisy"] for lesion in load(tmp_path).lesions] == [False, True]


@pytest.mark.parametrize("interval", ["NaN", "-5", "0"])
def test_unknown_interval_becomes_nan(tmp_path, convert, interval):
    report = convert([{"Spacing_mm_px_": f"0.8, 0.8, {interval}"}])
    spacing = load(tmp_path).volumes[0].spacing_mm
    assert math.isnan(spacing[0])
    assert spacing[1:] == (0.8, 0.8)
    assert report.unknown_spacing == ["000001_01_01"]
    assert "voxel size unknown: 1 series: 000001_01_01" in report.summary()


def test_unknown_age_and_pixel_size(tmp_path, convert):
    convert([{"Patient_age": "NaN", "Spacing_mm_px_": "NaN, NaN, 5"}, {"Patient_age": ""}])
    first, second = load(tmp_path).lesions
    assert first.attributes["age"] is None
    assert first.attributes["diameters_mm"] == [None, None]
    assert second.attributes["age"] is None


def test_image_size_is_width_then_height(tmp_path, convert):
    convert([{"Image_size": "768, 512"}])
    assert load(tmp_path).volumes[0].shape_yx == (512, 768)


def test_slices_come_from_the_images(tmp_path, write_csv, write_slices):
    """And a row that counts the pixels of another image is dropped, for its box would lie beside the lesion."""
    write_csv(tmp_path / "DL_info.csv", [{"Image_size": "30, 24"}, {"Image_size": "512, 512"}])
    write_slices(tmp_path / "Images_png" / "000001_01_01", [1, 2, 5, 6, 12], shape=(24, 30))
    report = convert_deeplesion(tmp_path, units="hu")
    volume = load(tmp_path).volumes[0]
    assert (volume.first_slice, volume.num_slices, volume.shape_yx) == (1, 12, (24, 30))
    assert report.missing_slices == {"000001_01_01": 3}
    assert "no image for 3 slices of 1 series" in report.summary()
    assert [lesion.id for lesion in load(tmp_path).lesions] == [0]
    assert "dropped, Image_size is 512 x 512, the PNG 30 x 24: 1 row: line 3" in report.summary()
    write_csv(tmp_path / "DL_info.csv", [{}])
    with pytest.raises(InputError, match=r"no PNG is as large as .*Image_size is 32 x 32, the PNG 30 x 24"):
        convert_deeplesion(tmp_path, units="hu", overwrite=True)


def test_rows_that_contradict_themselves_or_their_series(tmp_path, convert):
    changes = [
        {"Spacing_mm_px_": "0.8, 0.8, 1"},
        {"Image_size": "64, 64"},
        {"Key_slice_index": "6"},
        {"Slice_range": "6, 9"},
        {"Spacing_mm_px_": "0.8, 0.9, 5"},
    ]
    report = convert([{}, *changes])
    assert [lesion.id for lesion in load(tmp_path).lesions] == [0, 1]
    assert [(row.line, row.reason) for row in report.dropped] == [
        (5, "Key_slice_index is not the slice of File_name"),
        (6, "Slice_range does not hold the key slice"),
        (7, "pixels of Spacing_mm_px_ are not square"),
        (4, "Image_size is 64 x 64, in the first row of its series 32 x 32"),
    ]
    assert "differ in Spacing_mm_px_, the first row's is taken: 1: 000001_01_01" in report.summary()
    with pytest.raises(InputError, match=r"no row can be used \(line 2: Slice_range does not hold"):
        convert([{"Slice_range": "6, 9"}], overwrite=True)


def test_lesions_without_their_image_are_dropped(tmp_path, write_csv, write_slices):
    names = ["000001_01_01_005.png", "000001_01_01_006.png", "000002_01_01_005.png"]
    write_csv(tmp_path / "DL_info.csv", [{"File_name": name} for name in names])
    write_slices(tmp_path / "Images_png" / "000001_01_01", [5])
    report = convert_deeplesion(tmp_path, units="hu")
    found = load(tmp_path)
    assert [lesion.id for lesion in found.lesions] == [0]
    assert [volume.id for volume in found.volumes] == ["000001_01_01"]
    assert [(row.row, row.line, row.reason, row.item) for row in report.dropped] == [
        (1, 3, "no image", "000001_01_01_006.png"),
        (2, 4, "no image", "000002_01_01_005.png"),
    ]


def test_series_that_are_not_in_hu_are_left_out(tmp_path, write_csv):
    """A series of CT, one without its offset, one normalised."""
    ct = np.random.default_rng(0).normal(np.resize([-1000.0, -100.0, 40.0, 60.0], (32, 32)), 15)
    values = {"000001": ct, "000002": ct + 1024, "000003": (ct + 1000) / 1400 * 255 - 128}
    for patient, slice_hu in values.items():
        folder = tmp_path / "Images_png" / f"{patient}_01_01"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "005.png"), (slice_hu + 32768).astype(np.uint16))
    write_csv(tmp_path / "DL_info.csv", [{"File_name": f"{patient}_01_01_005.png"} for patient in values])
    report = convert_deeplesion(tmp_path)
    assert [volume.id for volume in load(tmp_path).volumes] == ["000001_01_01"]
    assert [row.reason for row in report.dropped] == ["values are not HU"] * 2
    assert "000002_01_01: values are not HU" in report.remarks["volume left out"][0]
    report = convert_deeplesion(tmp_path, overwrite=True, units="hu")
    assert len(load(tmp_path).volumes) == 3
    assert len(report.remarks["values do not look like HU"]) == 2
    write_csv(tmp_path / "DL_info.csv", [{"File_name": "000002_01_01_005.png"}])
    with pytest.raises(InputError, match=r"none of 1 series could be converted; the first: .*values are not HU"):
        convert_deeplesion(tmp_path, overwrite=True)


def test_no_image_at_all(tmp_path, write_csv, write_slices):
    write_csv(tmp_path / "DL_info.csv", [{}])
    with pytest.raises(InputError, match=r"Images_png: no such folder; unpack"):
        convert_deeplesion(tmp_path)
    write_slices(tmp_path / "Images_png" / "000009_01_01", [5])
    with pytest.raises(InputError, match=r"holds none of the key slices"):
        convert_deeplesion(tmp_path)
    assert not (tmp_path / "annotations").exists()


def test_existing_files_stay_unless_overwritten(tmp_path, convert):
    convert([{}])
    before = (tmp_path / "annotations" / "train.json").read_text()
    with pytest.raises(InputError, match=r"train\.json: exists already"):
        convert([{}, {}])
    assert (tmp_path / "annotations" / "train.json").read_text() == before
    assert convert([{}, {}], overwrite=True).splits["train"].lesions == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Bounding_boxes": "1, 2, x, 4"}, r"Bounding_boxes '1, 2, x, 4', needed: 4 numbers"),
        ({"Bounding_boxes": "1, 2, 3"}, r"Bounding_boxes '1, 2, 3', needed: 4 numbers"),
        ({"Bounding_boxes": "1, 2, nan, 4"}, r"Bounding_boxes '1, 2, nan, 4', needed: 4 numbers"),
        ({"Bounding_boxes": "9, 2, 3, 4"}, r"Bounding_boxes '9, 2, 3, 4' ends before it begins"),
        ({"Measurement_coordinates": "1"}, r"Measurement_coordinates '1', needed: 8 numbers"),
        ({"Train_Val_Test": "4"}, r"Train_Val_Test 4, allowed are 1, 2, 3"),
        ({"Train_Val_Test": ""}, r"Train_Val_Test '', needed: 1 numbers"),
        ({"Coarse_lesion_type": "9"}, r"Coarse_lesion_type 9, allowed are -1 and 1 to 8"),
        ({"Slice_range": "7, 3"}, r"Slice_range '7, 3' ends before it begins"),
        ({"Slice_range": "1.5, 3"}, r"Slice_range '1.5, 3', needed: 2 whole numbers"),
        ({"Image_size": "0, 32"}, r"Image_size '0, 32', needed are positive numbers"),
        ({"File_name": "../../etc_01_01_005.png"}, r"File_name '../../etc_01_01_005.png', needed is PATIENT"),
        ({"File_name": "000001_01_005.png"}, r"File_name '000001_01_005.png', needed is PATIENT"),
        ({"File_name": "/000001_01_01_005.png"}, r"File_name '/000001_01_01_005.png', needed is PATIENT"),
    ],
)
def test_faulty_rows_are_named_and_nothing_is_written(tmp_path, convert, change, message):
    with pytest.raises(InputError, match=rf"DL_info\.csv: 1 faulty row: line 3: {message}"):
        convert([{}, change])
    assert not (tmp_path / "annotations").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Spacing_mm_px_": "0.8, 0.8, 5000"}, "Spacing_mm_px_ .* allowed is 0.05 to 50 mm"),
        ({"Spacing_mm_px_": "0.8, inf, 5"}, "Spacing_mm_px_ .* allowed is 0.05 to 50 mm"),
        ({"Slice_range": "3, 999999999"}, "Slice_range .* allowed is to 10000"),
        ({"Image_size": "32, 999999999"}, "Image_size .* to 8192"),
        ({"Bounding_boxes": "40, 7, 50, 20"}, "Bounding_boxes .* lies outside the image of 32 x 32"),
        ({"Bounding_boxes": "5_5, 7, 60, 20"}, "Bounding_boxes .*, needed: 4 numbers"),
    ],
)
def test_rows_beyond_what_a_ct_can_be(convert, change, message):
    with pytest.raises(InputError, match=rf"DL_info\.csv: 1 faulty row: line 3: {message}"):
        convert([{}, change])


def test_only_five_faulty_rows_are_listed(convert):
    with pytest.raises(InputError, match=r"7 faulty rows: line 2: .*line 6: [^;]*; and 2 more; mend the file") as error:
        convert([{"Train_Val_Test": "0"}] * 7)
    assert "\n" not in str(error.value)


def test_missing_column(tmp_path):
    (tmp_path / "DL_info.csv").write_text("File_name,Bounding_box\n")
    with pytest.raises(InputError, match=r"no column 'Measurement_coordinates' in the header"):
        convert_deeplesion(tmp_path)
    (tmp_path / "DL_info.csv").write_text("File_name,Measurement_coordinates,Bounding_box\n")
    with pytest.raises(InputError, match=r"no column 'Bounding_boxes' .*is it the one called 'Bounding_box'"):
        convert_deeplesion(tmp_path)


def test_columns_are_found_by_name(tmp_path, write_csv):
    write_csv(tmp_path / "DL_info.csv", [{}])
    with (tmp_path / "DL_info.csv").open() as stream:
        rows = list(csv.reader(stream))
    with (tmp_path / "DL_info.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows([["new", *row[::-1]] for row in rows])
    convert_deeplesion(tmp_path, require_images=False)
    assert load(tmp_path).lesions[0].box == (4.5, 6.0, 5.0, 21.0, 23.25, 6.0)


def test_row_with_too_few_fields(tmp_path, write_csv):
    write_csv(tmp_path / "DL_info.csv", [{}])
    with (tmp_path / "DL_info.csv").open("a") as stream:
        stream.write("000001_01_01_005.png,1\n")
    with pytest.raises(InputError, match=r"line 3: 2 cells under 18 columns"):
        convert_deeplesion(tmp_path, require_images=False)


def test_missing_empty_and_binary_csv(tmp_path, convert):
    with pytest.raises(InputError, match=r"DL_info\.csv: cannot be read \(no such file"):
        convert_deeplesion(tmp_path)
    with pytest.raises(InputError, match=r"no rows below the header"):
        convert([])
    (tmp_path / "DL_info.csv").write_bytes(b"\x00\xfe" * 9)
    with pytest.raises(InputError, match=r"not UTF-8 text"):
        convert_deeplesion(tmp_path)


def test_real_tables(tmp_path, real_data):
    # Published counts of key slices after the noisy rows are gone: 4,791 (val) and 4,817 (test).
    for split, slices, lesions in (("val", 4791, 4887), ("test", 4817, 4912)):
        folder = tmp_path / split
        folder.mkdir()
        shutil.copy(real_data / "deeplesion" / f"DL_info_{split}.csv", folder)
        report = convert_deeplesion(folder, f"DL_info_{split}.csv", require_images=False)
        assert (report.splits[split].key_slices, report.splits[split].lesions) == (slices, lesions)


def test_real_images(tmp_path, real_data):
    (tmp_path / "Images_png").symlink_to(real_data / "deeplesion" / "Images_png")
    shutil.copy(real_data / "deeplesion" / "DL_info_images.csv", tmp_path)
    report = convert_deeplesion(tmp_path, "DL_info_images.csv")
    assert sum(count.lesions for count in report.splits.values()) == 32
    assert not report.dropped
