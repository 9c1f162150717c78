from __future__ import annotations

import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.phantom import PhantomCase, PhantomLesion, make_phantom

SMALL = {"size": 64, "max_slices": 16}


def test_same_seed_same_bytes_other_seed_others() -> None:
    first, again, other = make_phantom(1, **SMALL), make_phantom(1, **SMALL), make_phantom(2, **SMALL)
    assert first.volume.array.tobytes() == again.volume.array.tobytes()
    assert [lesion.box for lesion in first.lesions] == [lesion.box for lesion in again.lesions]
    assert first.volume.array.tobytes() != other.volume.array.tobytes()
    assert first.volume.array.tobytes() != make_phantom(1, patient=2, **SMALL).volume.array.tobytes()


def test_volume_is_int16_hu_with_the_planned_geometry() -> None:
    case = make_phantom(3, size=64, fov_mm=320.0, intervals_mm=(2.5,), max_slices=16)
    assert case.volume.array.dtype == np.int16
    assert case.volume.shape == (16, 64, 64)
    assert case.volume.spacing_mm == pytest.approx((2.5, 5.0, 5.0))
    assert case.volume.array.min() >= -1024
    assert case.volume.array.max() <= 3071


def _around(case: PhantomCase, z_share: float, x_share: float, y_share: float, half: int = 2) -> np.ndarray:
    """HU of a small block, its position as share of each axis."""
    depth, height, width = case.volume.shape
    z, y, x = round(z_share * depth), round(y_share * height), round(x_share * width)
    return case.volume.array[z : z + 2, y - half : y + half + 1, x - half : x + half + 1]


def test_tissue_values_are_those_of_a_ct(torso: PhantomCase) -> None:
    array = torso.volume.array
    assert (array[:, :3] <= -950).mean() > 0.95, "air in front of the patient"
    body = array > -300
    assert 0.2 < body.mean() < 0.7
    chest = array[int(0.2 * len(array))]
    assert ((chest > -920) & (chest < -780)).mean() > 0.12, "lungs"
    fat = ((array > -125) & (array < -80)).mean()
    muscle = ((array > 35) & (array < 75)).mean()
    assert fat > 0.05
    assert muscle > 0.05
    assert 0.005 < (array > 250).mean() < 0.12, "bone and contrast"


