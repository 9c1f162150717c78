from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.structures import AnnotationSet, Detections, DetectionSet, LesionRecord, VolumeRecord

_VOLUME = VolumeRecord(
    id="000001_01_01",
    patient="000001",
    study="01",
    series="01",
    source={"kind": "png16", "path": "Images_png/000001_01_01"},
    first_slice=103,
    num_slices=12,
    shape_yx=(512, 512),
    spacing_mm=(5.0, 0.79, 0.79),
)
_LESION = LesionRecord(
    id=0, volume="000001_01_01", box=(10.0, 20.0, 109.0, 30.5, 41.0, 110.0), key_slice=109, type="lung"
)


def _annotations(*lesions: LesionRecord) -> AnnotationSet:
    return AnnotationSet({"name": "deeplesion", "label_scope": "universal-partial"}, [_VOLUME], list(lesions))


def _saved(tmp_path, *lesions: LesionRecord) -> dict:
    path = tmp_path / "saved.json"
    _annotations(*lesions).save(path)
    return json.loads(path.read_text())


def test_annotation_file_holds_the_documented_keys(tmp_path):
    data = _saved(tmp_path, _LESION)
    assert list(data) == ["schema", "dataset", "volumes", "lesions"]
    assert data["schema"] == "mmpluld.annotations/1"
    assert data["volumes"][0]["spacing_mm"] == [5.0, 0.79, 0.79]
    assert data["lesions"] == [
        {
            "id": 0,
            "volume": "000001_01_01",
            "box": [10, 20, 109, 30.5, 41, 110],
            "key_slice": 109,
            "recist": None,
            "type": "lung",
            "ignore": False,
            "origin": "annotated",
            "score": None,
            "mask": None,
            "attributes": {},
        }
    ]


_MASK = {"size": list(_VOLUME.shape_yx), "counts": "PPP8"}


