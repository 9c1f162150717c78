from __future__ import annotations

import numpy as np
import pytest

from mmpluld.inference.grid_source import GridSliceSource
from mmpluld.io.slice_sources import VolumeSliceSource
from mmpluld.structures import CTVolume


def make_volume(interval, depth=6, dtype=np.int16):
    ramp = np.arange(depth)[:, None, None] * 100 + np.arange(12).reshape(3, 4)
    return CTVolume.from_canonical(ramp.astype(dtype), (interval, 0.8, 0.7))


def test_slices_of_the_scan_are_handed_out_as_they_are():
    volume = make_volume(2.0)
    source = GridSliceSource(VolumeSliceSource(volume), 2.0)
    assert source.indices.tolist() == list(range(6))
    assert source.spacing_mm == (2.0, 0.8, 0.7)
    assert source.shape_yx == (3, 4)
    for index in range(6):
        assert np.shares_memory(source.read(index), volume.array)
        np.testing.assert_array_equal(source.read(index), volume.array[index])


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_slices_in_between_are_interpolated(dtype):
    source = GridSliceSource(VolumeSliceSource(make_volume(5.0, dtype=dtype)), 2.0)
    assert source.indices.tolist() == list(range(13))  # 0 to 24 mm; the last slice lies at 25
    third = source.read(3)  # 6 mm: slice 1 and a fifth of the way to slice 2
    assert third.dtype == np.float32
    np.testing.assert_allclose(third, 120 + np.arange(12).reshape(3, 4), rtol=1e-6)
    np.testing.assert_array_equal(source.read(5), source.source.volume.array[2])


def test_extremes_of_int16_do_not_overflow():
    array = np.array([-1024, 32767], dtype=np.int16).reshape(2, 1, 1)
    source = GridSliceSource(VolumeSliceSource(CTVolume.from_canonical(array, (4.0, 1, 1))), 2.0)
    assert source.read(1)[0, 0] == pytest.approx(15871.5)


def test_padding_is_air_before_it_is_interpolated():
    array = np.array([-3024, 100], dtype=np.int16).reshape(2, 1, 1)
    volume = CTVolume.from_canonical(array, (4.0, 1, 1))
    source = GridSliceSource(VolumeSliceSource(volume), 2.0)
    assert [source.read(n)[0, 0] for n in range(3)] == [-1024, -462, 100]
    assert volume.array[0, 0, 0] == -3024  # what was given stays


def test_unknown_slice():
    with pytest.raises(IndexError, match="grid slice 6 is outside 0 to 5"):
        GridSliceSource(VolumeSliceSource(make_volume(2.0)), 2.0).read(6)


def test_part_of_a_series_reads_each_slice_once():
    read = []

    class Counting(VolumeSliceSource):
        def read(self, index):
            read.append(index)
            return super().read(index)

    source = GridSliceSource(Counting(make_volume(5.0), first_slice=40), 2.0, np.arange(41, 44))
    assert source.indices.tolist() == [0, 1, 2, 3, 4, 5]  # 0 to 10 mm
    slices = [source.read(index) for index in range(6)]
    assert read == [41, 42, 43]
    np.testing.assert_allclose([part[0, 0] for part in slices], [100, 140, 180, 220, 260, 300], rtol=1e-6)
