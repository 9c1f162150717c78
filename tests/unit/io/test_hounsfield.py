from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmpluld.errors import InputError
from mmpluld.io.hounsfield import to_hu


def test_int16_is_returned_itself():
    raw = np.resize(np.int16([-1000, -90, 40]), (2, 3, 4))
    assert to_hu(raw, source="scan") is raw


@pytest.mark.parametrize(("padding", "dtype"), [(-3024, np.int16), (-3024.5, np.float32)])
def test_what_lies_below_air_becomes_minus_1024_and_is_noted(padding, dtype):
    raw = np.resize(np.array([padding, -1000, -90, 40], dtype), (4, 5, 8))
    notes = []
    hu = to_hu(raw, source="scan", notes=notes)
    assert hu.dtype == dtype
    assert sorted(set(hu.ravel().tolist())) == [-1024, -1000, -90, 40]
    assert notes == [f"25.0% of the voxels, down to {padding} HU (padding or noise of air), set to -1024"]
    raw = np.resize(np.array([padding, -1000, -90, 40], dtype), (4, 5, 8))
    raw.flags.writeable = False
    np.testing.assert_array_equal(to_hu(raw, source="scan"), hu)
    mask = np.full((2, 3, 4), -2000, np.int16)
    assert to_hu(mask, source="mask", labels=True)[0, 0, 0] == -2000


def test_values_that_are_not_hu_are_taken_for_it_when_told_so():
    raw, notes = np.resize(np.int16([0, 100, 600]), (2, 3, 4)), []
    with pytest.raises(InputError, match=r"^scan: values are not HU: .*--units hu"):
        to_hu(raw, source="scan")
    assert to_hu(raw, source="scan", units="hu", notes=notes) is raw
    assert len(notes) == 1 and notes[0].startswith("assumed to be in HU as told, though no value is below 0")
    with pytest.raises(InputError, match="units 'mm'; allowed is hu"):
        to_hu(raw, source="scan", units="mm")


@given(
    arrays(np.uint16, (2, 3, 4)),
    st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0]), min_size=4, max_size=4),
    st.lists(st.integers(-5000, 5000), min_size=4, max_size=4),
)
def test_equals_plain_arithmetic(raw, slopes, intercepts):
    expected = raw.astype(np.float64) * slopes + intercepts
    hu = to_hu(raw, slopes, intercepts, source="scan", labels=True)
    np.testing.assert_array_equal(hu, expected)
    fits = (expected == np.rint(expected)).all() and expected.min() >= -32768 and expected.max() <= 32767
    assert hu.dtype == (np.int16 if fits else np.float32)


@pytest.mark.parametrize(
    ("raw", "slope", "message"),
    [
        (np.zeros((2, 3), np.int16), 1, "image size is 2 x 3; needed is one 3D volume"),
        (np.zeros((2, 0, 4), np.int16), 1, "image size is 2 x 0 x 4"),
        (np.zeros((2, 3, 4), np.complex64), 1, "type complex64"),
        (np.full((2, 3, 4), 1e300), 1, "values reach 1e"),
        (np.zeros((2, 3, 4), np.int16), 0, "slope or intercept is 0, NaN or inf"),
        (np.zeros((2, 3, 4), np.int16), np.nan, "slope or intercept is 0, NaN or inf"),
        (np.resize(np.int8([-125, -12, 6, 20, 124]), (6, 7, 5)), 1, "voxels of 8 bits in steps of 1 hold no range"),
        (np.full((2, 3, 4), 24, np.int16), 1, "values are not HU: all values are 24;"),
        (
            np.zeros((2, 3, 4), np.int16),
            1e30,
            r"rescale slope is 1e\+30, intercept up to 0; allowed are slopes",
        ),
        (np.zeros((2, 3, 4), np.int16), [1, 1, 5e-324, 1], "rescale slope is 4.94066e-324"),
    ],
)
def test_refuses(raw, slope, message):
    with pytest.raises(InputError, match=f"^scan: .*{message}"):
        to_hu(raw, slope, source="scan")


@pytest.mark.parametrize("labels", [False, True])
def test_extreme_intercepts_are_refused_for_masks_too(labels):
    raw = np.resize(np.int16([-1000, -90, 40]), (2, 3, 4))
    with pytest.raises(InputError, match=r"^scan: rescale slope is 1, intercept up to 1e\+30"):
        to_hu(raw, 1.0, [0, 0, 0, -1e30], source="scan", labels=labels)


def test_nan_and_inf_are_counted_and_placed():
    raw = np.full((2, 3, 4), -1000.0, np.float32)
    raw[1, 2, 1] = np.nan
    raw[0, 0, 3] = np.inf
    with pytest.raises(InputError, match=r"2 of 24 voxels are NaN or inf, the first at index \(1, 2, 1\)"):
        to_hu(raw, source="scan")
    with pytest.raises(InputError, match="allowed are whole numbers, write the mask again"):
        to_hu(raw, source="mask", labels=True)
