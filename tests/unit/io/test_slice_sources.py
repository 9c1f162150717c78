"""Slice sources: HU values, slice numbers, and what their errors say."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.io.slice_sources import PNGSliceSource, VolumeSliceSource, open_source, read_png16
from mmpluld.structures import CTVolume, VolumeRecord


def write_png(path: Path, hu: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), (hu.astype(np.int32) + 32768).astype(np.uint16))


def volume(depth: int = 3) -> CTVolume:
    array = np.arange(depth * 20, dtype=np.int16).reshape(depth, 4, 5) - np.int16(1000)
    return CTVolume(array, np.diag([0.5, 0.5, -2.0, 1.0]), (5, 4, depth), (1, 2, 3))


def record(kind: str, path: str, first_slice: int = 0) -> VolumeRecord:
    return VolumeRecord("v", "p", "1", "1", {"kind": kind, "path": path}, first_slice, 3, (4, 5), (2.0, 0.5, 0.5))


def test_every_16_bit_value_becomes_value_minus_32768(tmp_path):
    values = np.arange(65536, dtype=np.int32).reshape(256, 256) - 32768
    write_png(tmp_path / "1.png", values)
    found = read_png16(tmp_path / "1.png")
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, values)


def test_png_folder(tmp_path):
    for index in (9, 10, 103):
        write_png(tmp_path / f"{index:03d}.png", np.full((4, 6), index))
    (tmp_path / "notes.txt").write_text("not a slice")
    (tmp_path / "preview.png").write_bytes(b"not a slice either")
    source = PNGSliceSource(tmp_path, (math.nan, 0.7, 0.8))
    assert source.indices.tolist() == [9, 10, 103]
    assert source.shape_yx == (4, 6)
    assert math.isnan(source.spacing_mm[0])
    assert source.spacing_mm[1:] == (0.7, 0.8)
    np.testing.assert_array_equal(source.read(103), np.full((4, 6), 103))


def test_png_folder_says_which_slices_there_are(tmp_path):
    for index in (3, 4, 5, 9):
        write_png(tmp_path / f"{index:03d}.png", np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"no slice 7; there are slices 3-5, 9$"):
        PNGSliceSource(tmp_path, (5, 1, 1)).read(7)


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no folder of slices here .*check the data root"):
        PNGSliceSource(tmp_path / "nowhere", (5, 1, 1))


def test_folder_without_slices(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"no slices named by number"):
        PNGSliceSource(tmp_path, (5, 1, 1))


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (np.zeros((4, 4), np.uint8), "8-bit greyscale"),
        (np.zeros((4, 4, 3), np.uint16), "16-bit RGB"),
        (np.zeros((4, 4, 4), np.uint8), "8-bit RGBA"),
    ],
)
def test_other_pngs_are_refused(tmp_path, image, kind):
    cv2.imwrite(str(tmp_path / "1.png"), image)
    with pytest.raises(InputError, match=rf"1\.png: PNG is {kind}; allowed is 16-bit greyscale"):
        read_png16(tmp_path / "1.png")


def test_volume_source_numbers_slices_from_first_slice():
    source = VolumeSliceSource(volume(), first_slice=10)
    assert source.indices.tolist() == [10, 11, 12]
    assert source.spacing_mm == (2.0, 0.5, 0.5)
    assert source.shape_yx == (4, 5)
    np.testing.assert_array_equal(source.read(11), volume().array[1])


@pytest.mark.parametrize("index", [9, 13, -1])
def test_volume_source_refuses_slices_outside(index):
    with pytest.raises(InputError, match=rf"no slice {index}; there are slices 10-12"):
        VolumeSliceSource(volume(), first_slice=10).read(index)


def test_open_source_png(tmp_path):
    write_png(tmp_path / "series" / "002.png", np.full((4, 5), -1000))
    source = open_source(record("png16", "series"), tmp_path)
    np.testing.assert_array_equal(source.read(2), np.full((4, 5), -1000))


def test_open_source_volume(tmp_path):
    from mmpluld.io import write_volume

    write_volume(volume(), tmp_path / "scan.nii.gz")
    with pytest.raises(InputError, match="values are not HU"):
        open_source(record("nifti", "scan.nii.gz", first_slice=4), tmp_path)
    told = record("nifti", "scan.nii.gz", first_slice=4)
    told.source["units"] = "hu"
    source = open_source(told, tmp_path)
    np.testing.assert_array_equal(source.read(5), volume().array[1])


def test_open_source_refuses_unknown_kinds(tmp_path):
    with pytest.raises(InputError, match=r"unknown kind of slice source 'jpeg'; allowed are png16, npy, nifti"):
        open_source(record("jpeg", "series"), tmp_path)


def test_real_slices_are_ct(real_data):
    folders = sorted((real_data / "deeplesion" / "Images_png").iterdir())
    assert folders
    for folder in folders[:5]:
        source = PNGSliceSource(folder, (5, 1, 1))
        hu = source.read(int(source.indices[0]))
        assert hu.shape == source.shape_yx == (512, 512)
        assert -100 < np.median(hu[200:312, 200:312]) < 200
