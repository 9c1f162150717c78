"""LoadSliceStack: what it reads, how often, and what it leaves behind."""

from __future__ import annotations

import math
import pickle
import random
import threading

import numpy as np
import pytest
from torch.utils.data import DataLoader

from mmpluld.datasets.transforms import LoadSliceStack, RepeatKeySlice
from mmpluld.errors import InputError


class CountingSource:
    """Slices 0 to 19, slice i holds i HU; notes what is read."""

    spacing_mm = (5.0, 0.8, 0.7)
    shape_yx = (4, 6)
    indices = np.arange(20)

    def __init__(self) -> None:
        self.read_indices: list[int] = []

    def read(self, index: int) -> np.ndarray:
        self.read_indices.append(index)
        return np.full(self.shape_yx, index, np.int16)


class PaddedSource(CountingSource):
    """Odd slices are padding of -3024, even ones 0 HU."""

    def read(self, index):
        return np.full(self.shape_yx, -3024 * (index % 2), np.int16)


def test_padding_is_air_before_slices_are_blended():
    stack = LoadSliceStack(5)({"slice_source": PaddedSource(), "key_slice": 10})["img"]
    # 2 mm of 5 away from the key slice: 0.6 of 0 and 0.4 of -1024.
    np.testing.assert_allclose(stack[0, 0, 1:4], [-0.4 * 1024, 0, -0.4 * 1024], rtol=1e-6)


def sample(folder, key, spacing=(1.0, 0.8, 0.8)):
    return {"source": {"kind": "png16", "path": str(folder)}, "spacing_mm": spacing, "key_slice": key}


def test_stack_from_pngs(tmp_path, write_slices):
    write_slices(tmp_path, range(30, 41))
    results = LoadSliceStack(5)(sample(tmp_path, 35))
    image = results["img"]
    assert (image.shape, image.dtype, image.flags.c_contiguous) == ((32, 32, 5), np.float32, True)
    np.testing.assert_array_equal(image[1, 1], [31, 33, 35, 37, 39])
    np.testing.assert_array_equal(image[0, 0], [131, 133, 135, 137, 139])
    assert results["img_shape"] == results["ori_shape"] == (32, 32)
    assert (results["height"], results["width"]) == (32, 32)
    assert results["spacing_mm"] == (1.0, 0.8, 0.8)
    assert results["slice_interval_mm"] == 1.0


@pytest.mark.parametrize(("interp", "expected"), [("exact", 9.2), ("peer", 9.4), ("native", 11.0)])
def test_interpolation_of_thick_slices(interp, expected):
    results = LoadSliceStack(7, interp=interp)({"slice_source": CountingSource(), "key_slice": 8})
    assert results["img"][0, 0, 6] == pytest.approx(expected)
    assert results["spacing_mm"] == (5.0, 0.8, 0.7)


@pytest.mark.parametrize("num_threads", [0, 1, 4])
def test_each_slice_is_read_once(num_threads):
    source = CountingSource()
    LoadSliceStack(9, num_threads=num_threads)({"slice_source": source, "key_slice": 8})
    assert sorted(source.read_indices) == [6, 7, 8, 9, 10]


@pytest.mark.parametrize(("size", "threaded"), [(255, False), (256, True)])
def test_small_slices_are_decoded_in_the_calling_thread(size, threaded):
    class Source(CountingSource):
        def read(self, index):
            self.read_indices.append(threading.current_thread() is not threading.main_thread())
            return np.zeros((size, size), np.int16)

    first, second, load = Source(), Source(), LoadSliceStack(3, num_threads=2)
    for source in (first, second):
        load({"slice_source": source, "key_slice": 8})
    assert all(first.read_indices)  # of the first stack the size is not known
    assert set(second.read_indices) == {threaded}


def test_neighbouring_stacks_share_what_was_read():
    source, load = CountingSource(), LoadSliceStack(3, num_threads=0)
    first = load({"slice_source": source, "key_slice": 8})["img"].copy()
    again = load({"slice_source": source, "key_slice": 9})["img"]
    assert sorted(source.read_indices) == [7, 8, 9, 10]
    fresh = LoadSliceStack(3)({"slice_source": source, "key_slice": 9})["img"]
    np.testing.assert_array_equal(again, fresh)
    np.testing.assert_array_equal(load({"slice_source": source, "key_slice": 8})["img"], first)


def test_another_series_is_not_mixed_up(tmp_path, write_slices):
    write_slices(tmp_path / "a", [1, 2, 3])
    write_slices(tmp_path / "b", [2, 7])
    load = LoadSliceStack(3, slice_gap_mm=1)
    assert load(sample(tmp_path / "a", 2))["img"][1, 1].tolist() == [1, 2, 3]
    assert load(sample(tmp_path / "b", 2))["img"][1, 1].tolist() == [2, 2, 2]
    assert load(sample(tmp_path / "a", 2, (5.0, 1, 1)))["slice_interval_mm"] == 5.0


def test_unknown_interval_repeats_the_key_slice(tmp_path, write_slices):
    write_slices(tmp_path, [1, 2, 3])
    results = LoadSliceStack(3)(sample(tmp_path, 2, (math.nan, 0.8, 0.8)))
    assert results["img"][1, 1].tolist() == [2, 2, 2]
    assert math.isnan(results["slice_interval_mm"])


