"""Reading COCO files of boxes in CT volumes, and what of COCO is refused."""

from __future__ import annotations

import json

import pytest

from mmpluld.datasets.converters.box_coco import read_box_coco
from mmpluld.datasets.converters.box_rows import BoxRow, Convention
from mmpluld.errors import InputError

SLICE = {"id": 1, "file_name": "a.nii.gz", "slice": 3, "width": 10, "height": 8}
SCAN = {"id": "s2", "file_name": "b", "patient": 12, "split": "test"}


@pytest.fixture
def read(tmp_path):
    def run(images=(), annotations=(), categories=(), text=None, **convention):
        data = {"images": list(images), "annotations": list(annotations), "categories": list(categories)}
        (tmp_path / "boxes.json").write_text(json.dumps(data) if text is None else text)
        return read_box_coco(tmp_path / "boxes.json", Convention(**convention))

    return run


def test_boxes_on_slices_and_in_scans(read):
    flat = {"id": 5, "image_id": 1, "bbox": [2, 1, 5.5, 3], "lesion": 4, "segmentation": []}
    full = {"id": 6, "image_id": "s2", "bbox": [2, 1, 0, 5, 3, 4], "category_id": 1, "ignore": 1, "key_slice": 2}
    rows = read([SLICE, SCAN], [flat | {"category_id": 1}, full], [{"id": 1, "name": "lung"}])
    assert rows == [
        BoxRow("annotation 5", "a.nii.gz", (2, 1, 3, 7.5, 4, 4), True, key_slice=3, lesion="4", type="lung",
               plane_xy=(10, 8)),
        BoxRow("annotation 6", "b", (2, 1, 0, 7, 4, 4), key_slice=2, type="lung", ignore=True, patient="12",
               split="test"),
    ]  # fmt: skip


def test_one_based_shifts_boxes_and_slices(read):
    rows = read([SLICE, SCAN], [{"id": 5, "image_id": 1, "bbox": [3, 2, 5, 3]}], one_based=True)
    assert (rows[0].box, rows[0].key_slice) == ((2, 1, 2, 7, 4, 3), 2)
    assert rows[1:] == [BoxRow("image s2", "b", patient="12", split="test")]


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        ([SLICE | {"slice": None}], [{"image_id": 1, "bbox": [1, 1, 2, 2]}], r"4 numbers, but its image has no 'sl"),
        ([SLICE], [{"image_id": 1, "bbox": [1, 1, 1, 2, 2, 2]}], r"6 numbers, but its image is one slice"),
        ([SLICE], [{"image_id": 1, "bbox": [1, 1, 2, 2], "key_slice": 3}], r"key_slice beside a box of one slice"),
        ([SLICE], [{"image_id": 1, "bbox": [1, 1, 0, 2]}], r"bbox has width 0; needed is a number above 0"),
        ([SLICE], [{"image_id": 1, "bbox": [1, 1, 2]}], r"bbox is \[1, 1, 2\]; needed is \[x, y, width, height\] on a"),
        ([SLICE], [{"image_id": 1, "bbox": [1, "1", 2, 2]}], r"bbox is \[1, '1', 2, 2\]; needed"),
        ([SLICE], [{"image_id": 1}], r"bbox is None; needed"),
        ([SLICE], [{"id": 3, "image_id": 9, "bbox": [1, 1, 2, 2]}], r"annotation 3: image_id is 9; there is no such"),
        ([SLICE], [{"image_id": [1], "bbox": [1, 1, 2, 2]}], r"image_id is '\[1\]'; needed is a number or text"),
        ([SLICE], [{"image_id": 1, "bbox": [1, 1, 2, 2], "iscrowd": 2}], r"iscrowd is 2; allowed are 0, 1"),
        ([SLICE, SLICE], [], r"image 1: this id occurs twice"),
        ([SLICE | {"file_name": "a_017.PNG"}], [], r"a picture, which holds no voxel size.*name the volume"),
        ([SLICE | {"file_name": "s/IM1.dcm"}], [], r"one slice of a series; name the folder"),
        ([SLICE | {"file_name": None}], [], r"image 1: file_name is None; needed is the file of a CT volume"),
        ([SLICE | {"slice": 1.5}], [], r"slice is 1.5; needed is a whole number"),
    ],
)  # fmt: skip
def test_faulty_entries_are_one_clear_line(read, images, annotations, message):
    with pytest.raises(InputError, match=message) as caught:
        read(images, annotations)
    assert "boxes.json: " in str(caught.value) and "\n" not in str(caught.value)


def test_categories_must_exist(read):
    with pytest.raises(InputError, match=r"category_id is 2; there is no such category"):
        read([SLICE], [{"image_id": 1, "bbox": [1, 1, 2, 2], "category_id": 2}], [{"id": 1, "name": "lung"}])


@pytest.mark.parametrize(
    ("text", "convention", "message"),
    [
        ("{", {}, r"not valid JSON"),
        ("[]", {}, r"no list 'images' of objects; needed is COCO"),
        ('{"images": [1], "annotations": []}', {}, r"no list 'images' of objects"),
        ('{"images": []}', {}, r"no list 'annotations' of objects"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"id": 1, "image_id": 1, '
         '"bbox": [NaN, 1, 1, 2, 2, 2]}]}', {}, r"NaN is no JSON number: line 1"),
        ('{"images": [], "annotations": [], "categories": ["lung"]}', {}, r"no list 'categories' of objects"),
        ('{"images": [], "annotations": [], "categories": [{"name": "x"}]}', {}, r"category None: id is 'None'"),
        ('{"images": [{"id": 1, "file_name": "a", "slice": 1, "split": "train"}, '
         '{"id": 2, "file_name": "a", "slice": 2, "split": "test"}], "annotations": []}', {},
         r"image 1 and image 2: split of 'a' is 'train' and 'test'; needed is one for all images of a scan"),
        ("{}", {"inclusive": True}, r"--inclusive is for CSV"),
        ("{}", {"world": "lps"}, r"--world is for CSV"),
    ],
)  # fmt: skip
def test_files_that_are_no_coco(read, text, convention, message):
    with pytest.raises(InputError, match=message):
        read(text=text, **convention)
