"""Patches of a series, by hand."""

import numpy as np
import pytest

from mmpluld.io.patches import read_patch, run_around
from mmpluld.io.slice_sources import VolumeSliceSource
from mmpluld.structures import CTVolume


def ramp(spacing_mm=(2.0, 1.0, 1.0), first_slice=5, shape=(8, 12, 12)):
    """A series whose value is 100 z + 10 y + x, numbered from ``first_slice``."""
    z, y, x = np.meshgrid(*map(np.arange, shape), indexing="ij")
    affine = np.diag([*spacing_mm[::-1], 1.0])
    return VolumeSliceSource(
        CTVolume((100 * z + 10 * y + x).astype(np.int16), affine, shape[::-1], (1, 2, 3)), first_slice
    )


SLICES = np.arange(5, 13)


def test_patch_on_the_series_own_voxels():
    patch, box = read_patch(ramp(), SLICES, (4, 4, 7, 8, 6, 9), (2, 4, 6), (2, 1, 1))
    # Centre: edge 6 in x, 5 in y, 8 in z, which is edge 3 of the volume: slices 2 and 3, rows 3 to 6, columns 3 to 8.
    z, y, x = np.meshgrid([2, 3], [3, 4, 5, 6], range(3, 9), indexing="ij")
    np.testing.assert_array_equal(patch, 100 * z + 10 * y + x)
    assert patch.dtype == np.float32
    assert box.tolist() == [1, 1, 0, 5, 3, 2]


def test_patch_is_resampled_in_millimetres():
    patch, box = read_patch(ramp((4.0, 2.0, 1.0)), SLICES, (4, 4, 7, 8, 6, 9), (4, 4, 4), (2, 1, 1))
    # Two voxels of the patch to each along z and y: their centres are at 1/4 and 3/4 of it.
    z, y, x = np.meshgrid([1.75, 2.25, 2.75, 3.25], [3.75, 4.25, 4.75, 5.25], [4, 5, 6, 7], indexing="ij")
    np.testing.assert_allclose(patch, 100 * z + 10 * y + x, rtol=1e-6)
    assert box.tolist() == [0, 0, 0, 4, 4, 4]


@pytest.mark.parametrize(("beyond", "first"), [("edge", 0), ("air", -1024)])
def test_beyond_the_scan(beyond, first):
    patch, _ = read_patch(ramp(), SLICES, (0, 0, 5, 2, 2, 7), (4, 4, 4), (2, 1, 1), beyond)
    # The centre is at edge 1 of every axis: one voxel lies outside on each.
    assert patch[0].tolist() == [[first] * 4] * 4 if beyond == "air" else patch[0].tolist() == patch[1].tolist()
    assert patch[1, 1].tolist() == [first, 0, 1, 2]
    assert patch[1, 0].tolist() == ([-1024] * 4 if beyond == "air" else [0, 0, 1, 2])


def test_only_the_given_slices_are_looked_at():
    patch, _ = read_patch(ramp(), np.arange(7, 9), (4, 4, 7, 8, 6, 9), (6, 2, 2), (2, 1, 1))
    assert patch[:, 0, 0].tolist() == [245, 245, 245, 345, 345, 345]


def test_what_is_below_air_is_air():
    source = ramp()
    source.volume.array[...] = -2000
    patch, _ = read_patch(source, SLICES, (4, 4, 7, 8, 6, 9), (2, 2, 2), (2, 1, 1))
    assert (patch == -1024).all()


def test_run_around_a_position():
    indices = np.array([3, 4, 5, 9, 10, 11, 12])
    assert run_around(indices, 4.5, 0, 99).tolist() == [3, 4, 5]
    assert run_around(indices, 10.0, 0, 99).tolist() == [9, 10, 11, 12]
    assert run_around(indices, 10.0, 4, 7).tolist() == [9, 10]
    assert run_around(indices, 6.5, 0, 99).tolist() == [3, 4, 5]  # in the gap; its end is at 6
    assert run_around(indices, 4.0, 20, 5).tolist() == []