def test_interval_that_the_sample_states_is_kept():
    results = LoadSliceStack(3)({"slice_source": CountingSource(), "key_slice": 8, "slice_interval_mm": 1.25})
    assert results["slice_interval_mm"] == 1.25


def test_gap_of_the_stack():
    assert [LoadSliceStack(3, interp=interp).gap_mm(5.0) for interp in ("exact", "native")] == [2.0, 5.0]


def test_pickling_keeps_the_settings_and_drops_the_slices(tmp_path, write_slices):
    write_slices(tmp_path, range(9))
    load = LoadSliceStack(3, interp="peer", num_threads=2)
    size = len(pickle.dumps(load))
    first = load(sample(tmp_path, 4))["img"]
    copied = pickle.loads(pickle.dumps(load))
    assert repr(copied) == repr(load)
    assert len(pickle.dumps(load)) == size
    np.testing.assert_array_equal(copied(sample(tmp_path, 4))["img"], first)


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_read_after_the_parent_did(tmp_path, write_slices, context):
    write_slices(tmp_path, range(9))
    load = LoadSliceStack(3, num_threads=2)
    expected = load(sample(tmp_path, 4))["img"]
    samples = [sample(tmp_path, key) for key in (4, 5)]
    loader = DataLoader(
        samples, batch_size=None, num_workers=1, collate_fn=load, multiprocessing_context=context, timeout=60
    )
    images = [item["img"] for item in loader]
    np.testing.assert_array_equal(images[0], expected)
    assert images[1][1, 1].tolist() == [3, 5, 7]


def test_missing_key_slice(tmp_path, write_slices):
    write_slices(tmp_path, [1, 2, 3])
    with pytest.raises(InputError, match=r"key slice 9 does not exist in its series"):
        LoadSliceStack(3)(sample(tmp_path, 9))


def test_slice_of_another_size_is_refused(tmp_path, write_slices):
    write_slices(tmp_path, [1, 2])
    write_slices(tmp_path, [3], shape=(16, 16))
    with pytest.raises(InputError, match=r"slices \[1, 2, 3\] of one series differ in size"):
        LoadSliceStack(3, slice_gap_mm=1)(sample(tmp_path, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_slices": 4}, r"num_slices is 4; allowed are odd"),
        ({"num_slices": 3, "interp": "linear"}, r"interp is 'linear'; allowed are exact, peer, native, native-peer"),
        ({"num_slices": 3, "num_threads": -1}, r"num_threads is -1; allowed is 0 or more"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        LoadSliceStack(**settings)


def centres(recist_mm, z_jitter=0.5, key=8, count=400):
    """Which slices stand at the centre of stacks of the key slice; slices are 5 mm apart."""
    load = LoadSliceStack(1, num_threads=0, z_jitter=z_jitter)
    results = (load({"slice_source": CountingSource(), "key_slice": key, "recist_mm": recist_mm}) for _ in range(count))
    numbers = [int(item["img"][0, 0, 0]) for item in results]
    return {number: numbers.count(number) for number in sorted(set(numbers))}


def test_jitter_reaches_a_quarter_of_the_smallest_diameter():
    # 60 / 2 / 5 * 0.5 = 3: 0, 1 and 2 slices away with weights 3, 2, 1.
    found = centres([(90.0, 60.0), (math.nan, math.nan), (200.0, 70.0)], count=1200)
    assert list(found) == [6, 7, 8, 9, 10]
    assert found[8] == pytest.approx(600, abs=80)
    assert found[7] + found[9] == pytest.approx(400, abs=80)
    assert found[6] + found[10] == pytest.approx(200, abs=80)


def test_no_jitter_without_reach_or_marks():
    assert list(centres([(30.0, 19.0)])) == [8]
    assert list(centres([(math.nan, math.nan)])) == [8]
    assert list(centres([])) == [8]
    assert list(centres([(90.0, 60.0)], z_jitter=0.0)) == [8]


def test_jitter_stays_on_existing_slices():
    assert list(centres([(90.0, 60.0)], key=19)) == [17, 18, 19]


def test_jitter_out_of_range():
    with pytest.raises(InputError, match="z_jitter is 1.5"):
        LoadSliceStack(9, z_jitter=1.5)


def test_the_key_slice_stands_for_its_neighbours_now_and_then():
    image = np.arange(4 * 5 * 7, dtype=np.float32).reshape(4, 5, 7)
    assert RepeatKeySlice(0)({"img": image})["img"].tolist() == image.tolist()
    repeated = RepeatKeySlice(1)({"img": image})["img"]
    assert repeated.shape == image.shape
    for channel in range(7):
        assert (repeated[:, :, channel] == image[:, :, 3]).all()
    random.seed(0)
    transform = RepeatKeySlice(0.25)
    changed = sum(transform({"img": image})["img"][0, 0, 0] != 0 for _ in range(400))
    assert 70 <= changed <= 130
    with pytest.raises(InputError, match="RepeatKeySlice: prob is 1.5"):
        RepeatKeySlice(1.5)
