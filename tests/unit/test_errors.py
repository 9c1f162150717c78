"""Messages: hints on unknown names, lists that are cut short, text that any terminal takes."""

from __future__ import annotations

import pytest

from mmpluld.errors import InputError, alike, counted, did_you_mean, name_some, printable, suggest


@pytest.mark.parametrize(
    ("name", "otherwise", "expected"),
    [
        ("trian", "one of train, test", "; did you mean 'train'?"),
        ("publish", "one of train, test", "; one of train, test"),
        ("publish", "", ""),
        (None, "", ""),
    ],
)
def test_hint(name, otherwise, expected):
    assert did_you_mean(name, ("train", "test"), otherwise) == expected


def test_cutoff_says_how_close_is_close():
    assert did_you_mean("tr", ("train",)) == ""
    assert did_you_mean("tr", ("train",), cutoff=0.4) == "; did you mean 'train'?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("скан 1.nii", "скан 1.nii"),
        ("\udcbb\udcbc.mha", "\\xbb\\xbc.mha"),
        ("\udcd1\udc81\udcd0\udcba", "ск"),  # UTF-8 as a C locale hands it on
        ("a\ud800b", "a\\ud800b"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_printable(text, expected):
    assert printable(text) == expected
    assert printable(text).encode("utf-8")


def test_messages_are_one_printable_line():
    assert str(InputError("scan\udcbb\n1.nii: is empty")) == "scan\\xbb 1.nii: is empty"


def test_of_many_names_the_first_are_listed():
    assert name_some(["a", "b"]) == "a, b"
    assert name_some(list("abcde")) == "a, b, c and 2 more"
    assert name_some(["x 1 -> 2", "y 3 -> 4"], 1, "more changes", "; ") == "x 1 -> 2 and 1 more changes"


@pytest.mark.parametrize(
    ("name", "ids", "expected"),
    [
        ("p1/scn.nii.gz", ["p2/scan.nii.gz", "p1/scan.nii.gz"], "did you mean 'p1/scan.nii.gz'?"),
        ("scan", ["p10_scan", "p1_scan"], "candidates are 'p10_scan', 'p1_scan'"),
        ("1.2.7", ["1.2.3", "1.2.1", "1.2.2"], "candidates are '1.2.1', '1.2.2', '1.2.3'"),
        ("a", [f"a_{n}" for n in range(9)], "candidates are 'a_0', 'a_1', 'a_2', 'a_3' and 5 more"),
        ("liver", ["scan", "lung"], "none"),
        ("liver", [], "none"),
        ("", ["scan", "lung"], "none"),
    ],
)
def test_only_the_plainly_nearest_id_is_suggested(name, ids, expected):
    assert suggest(alike(name, ids), "none") == expected


def test_one_thing_is_singular():
    assert [counted(number, "row") for number in range(3)] == ["0 rows", "1 row", "2 rows"]