def test_masks_come_back_as_they_were(tmp_path):
    path = tmp_path / "a.json"
    _annotations(replace(_LESION, mask=_MASK)).save(path)
    assert AnnotationSet.load(path).lesions[0].mask == _MASK


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": {"size": [5, 5], "counts": "00"}}, "mask of size .5, 5. with key slice 109; .* has its size"),
        ({"mask": _MASK, "key_slice": None}, "with key slice None; a mask lies on the key slice"),
        ({"mask": {"size": [5, 5]}}, "mask must contain"),
        ({"mask": {"size": [512, 512], "counts": "00000"}}, "mask has run lengths of 0 pixels, its slice 262144"),
        ({"mask": {"size": [512, 512], "counts": "~"}}, "mask is no COCO run lengths .character '~'"),
        ({"mask": {"size": [5, 5], "counts": [3]}}, "counts must be string"),
    ],
)
def test_masks_that_fit_nothing_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        _annotations(replace(_LESION, **changes)).save(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_unknown_spacing_is_null_in_the_file_and_nan_in_memory(tmp_path):
    path = tmp_path / "a.json"
    annotations = _annotations()
    annotations.volumes = [replace(_VOLUME, spacing_mm=(math.nan, 0.8, 0.8))]
    annotations.save(path)
    assert json.loads(path.read_text())["volumes"][0]["spacing_mm"] == [None, 0.8, 0.8]
    assert math.isnan(AnnotationSet.load(path).volumes[0].spacing_mm[0])


def test_volumes_without_lesions_are_listed():
    annotations = _annotations(_LESION)
    annotations.volumes.append(replace(_VOLUME, id="empty"))
    assert annotations.lesions_by_volume() == {"000001_01_01": [_LESION], "empty": []}


_WHOLE = st.integers(-(2**63), 2**63 - 1)
_NUMBER = st.floats(-1e4, 1e4)
# Attributes that have a form of their own, which made-up values break.
_KNOWN = {"slice_boxes", "tags", "normalized_location", "window_hu", "age", "gender"}
_LESIONS = st.builds(
    LesionRecord,
    id=st.integers(-(2**53), 2**53),
    volume=st.just(_VOLUME.id),
    box=st.tuples(_NUMBER, _NUMBER, st.integers(103, 108), _NUMBER, _NUMBER, st.integers(109, 115)).map(
        lambda b: tuple(map(float, (min(b[0], b[3]), min(b[1], b[4]), b[2], max(b[0], b[3]), max(b[1], b[4]), b[5])))
    ),
    key_slice=st.none() | st.just(108),
    recist=st.none() | st.tuples(*[_NUMBER] * 8),
    type=st.none() | st.text(),
    ignore=st.booleans(),
    origin=st.sampled_from(["annotated", "propagated", "matched", "mined", "distilled"]),
    score=st.none() | st.floats(0, 1),
    mask=st.none(),
    attributes=st.dictionaries(st.text().filter(lambda name: name not in _KNOWN), _WHOLE | st.text()),
)


@given(st.lists(_LESIONS, unique_by=lambda lesion: lesion.id, max_size=4))
def test_annotations_come_back_as_they_were(tmp_path_factory, lesions):
    path = tmp_path_factory.mktemp("records") / "a.json"
    annotations = _annotations(*lesions)
    annotations.save(path)
    assert AnnotationSet.load(path) == annotations


def test_numpy_values_are_written_as_plain_numbers(tmp_path):
    lesion = replace(_LESION, id=np.int64(3), box=tuple(np.array(_LESION.box)), score=np.float32(0.5))
    data = _saved(tmp_path, lesion)
    assert data["lesions"][0]["id"] == 3
    assert data["lesions"][0]["score"] == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"volume": "000001_01_02"}, r"lesion 0: unknown volume '000001_01_02' .*did you mean '000001_01_01'"),
        ({"volume": "zzz"}, "unknown volume 'zzz'.*add the volume"),
        ({"box": (30.0, 20.0, 109.0, 10.0, 41.0, 110.0)}, "lesion 0: box .* ends before it begins"),
        ({"box": (0.0, 0.0, 102.0, 1.0, 1.0, 104.0)}, r"z range \[102, 104\] leaves volume .* covers \[103, 115\]"),
        ({"box": (0.0, 0.0, 114.0, 1.0, 1.0, 116.0)}, r"z range \[114, 116\] leaves volume"),
        ({"box": (0.0, 0.0, 109.0, 1.0, 1.0)}, r"lesions\[0\]\.box must contain"),
        ({"box": (0.0, 0.0, 109.0, math.inf, 1.0, 110.0)}, "cannot be written as JSON"),
        ({"key_slice": 115}, "key slice 115 .* allowed are 103 to 114"),
        ({"key_slice": 110}, "lesion 0: key slice 110 lies outside its box, z 109 to 110; allowed are 109 to 109"),
        ({"box": (0.0, 0.0, 104.6, 1.0, 1.0, 109.5)}, "key slice 109 lies outside its box, .* allowed are 105 to 108"),
        ({"attributes": {"slice_boxes": [[108, 0, 0, 1, 1]]}}, "has no box on its key slice 109, only on 108; mend"),
        ({"attributes": {"slice_boxes": []}}, "has no box on its key slice 109, on none; mend"),
        (
            {"attributes": {"slice_boxes": [[109, 0, 0, 1, 1], [999, 0, 0, 1, 1]]}},
            r"slice_boxes has \[999, 0, 0, 1, 1\]: slice 999 is not one of volume '000001_01_01', 103 to 114, mend",
        ),
        ({"attributes": {"slice_boxes": [[109.5, 0, 0, 1, 1]]}}, "slice 109.5 is not one of volume"),
        ({"attributes": {"slice_boxes": [[109, 0, 0, 1, 1], [109, 0, 0, 1, 2]]}}, "slice 109 occurs twice"),
        ({"attributes": {"slice_boxes": [[109, 2, 0, 1, 1]]}}, "the box ends before it begins; order is slice, x1"),
        ({"origin": "guessed"}, r"lesions\[0\]\.origin must be one of .*found \"guessed\""),
        ({"ignore": "no"}, r"lesions\[0\]\.ignore must be boolean"),
        ({"attributes": {"made_by": object()}}, "object is no JSON type"),
    ],
)
def test_faulty_lesion_is_named_and_nothing_written(tmp_path, change, message):
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=message) as caught:
        _annotations(replace(_LESION, **change)).save(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_duplicate_ids_are_refused(tmp_path):
    with pytest.raises(InputError, match="lesion id 0 occurs more than once"):
        _annotations(_LESION, _LESION).save(tmp_path / "a.json")
    annotations = _annotations()
    annotations.volumes *= 2
    with pytest.raises(InputError, match="volume id '000001_01_01' occurs more than once"):
        annotations.save(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda data: data.update(schema="mmpluld.detections/1"), r"schema is 'mmpluld.detections/1'; allowed is"),
        (lambda data: data.pop("volumes"), "must contain .*volumes"),
        (lambda data: data["lesions"][0].update(colour="red"), "colour"),
        (
            lambda data: data["lesions"][0].update(box=[0, 0, 109, math.nan, 1, 110]),
            "not valid JSON .NaN is no JSON number: line ",
        ),
        (lambda data: data["lesions"][0].update(key_slice=108), "lesion 0: key slice 108 lies outside its box"),
        (lambda data: data["volumes"][0].update(frame="file-voxels"), "frame is 'file-voxels'; an annotation file"),
        (lambda data: data["volumes"][0].update(frame="canonical-voxels"), "with first_slice 103; these count from 0"),
        (lambda data: data["volumes"][0].update(affine_lps=[[0] * 4] * 4), "'000001_01_01': voxel size .* above 0"),
        (
            lambda data: data["volumes"][0].update(affine_lps=np.diag([0.79, 0.79, -2.5, 1]).tolist()),
            r"spacing_mm is \[5.0, 0.79, 0.79\], but affine_lps says \[2.5, 0.79, 0.79\]",
        ),
        (lambda data: data["volumes"][0].update(num_slices=0), r"volumes\[0\]\.num_slices must be bigger"),
        (lambda data: data["volumes"][0].update(spacing_mm=[0, 1, 1]), r"spacing_mm\[0\] must be bigger than 0"),
    ],
)
def test_faulty_annotation_file_is_refused(tmp_path, edit, message):
    data = _saved(tmp_path, _LESION)
    edit(data)
    path = tmp_path / "faulty.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message) as caught:
        AnnotationSet.load(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("record", [AnnotationSet, DetectionSet])
def test_files_that_are_no_json(tmp_path, record):
    with pytest.raises(InputError, match="no such file"):
        record.load(tmp_path / "missing.json")
    with pytest.raises(InputError, match="is a folder"):
        record.load(tmp_path)
    for content in (b'{"schema": "mmpluld.det', b"\xff\xfe\x00"):
        (tmp_path / "cut.json").write_bytes(content)
        with pytest.raises(InputError, match="not (valid JSON|UTF-8 text)"):
            record.load(tmp_path / "cut.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="schema is None"):
        record.load(tmp_path / "list.json")


def test_detections_come_back_as_they_were(tmp_path):
    path = tmp_path / "d.json"
    boxes = np.array([[1, 2, 3, 4, 5, 6.25], [0, 0, 0, 1, 1, 1]])
    DetectionSet(
        {
            "scan": Detections(
                boxes=boxes,
                scores=np.array([0.9, 0.1]),
                world_lps=boxes * 2,
                key_slices=np.array([4, 0]),
                slice_axis=1,
                spacing_mm=(5.0, 0.8, 0.8),
                source="scan.nii.gz",
                history=("oblique",),
            ),
            "truth": Detections(boxes=boxes[:1]),
            "nothing": Detections(boxes=np.zeros((0, 6)), scores=np.zeros(0)),
        }
    ).save(path)
    volumes = DetectionSet.load(path).volumes
    assert list(volumes) == ["scan", "truth", "nothing"]
    scan = volumes["scan"]
    np.testing.assert_array_equal(scan.boxes, boxes)
    np.testing.assert_array_equal(scan.scores, [0.9, 0.1])
    np.testing.assert_array_equal(scan.world_lps, boxes * 2)
    np.testing.assert_array_equal(scan.key_slices, [4, 0])
    assert (scan.slice_axis, scan.spacing_mm, scan.source, scan.history) == (
        1,
        (5, 0.8, 0.8),
        "scan.nii.gz",
        ("oblique",),
    )
    assert volumes["truth"].scores is None
    assert volumes["nothing"].boxes.shape == (0, 6)
    assert volumes["nothing"].scores.shape == (0,)


def test_no_volumes(tmp_path):
    DetectionSet().save(tmp_path / "d.json")
    assert DetectionSet.load(tmp_path / "d.json").volumes == {}


_BOX = [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"boxes": [_BOX], "scores": []}, "volume 'v': 1 boxes but 0 scores"),
        ({"boxes": [_BOX], "scores": [0.5], "world_lps": [_BOX, _BOX]}, "1 boxes but 2 world_lps"),
        ({"boxes": [_BOX], "key_slices": [0.5]}, "key_slices .* whole numbers"),
        ({"boxes": [_BOX], "scores": ["high"]}, "scores .* finite numbers"),
        ({"boxes": [_BOX], "scores": [[0.5], [0.5, 0.4]]}, "scores is ragged"),
        ({"boxes": [_BOX], "scores": [math.nan]}, "NaN is no JSON number"),
        ({"boxes": [[0, 0, 0, 1, 1]]}, r"volume 'v': boxes have shape \(1, 5\)"),
        ({"boxes": [[0, 0, 2, 1, 1, 1]]}, "volume 'v': box 0 .* far edge"),
        ({"boxes": [[0, 0, 2, 1, 1, 2], [0, 0, 1, 1, 1, 1]]}, "volume 'v': all boxes end along z where they begin"),
        ({"scores": []}, "boxes"),
        ({"boxes": [], "score": []}, "score"),
        ({"boxes": [], "slice_axis": 3}, "slice_axis must be one of"),
        ({"boxes": [], "frame": "voxels"}, "frame must be one of"),
        ({"boxes": [], "frame": "file-voxels", "affine_lps": np.eye(4).tolist()}, "affine_lps without shape"),
        ({"boxes": [], "shape": [1, 1, 1], "affine_lps": np.ones((4, 4)).tolist()}, "the affine is singular"),
    ],
)
def test_faulty_detections_are_refused(tmp_path, volume, message):
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"schema": "mmpluld.detections/1", "volumes": {"v": volume}}))
    with pytest.raises(InputError, match=message) as caught:
        DetectionSet.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_frame_and_geometry_come_back(tmp_path):
    path = tmp_path / "d.json"
    affine = np.diag([0.8, -0.9, 2.5, 1.0])
    found = Detections(np.zeros((0, 6)), frame="file-voxels", shape=(4, 5, 6), affine_lps=affine)
    numbers = Detections(np.zeros((0, 6)), frame="series-slices", first_slice=103)
    DetectionSet({"a": found, "b": numbers, "c": Detections(np.zeros((0, 6)), source="old.nii")}).save(path)
    volumes = DetectionSet.load(path).volumes
    assert (volumes["a"].frame, volumes["a"].shape, volumes["a"].affine_lps.tolist()) == (
        "file-voxels",
        (4, 5, 6),
        affine.tolist(),
    )
    assert (volumes["b"].frame, volumes["b"].first_slice, volumes["b"].shape) == ("series-slices", 103, None)
    assert volumes["c"].frame == "file-voxels"  # what `mmpluld detect` meant before it said so


