"""Whoever reads ``img_path`` as a picture gets one."""

from __future__ import annotations

from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from mmengine.fileio import get

from mmpluld.datasets.slice_pictures import picture_address, read_slice
from mmpluld.errors import InputError
from mmpluld.io.array_store import write_array


@pytest.fixture
def address(tmp_path: Path) -> str:
    """Of slice 7 of a folder of slices, in HU: -1000, -160, 40 and 240 from left to right."""
    (tmp_path / "a,b").mkdir()
    hu = np.tile(np.array([-1000, -160, 40, 240]), (3, 1))
    cv2.imwrite(str(tmp_path / "a,b/007.png"), (hu + 32768).astype(np.uint16))
    return picture_address({"kind": "png16", "path": str(tmp_path / "a,b")}, 5, 7, "study/a")


def test_address_ends_in_a_file_name(address: str) -> None:
    assert address.rpartition("/")[2] == "study_a_007.png"
    assert read_slice(address).tolist() == [[-1000, -160, 40, 240]] * 3


def test_mmcv_reads_a_grey_picture_in_the_soft_tissue_window(address: str) -> None:
    assert mmcv.imread(address).tolist() == [[[0] * 3, [0] * 3, [128] * 3, [255] * 3]] * 3


def test_window_and_zoom_come_from_the_backend_arguments(address: str) -> None:
    content = get(address, backend_args={"backend": "ct-slice", "window_hu": (-1000, 20), "zoom": 2})
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.tolist() == [[0, 0, 210, 210, 255, 255, 255, 255]] * 6


@pytest.mark.parametrize("wrong", ["picture.png", "ct-slice://png16,0,7/a_007.png", "http://png16,0,7,a/a_007.png"])
def test_other_addresses_are_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="not the address of a slice"):
        read_slice(wrong)


def test_missing_slice_is_named(address: str) -> None:
    with pytest.raises(InputError, match="no slice 8"):
        read_slice(address.replace(",7,", ",8,"))


def test_a_file_that_was_put_in_the_place_of_another_is_read(tmp_path: Path) -> None:
    address = picture_address({"kind": "npy", "path": str(tmp_path / "a.npy")}, 0, 0, "a")
    for value in (0, 7):
        write_array(tmp_path / "a.npy", np.full((1, 2, 2), value, np.int16))
        assert read_slice(address).tolist() == [[value] * 2] * 2
