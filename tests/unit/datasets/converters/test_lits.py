"""LiTS to annotation files: components, mixed orientations, doubtful headers, masks that do not fit."""

from __future__ import annotations

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from mmpluld.datasets.check import check_dataset
from mmpluld.datasets.converters import lits
from mmpluld.datasets.converters.lits import convert_lits
from mmpluld.errors import InputError
from mmpluld.structures import AnnotationSet


@pytest.fixture
def pair(tmp_path):
    """``pair(labels, number, ...)`` writes an image and its mask, (z, y, x) canonical; ``load`` reads the result."""

    def write(labels, number=0, spacing=(2.0, 1.0, 0.5), mask_affine=None, mask_shape=None, hu=None):
        affine = np.diag([-spacing[2], -spacing[1], -spacing[0], 1.0])
        image = np.resize(np.int16([-900, -90, 40, 300]), labels.shape) if hu is None else hu
        volume = nib.Nifti1Image(image.transpose(), affine)
        volume.header.set_xyzt_units("mm")
        nib.save(volume, tmp_path / f"volume-{number}.nii")
        stored = labels if mask_shape is None else np.zeros(mask_shape, np.uint8)
        mask = nib.Nifti1Image(stored.transpose(), affine if mask_affine is None else mask_affine)
        nib.save(mask, tmp_path / f"segmentation-{number}.nii")
        return tmp_path

    return write


def labels_with(*blocks, shape=(8, 24, 32)):
    """Liver everywhere but in the corner, and blocks (z, y, x slices) of tumour."""
    labels = np.ones(shape, np.uint8)
    labels[0, 0, 0] = 0
    for block in blocks:
        labels[block] = 2
    return labels


def train(root, **options):
    report = convert_lits(root, **({"fractions": (1, 0, 0)} | options))
    return AnnotationSet.load(report.files["train"]), report


def test_one_component_by_hand(pair, decode_mask):
    block = np.s_[2:5, 6:9, 10:14]
    labels = labels_with(block)
    labels[3, 9, 14] = 2  # touches by a corner: one component, and the largest slice
    found, report = train(pair(labels, number=7))
    (volume,), (lesion,) = found.volumes, found.lesions
    assert found.dataset == {"name": "lits", "label_scope": "liver-lesions"}
    assert (volume.id, volume.patient, volume.shape_yx, volume.spacing_mm) == (
        "volume-7",
        "7",
        (24, 32),
        (2.0, 1.0, 0.5),
    )
    assert lesion.box == (10.0, 6.0, 2.0, 15.0, 10.0, 5.0)
    assert (lesion.key_slice, lesion.type, lesion.ignore) == (3, "liver", False)
    assert lesion.attributes == {
        "voxels": 37,
        "slice_boxes": [[2, 10.0, 6.0, 14.0, 9.0], [3, 10.0, 6.0, 15.0, 10.0], [4, 10.0, 6.0, 14.0, 9.0]],
    }
    np.testing.assert_array_equal(decode_mask(lesion.mask), labels[3] == 2)
    assert report.remarks == {}


def test_small_components_are_ignored_and_named(pair):
    root = pair(labels_with(np.s_[2, 3, 4:7], np.s_[5:7, 10:13, 10:13]))
    found, report = train(root)
    assert [lesion.ignore for lesion in found.lesions] == [True, False]
    (item,) = report.remarks["tumour component under 5 voxels, ignored"]
    assert item == f"{root / 'segmentation-0.nii'} at x 4, y 3, z 2"
    assert not any(lesion.ignore for lesion in train(root, min_voxels=3, overwrite=True)[0].lesions)


def test_no_tumour_gives_a_volume_without_lesions(pair):
    found, _ = train(pair(labels_with()))
    assert (len(found.volumes), found.lesions) == (1, [])