def test_world_of_a_volume_comes_back(tmp_path):
    affine = ((0.79, 0.0, 0.0, -3.5), (0.0, 0.79, 0.0, 1.0), (0.0, 0.0, -5.0, 7.25), (0.0, 0.0, 0.0, 1.0))
    annotations = AnnotationSet(
        {"name": "x", "label_scope": "y"}, [replace(_VOLUME, first_slice=0, frame="", affine_lps=affine)]
    )
    annotations.save(tmp_path / "a.json")
    assert AnnotationSet.load(tmp_path / "a.json").volumes[0].affine_lps == affine


def test_faulty_detections_are_not_written(tmp_path):
    with pytest.raises(InputError, match="1 boxes but 2 scores"):
        DetectionSet({"v": Detections(np.array([_BOX]), np.array([0.5, 0.5]))}).save(tmp_path / "d.json")
    with pytest.raises(InputError, match="finite"):
        DetectionSet({"v": Detections(np.array([_BOX]), np.array([np.nan]))}).save(tmp_path / "d.json")
    assert list(tmp_path.iterdir()) == []


def test_diameters_come_back_and_unknown_ones_are_null(tmp_path):
    path = tmp_path / "d.json"
    boxes = np.array([[0, 0, 0, 1, 1, 1], [2, 2, 2, 3, 3, 3]], dtype=float)
    DetectionSet({"v": Detections(boxes, diameters_mm=np.array([[12.5, 7.0], [np.nan, np.nan]]))}).save(path)
    assert json.loads(path.read_text())["volumes"]["v"]["diameters_mm"] == [[12.5, 7.0], None]
    np.testing.assert_array_equal(DetectionSet.load(path).volumes["v"].diameters_mm, [[12.5, 7.0], [np.nan, np.nan]])


