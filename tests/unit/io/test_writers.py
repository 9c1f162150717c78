from __future__ import annotations

import csv
import os

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.io import read_volume, write_findings_csv, write_volume
from mmpluld.io.writers import plain_cell
from mmpluld.structures import RECIST, CTVolume, Finding

_SUFFIXES = [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"]


def _volume(dtype=np.int16) -> CTVolume:
    """An oblique scan stored with its axes in another order."""
    array = np.random.default_rng(2).integers(-1000, 1500, (6, 5, 4)).astype(dtype)
    if dtype == np.float32:
        array += np.float32(0.25)
    angle = np.radians(10)
    affine = np.eye(4)
    turn = np.array([[0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)], [1, 0, 0]])
    affine[:3, :3] = turn * [2.5, 0.8, 0.7]
    affine[:3, 3] = [-100.1, 20.2, -30.3]
    return CTVolume.from_file_array(array, affine, "scan")


@pytest.mark.parametrize("suffix", _SUFFIXES)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_written_volume_reads_back(tmp_path, suffix, dtype):
    volume = _volume(dtype)
    path = tmp_path / f"scan{suffix}"
    write_volume(volume, path)
    again = read_volume(path)
    np.testing.assert_array_equal(again.array, volume.array)
    assert again.array.dtype == dtype
    assert again.source_axes == (1, 2, 3)
    np.testing.assert_allclose(again.affine_lps, volume.affine_lps, atol=1e-5)
    expected = {path.name} | ({"scan.raw"} if suffix in (".mhd", ".nhdr") else set())
    assert {item.name for item in tmp_path.iterdir()} == expected


@pytest.mark.parametrize("suffix", _SUFFIXES)
def test_sheared_volume_reads_back(tmp_path, suffix):
    affine = np.diag([0.7, 0.8, -2.5, 1.0])
    affine[1, 2] = 0.4
    volume = CTVolume(_volume().array, affine, _volume().shape[::-1], (1, 2, 3))
    write_volume(volume, tmp_path / f"tilted{suffix}")
    np.testing.assert_allclose(read_volume(tmp_path / f"tilted{suffix}").affine_lps, affine, atol=1e-5)


@pytest.mark.parametrize("suffix", _SUFFIXES)
def test_existing_file_is_replaced(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    write_volume(_volume(np.float32), path)
    write_volume(_volume(), path)
    assert read_volume(path).array.dtype == np.int16


@pytest.mark.parametrize("suffix", _SUFFIXES)
def test_suffix_may_be_in_capitals(tmp_path, suffix):
    path = tmp_path / f"SCAN{suffix.upper()}"
    write_volume(_volume(), path)
    np.testing.assert_array_equal(read_volume(path).array, _volume().array)


def test_unknown_suffix_names_the_allowed(tmp_path):
    with pytest.raises(
        InputError, match=r"unknown file type '.hdr'; allowed are .nii.gz, .nii, .mha, .mhd, .nrrd, .nhdr"
    ):
        write_volume(_volume(), tmp_path / "scan.hdr")
    assert list(tmp_path.iterdir()) == []


def test_findings_csv_by_hand(tmp_path):
    volume = CTVolume.from_canonical(np.full((10, 20, 30), -1000, np.int16), (5, 2, 1))
    findings = [
        Finding.from_canonical(
            volume,
            (2, 4, 3, 6, 10, 5),
            0.875,
            4,
            (2, 4, 6, 10),
            RECIST(11.96, 4.0, (2, 4, 2, 10, 2, 5, 6, 5)),
            (("liver mass", 0.931), ("nodule", 0.5)),
        ),
        Finding.from_canonical(volume, (0, 0, 0, 1, 1, 1), 0.25, key_slice=0, key_box=(0, 0, 1, 1)),
    ]
    write_findings_csv(tmp_path / "findings.csv", findings)
    text = (tmp_path / "findings.csv").read_text()
    assert text.endswith("\n") and "\r" not in text
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["id"] for row in rows] == ["1", "2"]
    assert rows[0].pop("tags") == "liver mass 0.93; nodule 0.50"
    assert {key: float(value) for key, value in rows[0].items()} == {
        "id": 1,
        "score": 0.875,
        "x_lps_mm": 3.5,
        "y_lps_mm": 13,
        "z_lps_mm": -17.5,
        "size_x_mm": 4,
        "size_y_mm": 12,
        "size_z_mm": 10,
        "i1": 2,
        "j1": 4,
        "k1": 3,
        "i2": 6,
        "j2": 10,
        "k2": 5,
        "key_slice": 4,
        "long_mm": 12.0,
        "short_mm": 4.0,
    }
    assert (rows[1]["long_mm"], rows[1]["short_mm"], rows[1]["tags"]) == ("", "", "")


def test_no_findings_leave_the_heading(tmp_path):
    write_findings_csv(tmp_path / "findings.csv", [])
    assert (tmp_path / "findings.csv").read_text().startswith("id,score,x_lps_mm")
    assert len((tmp_path / "findings.csv").read_text().splitlines()) == 1


def test_no_cell_begins_a_formula(tmp_path):
    for text in ("=1+2", "+A1", "-A1", "@SUM(A1)", "\tx", "\r=x"):
        assert plain_cell(text) == f"'{text}"
    for text in ("-0.5", "+3", "-1e-3", "liver mass 0.93", "", "a=b"):
        assert plain_cell(text) == text
    finding = Finding.from_canonical(
        _volume(), (0, 0, 0, 1, 1, 1), 0.9, 0, (0, 0, 1, 1), tags=(("=HYPERLINK(A1)", 0.9),)
    )
    write_findings_csv(tmp_path / "findings.csv", [finding])
    (row,) = csv.DictReader((tmp_path / "findings.csv").open(newline=""))
    assert row["tags"] == "'=HYPERLINK(A1) 0.90"
    assert row["z_lps_mm"].startswith("-")


def test_an_old_header_is_not_left_with_new_voxels(tmp_path, monkeypatch):
    write_volume(_volume(), tmp_path / "scan.mhd")
    real = os.replace

    def stop(source, target):
        real(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_volume(_volume(np.float32), tmp_path / "scan.mhd")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.raw"]