def test_a_doubtful_header_is_named(pair):
    root = pair(labels_with(np.s_[2:5, 6:9, 10:14]), spacing=(1.0, 1.0, 1.0))
    found, report = train(root)
    assert found.lesions[0].box == (10.0, 6.0, 2.0, 14.0, 9.0, 5.0)
    assert report.remarks == {
        "header says 1 x 1 x 1 mm, which is doubtful in this dataset": [str(root / "volume-0.nii")]
    }


def test_floats_near_a_label_are_that_label(pair):
    labels = labels_with(np.s_[2:5, 6:9, 10:14])
    want, _ = train(pair(labels))
    stored = (labels * np.float32(0.9999999)).astype(np.float32)
    assert set(np.unique(stored).tolist()) & {1.0, 2.0} == set()
    found, report = train(pair(stored), overwrite=True)
    assert found == want and report.remarks == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (4, r"holds 4 in 3 voxels; labels are 0 \(background\), 1 \(liver\) and 2 \(tumour\)"),
        (-1, r"holds -1 in 3 voxels; .*signed type"),
        (255, r"holds 255 in 3 voxels; .*scaled to be looked at"),
        (1.5, r"holds 1\.5 in 3 voxels; .*resampled by interpolation"),
    ],
)
def test_what_is_no_label_refuses_the_volume(pair, value, message):
    labels = labels_with(np.s_[2:5, 6:9, 10:14]).astype(np.float32)
    labels[7, 23, :3] = value
    with pytest.raises(InputError, match=rf"segmentation-0\.nii: {message}"):
        train(pair(labels))
    pair(labels_with(), number=1)
    found, report = train(pair(labels), overwrite=True)
    assert [volume.id for volume in found.volumes] == ["volume-1"]
    assert "segmentation-0.nii: holds" in report.remarks["volume left out"][0]


def test_a_mask_lies_where_its_header_says(pair):
    labels = labels_with(np.s_[2:5, 6:9, 10:14])
    want, _ = train(pair(labels))
    root = pair(
        labels[:, :, ::-1], mask_affine=np.array([[0.5, 0, 0, -15.5], [0, -1, 0, 0], [0, 0, -2, 0], [0, 0, 0, 1]])
    )
    found, report = train(root, overwrite=True)
    assert found == want and report.remarks == {}


def test_a_mask_that_lies_elsewhere_is_refused_and_can_be_taken_by_voxels(pair):
    labels = labels_with(np.s_[2:5, 6:9, 10:14])
    want, _ = train(pair(labels))
    for affine, message in (
        (np.diag([0.5, -1.0, -2.0, 1.0]), "voxels up to 31 voxels away from its scan's"),
        (np.diag([-0.5, -1.0, -3.0, 1.0]), "voxels of 0.5x1x3 mm, but its scan 0.5x1x2"),
    ):
        root = pair(labels, mask_affine=affine)
        with pytest.raises(InputError, match=rf"segmentation-0\.nii: its header gives {message}; .*match = voxels"):
            train(root, overwrite=True)
        (root / "fix.csv").write_text("volume,match\nvolume-0,voxels\n")
        found, report = train(root, overwrite=True, overrides=root / "fix.csv")
        assert found == want
        assert list(report.remarks) == ["mask matched voxel for voxel, whatever its header says"]


def test_a_mask_with_a_header_of_nothing_is_taken_by_voxels(pair):
    labels = labels_with(np.s_[2:5, 6:9, 10:14])
    want, _ = train(pair(labels))
    found, report = train(pair(labels, mask_affine=np.eye(4)), overwrite=True)
    assert found == want
    assert list(report.remarks) == ["mask's header is the identity and tells nothing, taken voxel for voxel"]