def test_liver_lies_on_the_image_left_spine_below_heart_on_the_image_right(torso: PhantomCase) -> None:
    array = torso.volume.array.astype(float)
    depth, height, width = array.shape
    # Level of the liver's middle: solid tissue on the patient's right is at smaller x.
    level = slice(int(0.40 * depth), int(0.44 * depth) + 1)
    middle = slice(int(0.42 * height), int(0.5 * height))
    right = array[level, middle, int(0.25 * width) : int(0.35 * width)]
    left = array[level, middle, int(0.65 * width) : int(0.75 * width)]
    assert np.mean((right > 40) & (right < 160)) > np.mean((left > 40) & (left < 160)) + 0.2
    # Bone in the midline is behind, not in front of, the centre.
    midline = array[:, :, width // 2 - 3 : width // 2 + 4] > 250
    assert midline[:, height // 2 :].sum() > 3 * midline[:, : height // 2].sum()
    heart = array[int(0.26 * depth) : int(0.3 * depth)] > 0
    front = heart[:, int(0.3 * height) : int(0.5 * height)]
    inner = slice(int(0.3 * width), int(0.7 * width))
    shares = front[:, :, inner].mean(axis=(0, 1))
    assert shares[len(shares) // 2 :].sum() > shares[: len(shares) // 2].sum()


def test_volume_is_in_lps_with_z_running_down(torso: PhantomCase) -> None:
    top, bottom = torso.volume.points_to_world_lps([[0, 0, 0], [0, 0, 1]])
    assert bottom[2] - top[2] == pytest.approx(-10.0)


def test_boxes_hold_masks_and_key_slice_is_the_largest(torso: PhantomCase) -> None:
    assert len(torso.lesions) >= 5
    for lesion in torso.lesions:
        x1, y1, z1, x2, y2, z2 = lesion.mask_box
        assert lesion.mask.shape == (z2 - z1, y2 - y1, x2 - x1)
        for axis in range(3):
            profile = lesion.mask.any(axis=tuple(a for a in range(3) if a != axis))
            assert profile[0], "the mask box is tight"
            assert profile[-1], "the mask box is tight"
        assert lesion.box[0] <= x1
        assert lesion.box[1] <= y1
        assert lesion.box[3] >= x2
        assert lesion.box[4] >= y2
        assert (lesion.box[2], lesion.box[5]) == (z1, z2)
        areas = lesion.mask.sum(axis=(1, 2))
        assert areas[lesion.key_slice - z1] == areas.max()
        for index, mark in lesion.slices.items():
            rows, columns = np.nonzero(lesion.mask[index - z1])
            # RECIST spans the mask to about half a pixel, so the padded box holds it.
            assert mark.box[0] <= x1 + columns.min()
            assert mark.box[1] <= y1 + rows.min()
            assert mark.box[2] >= x1 + columns.max() + 1
            assert mark.box[3] >= y1 + rows.max() + 1


def test_masks_do_not_overlap(torso: PhantomCase) -> None:
    count = np.zeros(torso.volume.shape, np.uint8)
    for lesion in torso.lesions:
        x1, y1, z1, x2, y2, z2 = lesion.mask_box
        count[z1:z2, y1:y2, x1:x2] += lesion.mask
    assert count.max() == 1


def _inside(case: PhantomCase, lesion: PhantomLesion) -> np.ndarray:
    x1, y1, z1, x2, y2, z2 = lesion.mask_box
    return case.volume.array[z1:z2, y1:y2, x1:x2][lesion.mask]


def test_liver_and_lung_lesions_have_the_contrast_of_their_organ() -> None:
    liver, lung = [], []
    for seed in range(6):
        case = make_phantom(
            seed, regions=("chest",), intervals_mm=(5.0,), noise_hu=(0, 0), lesions_per_series=12.0, size=96
        )
        liver += [(case, lesion) for lesion in case.lesions if lesion.type_name == "liver"]
        lung += [(case, lesion) for lesion in case.lesions if lesion.type_name == "lung"]
    assert len(liver) >= 3
    assert len(lung) >= 5
    # In one of a slice or two, partial volume leaves little.
    assert 20 < np.median([abs(lesion.contrast_hu) for _, lesion in liver]) < 70
    assert max(abs(lesion.contrast_hu) for _, lesion in liver) < 90
    for case, lesion in lung:
        assert np.median(_inside(case, lesion)) > -600
    # Those next to chest wall or diaphragm have soft tissue around them.
    assert np.median([lesion.contrast_hu for _, lesion in lung]) > 500


def test_marks_are_a_subset_chosen_with_the_given_chance() -> None:
    everything = make_phantom(4, mark_prob=1.0, noisy_prob=0.0, **SMALL)
    assert all(lesion.marked for lesion in everything.lesions)
    nothing = make_phantom(4, mark_prob=0.0, **SMALL)
    assert nothing.lesions
    assert not any(lesion.marked for lesion in nothing.lesions)
    some = make_phantom(4, mark_prob=1e-9, **SMALL)
    assert sum(lesion.marked for lesion in some.lesions) == 1


def test_no_lesions_if_none_are_wanted() -> None:
    assert make_phantom(0, lesions_per_series=0, **SMALL).lesions == ()


def test_series_share_anatomy_and_lesions_grow_between_studies() -> None:
    sizes: dict[int, dict[int, float]] = {}
    for seed in range(40):
        case = make_phantom(
            seed,
            size=64,
            regions=("abdomen",),
            intervals_mm=(5.0,),
            max_studies=3,
            lesions_per_series=8.0,
            max_slices=64,
        )
        if case.series[-1].study >= 3:
            break
    for series in case.series:
        for lesion in series.lesions:
            sizes.setdefault(lesion.number, {})[series.study] = float(lesion.mask.sum())
    changes = [per_study[3] / per_study[1] for per_study in sizes.values() if {1, 3} <= set(per_study)]
    assert changes, "some lesions are seen in both studies"
    assert max(abs(np.log(change)) for change in changes) > 0.2


def test_unknown_setting_is_named() -> None:
    with pytest.raises(InputError, match="did you mean 'max_slices'"):
        make_phantom(0, max_slice=4)


def test_between_studies_the_body_moves_and_each_series_is_read_on_its_own() -> None:
    moved, read = [], []
    for patient in range(1, 9):
        case = make_phantom(0, patient, size=64, max_slices=40, max_studies=2, max_series=2, lesions_per_series=12)
        by_study: dict[int, list[dict[int, PhantomLesion]]] = {}
        for series in case.series:
            by_study.setdefault(series.study, []).append({lesion.number: lesion for lesion in series.lesions})
        for pair in by_study.values():
            if len(pair) == 2:
                read += [(pair[0][number].marked, pair[1][number].marked) for number in pair[0].keys() & pair[1].keys()]
        if len(by_study) == 2:
            first, second = by_study[1][0], by_study[2][0]
            moved += [
                np.hypot(*np.subtract(_middle(first[number]), _middle(second[number])))
                for number in first.keys() & second
            ]
    assert len(moved) > 10
    assert np.median(moved) > 1, "pixels of about 5.6 mm"
    assert len(read) > 10
    assert any(a != b for a, b in read)


def _middle(lesion: PhantomLesion) -> np.ndarray:
    """Centre in the plane, in pixels."""
    box = np.array(lesion.mask_box, float)
    return (box[:2] + box[3:5]) / 2


def test_liver_lesions_keep_their_contrast_from_phase_to_phase() -> None:
    contrasts = []
    for patient in range(1, 15):
        case = make_phantom(
            0,
            patient,
            size=96,
            max_studies=2,
            regions=("abdomen",),
            lesion_mix={"liver": 1},
            min_long_mm=16,
            noise_hu=(0, 0),
        )
        seen = {series.study: {lesion.number: lesion for lesion in series.lesions} for series in case.series}
        if len(seen) == 2 and len({series.phase for series in case.series}) == 2:
            both = seen[1].keys() & seen[2]
            contrasts += [(seen[1][n].contrast_hu, seen[2][n].contrast_hu) for n in both]
    first, second = np.array(contrasts).T
    assert len(contrasts) >= 8
    assert np.mean(np.sign(first) == np.sign(second)) > 0.85
    assert np.median(np.abs(first - second)) < 15
