"""Pairs of marks: read, checked, and turned into numbers of lesions."""

from __future__ import annotations

import json

import pytest

from mmpluld.datasets.converters.lesion_pairs import PairedMark, number_lesions, read_lesion_pairs
from mmpluld.errors import InputError
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

MARKS = {
    "a": ("000004_02_01", 7, 19, 13, (49, 192, 35, 33)),
    "b": ("000004_03_01", 2, 14, 8, (78, 264, 30, 25)),
    "c": ("000004_04_01", 2, 14, 9, (80, 260, 30, 25)),
    "d": ("000004_03_01", 2, 14, 8, (200, 100, 20, 20)),
    "e": ("000004_04_01", 2, 14, 9, (198, 99, 20, 20)),
    "f": ("000009_01_01", 1, 5, 3, (10, 10, 5, 5)),
}


def _side(name, side):
    volume, first, last, number, box = MARKS[name]
    return {
        side: f"{volume}_{first:03d}-{last:03d}.nii.gz",
        f"{side} recist slice": f"{volume}/{number:03d}.png",
        f"{side} recist box": list(box),
        f"{side} center": [0.0, 0.0, float(number - first)],
    }


def _write(path, pairs, **changes):
    entries = {f"{n:04d}": _side(one, "source") | _side(two, "target") | changes for n, (one, two) in enumerate(pairs)}
    path.write_text(json.dumps(entries))
    return path


def test_each_pair_once(tmp_path):
    pairs = read_lesion_pairs(_write(tmp_path / "p.json", ["ab", "ba", "bc", "de"]))
    assert [(one.volume, two.volume) for one, two in pairs] == [
        ("000004_02_01", "000004_03_01"),
        ("000004_03_01", "000004_04_01"),
        ("000004_03_01", "000004_04_01"),
    ]
    # The table counts pixels from 1 and the far one in: 49 to 84 are the edges 48 and 84.
    assert pairs[0][0] == PairedMark("000004_02_01", 13, (48, 191, 84, 225))
    assert pairs[0][0].patient == "000004"


def _annotations(names="abcdef", **moved):
    lesions = []
    for number, name in enumerate(names):
        volume, _, _, key, (x, y, w, h) = MARKS[name]
        shift = moved.get(name, 0)
        box = (x - 1 + shift, y - 1, key, x + w + shift, y + h, key + 1)
        lesions.append(LesionRecord(number, volume, box, key_slice=key))
    volumes = [
        VolumeRecord(
            name, name[:6], name[7:9], name[10:], {"kind": "png16", "path": name}, 1, 20, (512, 512), (5, 1, 1)
        )
        for name in dict.fromkeys(lesion.volume for lesion in lesions)
    ]
    return AnnotationSet({"name": "deeplesion", "label_scope": "x"}, volumes, lesions)


def test_marks_that_pairs_join_have_one_number(tmp_path):
    pairs = read_lesion_pairs(_write(tmp_path / "p.json", ["ed", "ab", "bc", "cb"]))
    annotations = _annotations()
    assert number_lesions(annotations, pairs) == (5, [])
    numbers = [lesion.attributes.get("lesion") for lesion in annotations.lesions]
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3]
    assert numbers[3] == numbers[4]
    assert sorted(set(numbers[:5])) == [1, 2] and numbers[5] is None
    # The order of the file is of no account.
    again = _annotations()
    number_lesions(again, read_lesion_pairs(_write(tmp_path / "q.json", ["cb", "ab", "de"])))
    assert [lesion.attributes for lesion in again.lesions] == [lesion.attributes for lesion in annotations.lesions]


def test_marks_that_are_not_there(tmp_path):
    pairs = read_lesion_pairs(_write(tmp_path / "p.json", ["ab", "de"]))
    numbered, missing = number_lesions(_annotations("abd", b=20), pairs)
    # b has moved by 20 of 31 pixels; e's volume is not in the file at all.
    assert numbered == 2 and [mark.box[0] for mark in missing] == [77]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "000004_02_01.nii.gz"}, "source is '000004_02_01.nii.gz' with slice"),
        ({"source recist slice": "000004_02_02/013.png"}, "source is '000004_02_01_007-019.nii.gz' with slice"),
        ({"source recist slice": "000004_02_01/020.png"}, "recist slice is 20, the sub-volume has 7 to 19"),
        ({"source center": [0, 0, 13]}, "source center is on slice 20, its recist slice is 13"),
        ({"source recist box": [1, 2, 0, 4]}, r"source recist box is \[1, 2, 0, 4\]"),
        ({"target": None}, "entry '0000'"),
        (_side("f", "target"), "000004_02_01 and 000009_01_01 are no two marks of a patient"),
        (_side("a", "target"), "are no two marks of a patient"),
    ],
)
def test_faulty_entries(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read_lesion_pairs(_write(tmp_path / "p.json", ["ab"], **change))


def test_other_files(tmp_path):
    for content in ("[]", "{}", '{"0001": {"source": 1}}', '{"0001": 5}'):
        (tmp_path / "p.json").write_text(content)
        with pytest.raises(InputError, match=r"p\.json: .*dls_pairs_valid\.json"):
            read_lesion_pairs(tmp_path / "p.json")