def test_diameters_must_be_one_pair_a_box(tmp_path):
    with pytest.raises(InputError, match="1 boxes but 2 diameters_mm"):
        DetectionSet({"v": Detections(np.zeros((1, 6)), diameters_mm=np.ones((2, 2)))}).save(tmp_path / "d.json")


def test_tags_come_back(tmp_path):
    path = tmp_path / "d.json"
    tags = ({"liver": 0.9, "mass": 0.5}, {})
    DetectionSet({"v": Detections(np.zeros((2, 6)), tags=tags)}).save(path)
    assert json.loads(path.read_text())["volumes"]["v"]["tags"] == [{"liver": 0.9, "mass": 0.5}, {}]
    assert DetectionSet.load(path).volumes["v"].tags == tags


@pytest.mark.parametrize(("tags", "message"), [(({}, {}), "1 boxes but 2 tags"), (({"liver": 1.5},), "maximum|1")])
def test_tags_must_fit(tmp_path, tags, message):
    with pytest.raises(InputError, match=message):
        DetectionSet({"v": Detections(np.zeros((1, 6)), tags=tags)}).save(tmp_path / "d.json")
    assert not (tmp_path / "d.json").exists()


def test_whole_numbers_with_a_point(tmp_path):
    path = tmp_path / "a.json"
    volume = VolumeRecord("v", "p", "1", "1", {"kind": "npy", "path": "v.npy"}, 0, 9, (8, 8), (1.0, 1.0, 1.0))
    AnnotationSet({"name": "x", "label_scope": "y"}, [volume], [LesionRecord(0, "v", (0, 0, 5, 4, 4, 6), 5)]).save(path)
    path.write_text(
        path.read_text().replace('"key_slice": 5', '"key_slice": 5.0').replace('"first_slice": 0', '"first_slice": 0.0')
    )
    found = AnnotationSet.load(path)
    assert (repr(found.lesions[0].key_slice), repr(found.volumes[0].first_slice)) == ("5", "0")