@pytest.fixture
def phantom_mask(lits, tmp_path):
    """``phantom_mask(edit)``: the volume with most liver, and what ``edit(array, affine)`` makes of its mask."""
    source = max(lits.glob("segmentation-*.nii"), key=lambda path: int((nib.load(path).get_fdata() == 1).sum()))
    root = tmp_path / "one"
    root.mkdir()

    def finer(path):  # so that there is liver enough
        image = nib.load(path)
        return np.repeat(np.asarray(image.dataobj), 2, axis=1), image.affine @ np.diag([1, 0.5, 1, 1])

    def write(edit):
        images = {"volume": finer(str(source).replace("segmentation", "volume")), "segmentation": edit(*finer(source))}
        for name, (array, affine) in images.items():
            nib.save(nib.Nifti1Image(np.ascontiguousarray(array), affine), root / f"{name}-0.nii")
        return root

    return write


def test_a_mask_that_both_headers_place_wrongly_is_refused(phantom_mask):
    """Mirrored voxels under a header like the scan's, and right voxels under a header that mirrors them."""
    want, report = train(phantom_mask(lambda array, affine: (array, affine)))
    assert len(want.lesions) > 0 and not any("liver" in what for what in report.remarks)

    def header_mirrored(array, affine):
        turned = affine @ np.diag([-1, 1, 1, 1.0])
        turned[:3, 3] = (affine @ [array.shape[0] - 1, 0, 0, 1])[:3]
        return array, turned

    for edit, advice, override in (
        (lambda array, affine: (array[::-1], affine), "flip_mask = x, which mirrors it", {"flip_mask": "x"}),
        (header_mirrored, "match = voxels, which takes it voxel for voxel", {"match": "voxels"}),
    ):
        root = phantom_mask(edit)
        message = rf"-0\.nii: \d\d% of its voxels of liver have -100 to 300 HU in the scan, (98|99|100)% with {advice};"
        with pytest.raises(InputError, match=message):
            train(root, overwrite=True)
        (root / "fix.json").write_text(json.dumps({"volume-0": override}))
        assert train(root, overwrite=True, overrides=root / "fix.json")[0] == want


def test_a_liver_of_another_density_is_refused_unless_a_table_places_it(pair):
    hu = np.resize(np.int16([-900, -110, 40, 400]), (8, 24, 32))
    root = pair(labels_with(np.s_[2:5, 6:9, 10:14]), hu=hu)
    with pytest.raises(
        InputError, match=r"25% of its voxels of liver have -100 to 300 HU in the scan; at least 70% do"
    ):
        train(root)
    (root / "fix.csv").write_text("volume,match\nvolume-0,voxels\n")
    found, report = train(root, overrides=root / "fix.csv")
    assert len(found.lesions) == 1
    assert any(what.endswith("taken as the table of corrections says") for what in report.remarks)
    small = np.zeros((8, 24, 32), np.uint8)
    small[2:4, 3:20, 1:30] = 1  # 986 voxels: too few to tell
    assert len(train(pair(small, hu=hu), overwrite=True)[0].volumes) == 1


def test_an_empty_mask_is_noted(pair):
    found, report = train(pair(np.zeros((8, 24, 32), np.uint8)))
    assert found.lesions == [] and list(report.remarks) == ["mask is empty", "split without a lesion that counts"]


@pytest.mark.parametrize("mask_mm", [1.0, 2.5], ids=["wrong as its scan's", "right"])
def test_a_corrected_spacing_keeps_the_mask_on_its_scan(pair, tmp_path, mask_mm):
    root = pair(labels_with(np.s_[2:5, 6:9, 10:14]))
    for name, slice_mm in (("volume-0", 1.0), ("segmentation-0", mask_mm)):
        image = nib.load(root / f"{name}.nii")
        upwards = np.array(image.dataobj)[:, :, ::-1]
        nib.save(nib.Nifti1Image(upwards, np.diag([-0.5, -1.0, slice_mm, 1.0]), image.header), root / f"{name}.nii")
    (tmp_path / "fix.csv").write_text("volume,spacing_mm\nvolume-0,2.5 1 0.5\n")
    found, _ = train(root, overrides=tmp_path / "fix.csv")
    assert [lesion.box for lesion in found.lesions] == [(10, 6, 2, 14, 9, 5)]


