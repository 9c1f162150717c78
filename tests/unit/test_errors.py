"""Messages: hints on unknown names, lists that are cut short, text that any terminal takes."""

from __future__ import annotations

import pytest

from mmpluld.errors import InputError, did_you_mean, name_some, printable


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
