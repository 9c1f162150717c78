"""Stored volumes: what is written is read, slice by slice; damaged files are refused by name."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.io.array_store import NPYSliceSource, open_array, write_array
from mmpluld.io.slice_sources import open_source
from mmpluld.structures import VolumeRecord


@pytest.fixture
def array():
    return np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 1000


def test_slices_by_number(tmp_path, array):
    write_array(tmp_path / "sub" / "a.npy", array)
    record = VolumeRecord("a", "a", "1", "1", {"kind": "npy", "path": "sub/a.npy"}, 5, 2, (3, 4), (2.0, 1.0, 0.5))
    source = open_source(record, tmp_path)
    assert isinstance(source, NPYSliceSource)
    assert source.indices.tolist() == [5, 6]
    assert (source.shape_yx, source.spacing_mm) == ((3, 4), (2.0, 1.0, 0.5))
    np.testing.assert_array_equal(source.read(6), array[1])
    source.read(6)[:] = 0  # a copy: the file stays as it is
    np.testing.assert_array_equal(source.read(6), array[1])
    for index in (4, 7):
        with pytest.raises(InputError, match=rf"a\.npy: no slice {index}; there are slices 5-6"):
            source.read(index)


@settings(max_examples=20)
@given(shape=st.tuples(*[st.integers(1, 5)] * 3), axes=st.permutations([0, 1, 2]), seed=st.integers(0, 99))
def test_any_layout_comes_back(tmp_path_factory, shape, axes, seed):
    array = np.random.default_rng(seed).integers(-(2**15), 2**15, shape, dtype=np.int16).transpose(axes)
    path = tmp_path_factory.mktemp("store") / "a.npy"
    write_array(path, array)
    np.testing.assert_array_equal(open_array(path), array)


def test_what_is_no_stored_volume(tmp_path, array):
    path = tmp_path / "a.npy"
    with pytest.raises(InputError, match=r"a\.npy: cannot be read \(no such file"):
        open_array(path)
    write_array(path, array)
    whole = path.read_bytes()
    for length in (0, 4, 60, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.npy: .*convert the dataset again"):
            open_array(path)
    for wrong in (array.astype(np.float32), array[0], array[:0]):
        np.save(path, wrong)
        with pytest.raises(InputError, match=r"needed is int16 \(z, y, x\)"):
            open_array(path)


def test_header_and_voxels_of_two_sizes(tmp_path, array):
    path = tmp_path / "a.npy"
    write_array(path, array)
    whole = path.read_bytes()
    path.write_bytes(whole + b"xx")
    with pytest.raises(InputError, match=rf"holds {array.nbytes + 2} bytes of voxels, but its header promises"):
        open_array(path)
    for old, new in ((b"'shape': (", b"'shape': ("[:-1] + b"["), (b"'descr'", b"'descr\n"), (b"'<i2'", b"'|O' ")):
        path.write_bytes(whole.replace(old, new, 1))
        with pytest.raises(InputError, match="not a whole .npy file") as caught:
            open_array(path)
        assert "\n" not in str(caught.value)
        assert "allow_pickle" not in str(caught.value)


def test_archives_and_pipes_are_no_arrays(tmp_path, array):
    np.savez(tmp_path / "a.npz", array)
    with pytest.raises(InputError, match="not a whole .npy file"):
        open_array(tmp_path / "a.npz")
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(InputError, match="is a named pipe"):
        open_array(tmp_path / "a.npy")