def test_overrides(pair, tmp_path):
    block = np.s_[2:5, 6:9, 10:14]
    for number in range(4):
        root = pair(labels_with(block), number=number, spacing=(1.0, 1.0, 1.0))
    table = {
        "volume-0": {"spacing_mm": [5, 0.7, 0.8]},
        "volume-1": {"flip": "xz"},
        "volume-2": {"flip_mask": "y"},
        "volume-3": {"exclude": "wrong patient"},
    }
    (tmp_path / "fix.json").write_text(json.dumps(table))
    found, report = train(root, overrides=tmp_path / "fix.json")
    assert found.volumes[0].spacing_mm == pytest.approx((5, 0.7, 0.8))
    assert [lesion.box for lesion in found.lesions] == [
        (10.0, 6.0, 2.0, 14.0, 9.0, 5.0),
        (18.0, 6.0, 3.0, 22.0, 9.0, 6.0),
        (10.0, 15.0, 2.0, 14.0, 18.0, 5.0),
    ]
    assert report.remarks["volume excluded, wrong patient"] == ["volume-3"]


def test_a_mask_of_another_shape_leaves_the_volume_out(pair):
    pair(labels_with(), number=1)
    root = pair(labels_with(), number=2, mask_shape=(8, 24, 30))
    found, report = train(root)
    assert [volume.id for volume in found.volumes] == ["volume-1"]
    (reason,) = report.remarks["volume left out"]
    assert "segmentation-2.nii: mask of 30x24x8 voxels on an image of 32x24x8" in reason


def test_images_without_mask_and_values_with_fractions_are_reported(pair):
    root = pair(labels_with(), hu=np.resize(np.float32([-899.6, -90, 40, 300]), (8, 24, 32)))
    shutil.copy(root / "volume-0.nii", root / "volume-5.nii")
    shutil.copy(root / "segmentation-0.nii", root / "segmentation-7.nii")
    found, report = train(root)
    assert report.remarks["no segmentation, left out"] == [str(root / "volume-5.nii")]
    assert report.remarks["segmentation without its volume, left out"] == [str(root / "segmentation-7.nii")]
    assert report.remarks["HU with fractions rounded to whole numbers"] == [str(root / "volume-0.nii")]
    assert np.load(root / "volumes" / "volume-0.npy")[0, 0, 0] == -900


def test_phantom_round_trip(lits, tmp_path):
    root = shutil.copytree(lits, tmp_path / "lits")
    report = convert_lits(root, min_voxels=1)
    assert not any("left out" in what for what in report.remarks)
    sets = [AnnotationSet.load(path) for path in report.files.values()]
    assert [len(s.volumes) for s in sets] == [3, 1]
    truth = AnnotationSet.load(root / "truth" / "complete.json")
    got = {(lesion.volume, lesion.box) for s in sets for lesion in s.lesions}
    want = {(lesion.volume, lesion.box) for lesion in truth.lesions if lesion.type == "liver"}
    # Tumours that touch are one component.
    assert len(want) > 1 and len(got & want) > 0.6 * len(want)


def test_split_depends_on_the_seed_alone(lits, tmp_path):
    root = shutil.copytree(lits, tmp_path / "lits")

    def patients(**options):
        report = convert_lits(root, overwrite=True, fractions=(2, 1, 1), **options)
        return {n: [v.patient for v in AnnotationSet.load(p).volumes] for n, p in report.files.items()}

    first = patients()
    assert first == patients() and first != patients(seed=1)
    assert [len(names) for names in first.values()] == [2, 1, 1]
    assert sorted(sum(first.values(), [])) == list("0123")
    # With other shares, the file of a split that no longer exists goes.
    convert_lits(root, overwrite=True)
    assert not (root / "annotations" / "val.json").exists()


