"""What is in HU and what is not, told by its values."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.io.hounsfield import to_hu
from mmpluld.io.hu_check import hu_sample, mask_fault, slices_fault, volume_fault
from mmpluld.io.slice_sources import PNGSliceSource
from mmpluld.phantom import make_phantom


@pytest.fixture(scope="module")
def ct():
    """A phantom, (i, j, k) float32 HU with the noise of air that scanners cut off."""
    return make_phantom(seed=10, size=96, max_slices=16, regions=("chest",)).volume.array.transpose().astype(np.float32)


CIRCLE = np.hypot(*np.mgrid[-47.5:48, -47.5:48])[:, :, None] > 48

EDGE = np.arange(96)[:, None, None] < 4


def noise(sigma):
    return np.random.default_rng(0).normal(0, sigma, (96, 96, 1))


def flat_water(shape=(40, 40, 6)):
    """A water phantom: a disc of 0 in air of -1000, with noise."""
    disc = np.hypot(*np.mgrid[-19.5:20, -19.5:20])[:, :, None] < 12
    return np.where(disc, 0, -1000) + np.random.default_rng(1).normal(0, 8, shape)


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu,
        lambda hu: hu.astype(np.int16),
        lambda hu: np.where(CIRCLE, -2000, hu),
        lambda hu: np.where(CIRCLE, -3024, hu),
        lambda hu: np.where(CIRCLE, -1024, hu),
        lambda hu: np.where(CIRCLE, 0, hu),
        lambda hu: np.where(hu < -900, -1024, hu),  # what is around the body painted over
        lambda hu: np.clip(hu, -1000, 400),
        lambda hu: np.where(hu > np.percentile(hu, 98), 3071, hu),  # metal
        lambda hu: hu + noise(60),  # sharp kernel
        lambda hu: np.clip(hu + noise(120), -1024, 3071),  # low dose
        lambda hu: hu[:, :, 7:8],
        lambda hu: hu[:, :, 7:9],
        lambda hu: hu[32:64, 32:64],  # little air
        lambda hu: hu.transpose(2, 0, 1)[:, ::-1],
        lambda hu: hu[20:76, 20:76],
        lambda hu: np.where(EDGE, 1000, np.where(hu < -200, -100 + noise(10), hu)),  # no air, and bone cut off at 1000
        lambda hu: np.where(EDGE, 1000 + noise(200), np.where(hu < -200, -100 + noise(10), hu)),  # or not
        lambda hu: flat_water(),
        lambda hu: np.where((water := flat_water()) < -500, -1000, water),
    ],
)
def test_ct_is_taken(ct, change):
    assert volume_fault(change(ct)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hu: (hu - hu.mean()) / hu.std(), "they are normalised"),
        (lambda hu: np.clip((hu + 1000) / 1400, 0, 1), "they are normalised"),
        (lambda hu: np.clip(hu, -1000, 400) / 700 + 3 / 7, "they are normalised"),
        (lambda hu: np.where(CIRCLE, -2000, np.clip((hu + 1000) / 1400, 0, 1)), "beside -2000, lie between"),
        (lambda hu: np.clip((hu + 160) / 400, 0, 1) * 255 // 1, "no value is below 0"),
        (lambda hu: np.clip((hu + 160) / 400, 0, 1) * 255 // 1 - 128, "are -128, where the values were cut off"),
        (lambda hu: np.clip(hu, -160, 240), "are -160, where the values were cut off"),
        (lambda hu: np.clip(hu, -500, 500), "are -500, where the values were cut off"),
        (lambda hu: np.maximum(hu, 0), "no value is below 0"),
        (lambda hu: hu + 1024, "no value is below 0"),
        (lambda hu: np.where(CIRCLE, -2000, hu + 1024), "no value is below 0.*padding of -2000"),
        (lambda hu: np.where(CIRCLE, -1024, hu + 1024), "no value is below 0.*padding of -1024"),
        (lambda hu: hu + 1000 + noise(25), "is about 1000 and nothing is air"),
        (lambda hu: -hu, "is about 1000 and nothing is air: is the intercept missing, or is the sign another"),
        (
            lambda hu: -hu[20:76, 20:76],
            "15% of the voxels are about 1000 and 0.0% about -1000, where air is: is the sign ano",
        ),
        (lambda hu: hu - 1024, "are below -1080, where not even air is"),
        (lambda hu: hu * 2, "are below -1080"),
        (lambda hu: hu * 0.5, "where neither lung nor fat is: is the slope another"),
        (lambda hu: hu * 0.8, "air is at -79"),
        (lambda hu: hu + 200, "air is at -79"),
        (lambda hu: np.where(CIRCLE, 3071, hu), "2.% of the voxels are 3071, as only metal is: is it padding"),
        (lambda hu: np.where(hu < 0, hu + 65536, hu), "are 40000 or more, as only metal is.*without a sign"),
        (lambda hu: (hu + 1024) * 2 - 1024, "soft tissue"),
        (lambda hu: (hu + 1024) * 0.5 - 1024, "no soft tissue"),
        (lambda hu: np.abs(hu), "no value is below 0"),  # as magnetic resonance
        (lambda hu: (hu > 0).astype(np.uint8), "normalised"),
        (lambda hu: np.full((4, 4, 4), -1000), "all values are -1000"),
        (lambda hu: -1000 + noise(9) + 0 * hu, "no soft tissue"),
    ],
)
def test_other_values_are_told(ct, change, message):
    assert re.search(message, volume_fault(change(ct)) or "")


@pytest.mark.parametrize(("labels", "told"), [((1,), "0 to 1, 2 of"), ((1, 2, 104), "0 to 104, 4 of")])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_label_mask_is_told(ct, labels, told, dtype):
    mask = np.zeros(ct.shape, dtype)
    for k, label in enumerate(labels):
        mask[k, 3, 2] = label
        mask[20 : 30 - k, 10:20, 4:8] = label
    assert f"label mask (whole numbers from {told} them)" in (mask_fault(mask) or "")
    with pytest.raises(InputError, match=r"m\.nii: looks like a label mask .* give the scan itself") as error:
        to_hu(mask.copy(), source="m.nii")
    assert "--units" not in str(error.value)
    assert to_hu(mask.copy(), source="m.nii", units="hu").max() == max(labels)


@pytest.mark.parametrize(
    "change",
    [
        lambda hu: hu,
        lambda hu: np.clip((hu + 1000) / 1400, 0, 1),
        lambda hu: np.clip((hu + 160) / 400, 0, 1) * 255 // 1,
        lambda hu: np.where(hu > 0, 1, -1),
        lambda hu: np.where(hu > 0, 1040, 24),
        lambda hu: np.zeros_like(hu),
    ],
)
def test_no_label_mask(ct, change):
    assert mask_fault(change(ct)) is None


@pytest.mark.parametrize("padding", [None, -2000])
@pytest.mark.parametrize("offset", [1024, -1000])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_without_their_intercept_are_named(ct, padding, offset, axis):
    """Three of a series; padding stays as it is."""
    hu = ct.copy()
    place = [slice(None)] * 3
    place[axis] = slice(40, 43) if axis < 2 else slice(5, 8)
    hu[tuple(place)] += offset
    if padding is not None:
        hu = np.where(CIRCLE, padding, hu)
    fault = volume_fault(hu) or ""
    first, letter = place[axis].start, "ijk"[axis]
    steps = {(one, two): int(by) for by, one, two in re.findall(r"by ([+-]\d+) from slice (\w \d+) to (\w \d+)", fault)}
    into, out = (f"{letter} {first - 1}", f"{letter} {first}"), (f"{letter} {first + 2}", f"{letter} {first + 3}")
    assert steps and set(steps) <= {into, out}
    assert steps.get(into, offset) == pytest.approx(offset, abs=20)
    assert steps.get(out, -offset) == pytest.approx(-offset, abs=20)


def test_slices_of_another_slope_are_named(ct):
    hu = ct.copy()
    hu[:, :, 5:7] = (hu[:, :, 5:7] + 1024) * 2 - 1024
    names = [f"IM{k:02d}" for k in range(hu.shape[2])]
    assert (volume_fault(hu, names) or "").startswith("slices IM05, IM06 are far denser or lighter than tissue")


def test_some_slices_of_a_series(ct):
    slices = {100 + k: hu_sample(ct[:, :, k]) for k in range(ct.shape[2])}
    assert slices_fault(slices) is None and slices_fault({}) is None
    assert slices_fault({100: slices[100], 108: slices[108] + 1024}) is not None
    assert "from slice 102 to 103" in (slices_fault({102: slices[102], 103: slices[103] + 1024}) or "")


def test_the_sample_of_a_large_slice_is_small_and_the_outcome_the_same(ct):
    large = np.repeat(np.repeat(ct, 8, axis=0), 8, axis=1)
    assert hu_sample(large[:, :, 0]).size <= 5000
    assert volume_fault(large) is None
    # The range and peaks that follow are those of the sample.
    faults = [(volume_fault(array + 1024) or "").split("; found are ")[0] for array in (large, ct)]
    assert faults[0] == faults[1] != ""


def test_real_scans_are_hu(real_data):
    from mmpluld.io import read_volume

    for file in sorted((real_data / "volumes").glob("*_image.nii.gz")):
        assert read_volume(file).array.min() >= -1024
    for folder in sorted(Path(real_data / "deeplesion" / "Images_png").iterdir()):
        source = PNGSliceSource(folder, (5, 1, 1))
        assert slices_fault({n: source.read(n) for n in source.indices.tolist()}) is None, folder
