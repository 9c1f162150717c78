from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmpluld.errors import InputError
from mmpluld.io.hounsfield import to_hu


def test_int16_is_returned_itself():
    raw = np.full((2, 3, 4), -1000, np.int16)
    assert to_hu(raw, source="scan") is raw


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
        (np.full((2, 3, 4), 24, np.int16), 1, "lowest value is 24; CT in Hounsfield units"),
    ],
)
def test_refuses(raw, slope, message):
    with pytest.raises(InputError, match=f"^scan: .*{message}"):
        to_hu(raw, slope, source="scan")


def test_nan_and_inf_are_counted_and_placed():
    raw = np.full((2, 3, 4), -1000.0, np.float32)
    raw[1, 2, 1] = np.nan
    raw[0, 0, 3] = np.inf
    with pytest.raises(InputError, match=r"2 of 24 voxels are NaN or inf, the first at index \(1, 2, 1\)"):
        to_hu(raw, source="scan")