def test_bad_input(tmp_path, pair):
    with pytest.raises(InputError, match=r"no volume-N\.nii in it"):
        convert_lits(tmp_path)
    root = pair(labels_with())
    (root / "fix.csv").write_text("volume,flip\nvolume-1,x\n")
    with pytest.raises(InputError, match=r"unknown volume 'volume-1'; did you mean 'volume-0'\?"):
        convert_lits(root, overrides=root / "fix.csv")
    (root / "part").mkdir()
    shutil.copy(root / "volume-0.nii", root / "part" / "volume-0.nii")
    with pytest.raises(InputError, match=r"volume 0 is also at"):
        convert_lits(root)
    (root / "part" / "volume-0.nii").rename(root / "part" / "segmentation-0.nii")
    with pytest.raises(InputError, match=r"segmentation-0\.nii: segmentation 0 is also at .*keep one of them"):
        convert_lits(root)
    for path in (root / "part" / "segmentation-0.nii", root / "segmentation-0.nii"):
        path.unlink()
    with pytest.raises(InputError, match=r"no volume of 1 has its segmentation"):
        convert_lits(root)


def test_numbers_with_leading_zeros_in_linked_folders(pair, tmp_path):
    root = pair(labels_with(np.s_[2:5, 6:9, 10:14]))
    for kind in ("volume", "segmentation"):
        (root / f"{kind}-0.nii").rename(root / f"{kind}-000.nii")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "raw").symlink_to(root, target_is_directory=True)
    found, _ = train(tmp_path / "linked")
    assert [(lesion.volume, lesion.box) for lesion in found.lesions] == [("volume-0", (10, 6, 2, 14, 9, 5))]


def killed_after(renames, convert):
    """Run ``convert`` in a process that is gone after so many annotation files have their final names."""
    child = os.fork()
    if child == 0:
        real, left = os.replace, [renames]

        def replace(source, target):
            if "annotations" in str(target):
                if not left[0]:
                    os._exit(9)
                left[0] -= 1
            real(source, target)

        os.replace = replace
        convert()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_conversion_that_was_killed_says_so_and_is_done_again(pair, tmp_path):
    for number in range(2):
        root = pair(labels_with(np.s_[2:5, 6:9, 10:14]), number)
    convert_lits(root, fractions=(50, 0, 50))
    whole = {path.name: path.read_bytes() for path in (root / "annotations").iterdir()}
    assert set(whole) == {"train.json", "test.json"}
    killed_after(1, lambda: convert_lits(root, fractions=(50, 0, 50), overwrite=True))
    with pytest.raises(InputError, match=r"train\.json: its conversion was interrupted; convert the dataset again"):
        check_dataset(root)
    with pytest.raises(InputError, match="interrupted"):
        AnnotationSet.load(root / "annotations" / "test.json")
    convert_lits(root, fractions=(50, 0, 50))
    assert {path.name: path.read_bytes() for path in (root / "annotations").iterdir()} == whole
    assert check_dataset(root).files == {"test.json": (1, 1), "train.json": (1, 1)}


def test_annotations_of_replaced_volumes_are_not_taken_for_whole(pair, monkeypatch):
    for number in range(2):
        root = pair(labels_with(np.s_[2:5, 6:9, 10:14]), number)
    convert_lits(root, fractions=(50, 0, 50))
    pair(labels_with(np.s_[3:5, 6:9, 10:14]), 0, hu=np.resize(np.int16([-800, -90, 40, 300]), (8, 24, 32)))
    with monkeypatch.context() as patch:
        patch.setattr(lits, "write_cases", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            convert_lits(root, fractions=(50, 0, 50), overwrite=True)
    with pytest.raises(InputError, match="interrupted"):
        AnnotationSet.load(root / "annotations" / "train.json")
    convert_lits(root, fractions=(50, 0, 50))
    assert check_dataset(root).files == {"test.json": (1, 1), "train.json": (1, 1)}
