"""Hints at the end of messages on unknown names."""

from __future__ import annotations

import pytest

from mmpluld.errors import did_you_mean


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
