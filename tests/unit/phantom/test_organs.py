"""The map of organs: what it says, that the picture does not depend on it, and how it is stored."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.io.array_store import open_array
from mmpluld.phantom import Organ, PhantomSpec, write_organs_layout
from mmpluld.phantom.case import make_case
from mmpluld.structures import AnnotationSet

SPEC = PhantomSpec(regions=("torso",), intervals_mm=(10.0,), noise_hu=(0.0, 0.0), lesions_per_series=20.0)


@pytest.fixture(scope="module")
def case():
    return make_case(5, "scan", 1, SPEC, organs=True)


def test_the_picture_is_the_same_without_the_map(case, torso):
    assert torso.series[0].organs is None
    np.testing.assert_array_equal(case.volume.array, torso.volume.array)
    assert [lesion.box for lesion in case.lesions] == [lesion.box for lesion in torso.lesions]


def test_all_organs_occur_and_have_their_hu(case):
    organs, hu = case.series[0].organs, case.volume.array
    assert organs.shape == hu.shape
    assert set(np.unique(organs)) == set(map(int, Organ))
    median = {organ: float(np.median(hu[organs == organ])) for organ in Organ}
    assert median[Organ.OUTSIDE] == -1000
    assert -900 < median[Organ.LUNG] < -750
    assert -120 < median[Organ.FAT] < -80
    assert 40 < median[Organ.MUSCLE] < 70
    assert median[Organ.BONE] > 150
    assert median[Organ.LIVER] > 40


def test_organs_lie_where_they_do_in_people(case):
    z, _, x = (
        {organ: float(np.nonzero(case.series[0].organs == organ)[axis].mean()) for organ in Organ} for axis in range(3)
    )
    order = [Organ.LUNG, Organ.HEART, Organ.LIVER, Organ.BLADDER]
    assert [z[organ] for organ in order] == sorted(z[organ] for organ in order)
    assert x[Organ.LIVER] < x[Organ.SPINAL_CANAL] < x[Organ.SPLEEN]  # x runs to the patient's left


def test_lesions_belong_to_what_they_lie_in():
    case = make_case(0, "scan", 1, replace(SPEC, lesion_mix={"liver": 1.0, "lung": 1.0}), organs=True)
    organs = case.series[0].organs
    shares = {}
    for lesion in case.lesions:
        x1, y1, z1, x2, y2, z2 = lesion.mask_box
        inside = organs[z1:z2, y1:y2, x1:x2][lesion.mask]
        shares.setdefault(lesion.type_name, []).append(np.bincount(inside, minlength=len(Organ)) / len(inside))
    assert max(share[Organ.LIVER] for share in shares["liver"]) > 0.9
    assert max(share[Organ.LUNG] for share in shares["lung"]) > 0.9


def test_layout(tmp_path):
    settings = {"size": 64, "max_slices": 6}
    one, two = (write_organs_layout(tmp_path / name, (2, 1), seed=3, **settings) for name in ("one", "two"))
    for split, count in (("train", 2), ("val", 1)):
        annotations = AnnotationSet.load(one / "annotations" / f"{split}.json")
        assert len(annotations.volumes) == count
        assert annotations.lesions == []
        for volume in annotations.volumes:
            for folder in ("volumes", "organs"):
                array = open_array(one / folder / f"{volume.id}.npy")
                assert array.shape == (volume.num_slices, *volume.shape_yx)
                np.testing.assert_array_equal(array, open_array(two / folder / f"{volume.id}.npy"))
            assert 0 <= array.min() < array.max() < len(Organ)
    record = json.loads((one / "phantom.json").read_text())
    assert record["layout"] == "organs"
    assert record["organs"][9] == "liver"
    assert record["lesions_per_series"] == 0


@pytest.mark.parametrize(("patients", "seed"), [((2,), 0), ((2, 0), 0), ((2, 1), -1)])
def test_layout_refuses(tmp_path, patients, seed):
    with pytest.raises(InputError, match="must be"):
        write_organs_layout(tmp_path / "x", patients, seed)
    assert not (tmp_path / "x").exists()
