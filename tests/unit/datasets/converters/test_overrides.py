"""The table of corrections: both forms, what is refused, and that a flip leaves the world where it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpluld.datasets.converters.overrides import Override, apply_override, read_overrides
from mmpluld.errors import InputError
from mmpluld.structures import CTVolume


def test_both_forms_say_the_same(tmp_path):
    (tmp_path / "t.csv").write_text('volume,spacing_mm,flip,exclude\na,"5, 0.7, 0.8",xz,\nb,,,blurred\n')
    (tmp_path / "t.json").write_text('{"a": {"spacing_mm": [5, 0.7, 0.8], "flip": "xz"}, "b": {"exclude": "blurred"}}')
    want = {"a": Override((5.0, 0.7, 0.8), "xz"), "b": Override(exclude="blurred")}
    assert read_overrides(tmp_path / "t.csv", "abc") == want == read_overrides(tmp_path / "t.json", "abc")
    assert read_overrides(None, "abc") == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "volum,flip\na,x\n", r"no column 'volume'"),
        ("t.csv", "volume,flips\na,x\n", r"volume 'a': unknown column 'flips'.*did you mean 'flip'"),
        ("t.csv", "volume,flip\na,xx\n", r"flip is 'xx'; allowed are some of the letters xyz"),
        ("t.csv", "volume,spacing_mm\na,1 2\n", r"spacing_mm is '1 2'; needed are three numbers"),
        ("t.csv", "volume,flip\na,x\na,y\n", r"volume 'a' occurs twice"),
        ("t.json", '{"a": {"spacing_mm": [0, 1, 1]}}', r"spacing_mm is \[0, 1, 1\]"),
        ("t.json", '{"a": {"match": "world"}}', r"match is 'world'; allowed is voxels"),
        ("t.csv", "volume,flip\na,x,y\n", r"1 faulty row: line 2: 3 cells under 2 columns"),
        ("t.csv", "volume,flip,flip\na,x,y\n", r"two columns 'flip'"),
        ("t.json", '{"a": 1}', r"needed is"),
        ("t.json", "{", r"not valid JSON"),
        ("t.json", '{"aa": {}}', r"unknown volume 'aa'; did you mean 'a'\?"),
    ],
)
def test_faulty_tables(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_overrides(tmp_path / name, ["a", "b"])


def test_missing_table(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: cannot be read"):
        read_overrides(tmp_path / "none.csv", ["a"])


@pytest.mark.parametrize("signs", [(1, 1, -1), (1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_another_spacing_leaves_the_first_voxel_of_the_file_where_its_header_puts_it(signs):
    array = np.zeros((4, 3, 2), np.int16)
    wrong, right = (np.diag([*np.multiply(spacing, signs), 1.0]) for spacing in ((1.0, 1.0, 1.0), (0.5, 2.0, 3.0)))
    wrong[:3, 3] = right[:3, 3] = 10.0, 20.0, 30.0
    volume = CTVolume.from_file_array(array, wrong, "scan")
    want = CTVolume.from_file_array(array, right, "scan")
    found = apply_override(volume, Override((3.0, 2.0, 0.5)))
    np.testing.assert_allclose(found.affine_lps, want.affine_lps)
    np.testing.assert_allclose(found.source_affine_lps, right)
    turned = apply_override(volume, Override((3.0, 2.0, 0.5), "xz"))
    corner = np.array([3.0, 0.0, 1.0])  # canonical voxel 0 of the mirrored array
    np.testing.assert_allclose(turned.points_to_world_lps(corner), found.points_to_world_lps((0, 0, 0)))


@given(flip=st.sampled_from(["", "x", "y", "z", "xy", "xyz"]), spacing=st.sampled_from([None, (3.0, 0.5, 2.0)]))
def test_every_voxel_stays_at_its_place_in_the_world(flip, spacing):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = CTVolume.from_canonical(array, (5.0, 1.0, 2.0), (10.0, 20.0, 30.0))
    want = apply_override(volume, Override(spacing))
    found = apply_override(volume, Override(spacing, flip))
    assert found.spacing_mm == pytest.approx(spacing or volume.spacing_mm)
    for z, y, x in np.ndindex(2, 3, 4):
        point = want.points_to_world_lps((x, y, z))
        i, j, k = np.rint(found.points_from_world_lps(point)).astype(int)
        assert found.array[k, j, i] == array[z, y, x]
    box = found.boxes_to_source([[0, 0, 0, 1, 1, 1]])[0]
    i, j, k = box[:3].astype(int)
    assert found.array[0, 0, 0] == array[k, j, i]


@pytest.mark.parametrize("value", ["true", "1"])
def test_exclude_is_a_reason(tmp_path, value):
    (tmp_path / "t.json").write_text(f'{{"a": {{"exclude": {value}}}}}')
    with pytest.raises(InputError, match="exclude is .*; needed is the reason in words"):
        read_overrides(tmp_path / "t.json", ["a"])


@pytest.mark.parametrize("value", ["false", "null", '""'])
def test_nothing_excluded(tmp_path, value):
    (tmp_path / "t.json").write_text(f'{{"a": {{"exclude": {value}}}}}')
    assert read_overrides(tmp_path / "t.json", ["a"])["a"].exclude == ""
