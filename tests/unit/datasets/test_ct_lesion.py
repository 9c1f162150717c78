"""CTLesionDataset: which slices are samples, and what is on them."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from mmpluld.datasets import CTLesionDataset
from mmpluld.datasets.converters.pseudo_masks import encode_mask
from mmpluld.datasets.folds import fold_of_patients
from mmpluld.datasets.slice_pictures import read_slice
from mmpluld.errors import InputError
from mmpluld.io.slice_sources import PNGSliceSource
from mmpluld.registry import DATASETS
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

LESIONS = [
    {"volume": "a", "box": (4, 5, 2, 10, 12, 5), "key_slice": 3},
    {"volume": "a", "box": (20, 5, 4, 26, 12, 6), "key_slice": 4},
    {"volume": "a", "box": (-3, 20, 8, 8, 40, 9), "key_slice": 8, "ignore": True},
    {"volume": "b", "box": (1.5, 2, 21, 7.25, 9, 22), "key_slice": 21},
    {"volume": "b", "box": (10, 20, 23, 14, 24, 24)},
]
NO_MASK = {"size": [32, 32], "counts": [32 * 32]}
REST = {"tags": None, "uncertain_tags": None, "identity": None, "mask": NO_MASK}
PIPELINE = [
    {"type": "LoadSliceStack", "num_slices": 3},
    {"type": "WindowHU"},
    {"type": "mmdet.LoadAnnotations", "with_bbox": True},
    {
        "type": "mmdet.PackDetInputs",
        "meta_keys": ("img_id", "volume_id", "key_slice", "patient", "spacing_mm", "slice_interval_mm"),
    },
]


@pytest.fixture
def build(write_annotations):
    def run(policy="key_slices", lesions=LESIONS, **options):
        root = write_annotations(lesions)
        config = {
            "type": "CTLesionDataset",
            "ann_file": "annotations/train.json",
            "data_root": str(root),
            "sampling": {"policy": policy},
        }
        with DefaultScope.overwrite_default_scope("mmpluld"):
            return DATASETS.build(config | options)

    return run


def keys(dataset):
    return [(info["volume_id"], info["key_slice"]) for info in map(dataset.get_data_info, range(len(dataset)))]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("key_slices", [("a", 3), ("a", 4), ("b", 21)]),
        ("lesion_slices", [("a", 2), ("a", 3), ("a", 4), ("a", 5), ("b", 21), ("b", 23)]),
        ("all_slices", [("a", i) for i in range(10)] + [("b", i) for i in range(20, 24)]),
    ],
)
def test_policies(build, policy, expected):
    assert keys(build(policy)) == expected


@pytest.mark.parametrize(
    ("told", "refused"), [([False], True), ([False, True], False), ([None], False), ([None, False], False)]
)
def test_slices_that_no_strategy_looked_at_are_no_background(build, told, refused):
    file = build().ann_file
    known = AnnotationSet.load(file)
    mined = [{} if every is None else {"every_slice": every} for every in told]
    AnnotationSet(known.dataset | {"mined": mined}, known.volumes, known.lesions).save(file)

    def samples(policy):
        return len(CTLesionDataset(file, str(Path(file).parents[1]), sampling={"policy": policy}))

    assert samples("lesion_slices") == 6
    if refused:
        with pytest.raises(InputError, match=r"train\.json: no strategy .*mine with `--strategies \.\.\. unlabeled`"):
            samples("all_slices")
    else:
        assert samples("all_slices") == 14


def test_one_sample_by_hand(build):
    dataset = build()
    info = dataset.get_data_info(1)
    assert info == {
        "dataset": "test",
        "img_id": "a/004",
        "img_path": f"ct-slice://png16,0,4,{dataset.data_root}/Images_png/a/a_004.png",
        "volume_id": "a",
        "key_slice": 4,
        "patient": "patient-a",
        "source": {"kind": "png16", "path": f"{dataset.data_root}/Images_png/a"},
        "first_slice": 0,
        "spacing_mm": (5.0, 0.8, 0.8),
        "slice_interval_mm": 5.0,
        "height": 32,
        "width": 32,
        "instances": [
            {"bbox": [4, 5, 10, 12], "bbox_label": 0, "ignore_flag": 0, "lesion_id": 0, "key_slice": 3, **REST},
            {"bbox": [20, 5, 26, 12], "bbox_label": 0, "ignore_flag": 0, "lesion_id": 1, "key_slice": 4, **REST},
        ],
        "recist_mm": [pytest.approx((math.nan, math.nan), nan_ok=True)] * 2,
        "body_context": pytest.approx((math.nan,) * 3, nan_ok=True),
        "sample_idx": 1,
    }


def test_picture_address_is_that_of_the_slice(build):
    dataset = build("all_slices")
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert len({info["img_path"].rpartition("/")[2] for info in infos}) == len(infos)
    for info in infos:
        folder = PNGSliceSource(info["source"]["path"], info["spacing_mm"])
        assert np.array_equal(read_slice(info["img_path"]), folder.read(info["key_slice"]))


def test_class_and_dataset_facts(build):
    meta = build().metainfo
    assert meta["classes"] == ("lesion",)
    assert meta["dataset"] == {"name": "test", "label_scope": "universal-complete"}


def test_boxes_are_clipped_and_ignored_lesions_flagged(build):
    info = build("all_slices").get_data_info(8)
    item = {"bbox": [0, 20, 8, 32], "bbox_label": 0, "ignore_flag": 1, "lesion_id": 2, "key_slice": 8, **REST}
    assert info["instances"] == [item]
    assert info["recist_mm"] == []


def test_box_outside_the_image_is_no_instance(build):
    outside = {"volume": "a", "box": (32, 5, 3, 40, 12, 4), "key_slice": 3}
    dataset = build(lesions=[LESIONS[0], outside])
    assert [item["lesion_id"] for item in dataset.get_data_info(0)["instances"]] == [0]


@pytest.mark.parametrize("policy", ["key_slices", "lesion_slices"])
def test_a_slice_whose_lesion_has_no_box_there_is_no_sample(build, policy):
    outside = {"volume": "a", "box": (32, 5, 7, 40, 12, 8), "key_slice": 7}
    assert ("a", 7) not in keys(build(policy, lesions=[LESIONS[0], outside]))
    assert ("a", 7) in keys(build("all_slices", lesions=[LESIONS[0], outside]))


def test_a_lesion_is_on_the_slices_whose_centres_its_box_holds(build):
    lesion = LESIONS[0] | {"box": (4, 5, 3.4, 10, 12, 5.4)}
    assert keys(build("lesion_slices", lesions=[lesion])) == [("a", 3), ("a", 4)]
    assert [item["bbox"] for item in build(lesions=[lesion]).get_data_info(0)["instances"]] == [[4, 5, 10, 12]]


ROWS = [[3, 5, 6, 9, 11], [4, 6.5, 7, 8, 40]]
CUT = [LESIONS[0] | {"attributes": {"slice_boxes": ROWS}}, LESIONS[1]]


def test_boxes_by_slice(build):
    dataset = build("lesion_slices", CUT)
    found = {
        dataset.get_data_info(index)["key_slice"]: [item["bbox"] for item in dataset.get_data_info(index)["instances"]]
        for index in range(len(dataset))
    }
    # Slice 2 is in the 3D box but not on the list; boxes are clipped to the image.
    assert found == {3: [[5, 6, 9, 11]], 4: [[6.5, 7, 8, 32], [20, 5, 26, 12]], 5: [[20, 5, 26, 12]]}
    by_lesion, _ = dataset.sample_groups()
    assert by_lesion == {0: [0, 1], 1: [1, 2]}


def test_a_lesion_is_to_be_ignored_between_its_marks(build):
    marks = [[2, 4, 4, 8, 8], [5, 7, 4, 11, 11], [7, 7, 4, 11, 11]]
    lesions = [
        LESIONS[0] | {"box": (4, 4, 2, 11, 11, 8), "key_slice": 5, "attributes": {"slice_boxes": marks}},
        LESIONS[1],
    ]
    dataset = build("all_slices", lesions)
    found = {
        dataset.get_data_info(index)["key_slice"]: [
            (item["lesion_id"], item["ignore_flag"], item["bbox"]) for item in dataset.get_data_info(index)["instances"]
        ]
        for index in range(len(dataset))
        if dataset.get_data_info(index)["volume_id"] == "a"
    }
    assert found[3] == [(0, 1, [5, 4, 9, 9])]
    assert found[4] == [(1, 0, [20, 5, 26, 12]), (0, 1, [6, 4, 10, 10])]
    assert found[6] == [(0, 1, [7, 4, 11, 11])]
    assert [number for number, items in found.items() if not items] == [0, 1, 8, 9]
    assert keys(build("lesion_slices", lesions)) == [("a", 2), ("a", 4), ("a", 5), ("a", 7)]


def test_extent_of_the_whole_lesion_instead(build):
    dataset = build("lesion_slices", CUT, slice_boxes=False)
    assert dataset.get_data_info(0)["instances"][0]["bbox"] == [4, 5, 10, 12]
    assert keys(dataset) == [("a", 2), ("a", 3), ("a", 4), ("a", 5)]


@pytest.mark.parametrize("rows", [[[3, 5, 6, 9]], 7, [["x", 1, 2, 3, 4]]])
def test_faulty_boxes_by_slice(build, rows):
    with pytest.raises(InputError, match=r"train\.json: lesions\[0\]\.attributes\.slice_boxes.* must "):
        build("lesion_slices", [LESIONS[0] | {"attributes": {"slice_boxes": rows}}])


def test_uncertain_lesions_as_truth(build):
    dataset = build(uncertain="truth")
    assert keys(dataset) == [("a", 3), ("a", 4), ("a", 8), ("b", 21)]
    assert dataset.get_data_info(2)["instances"][0]["ignore_flag"] == 0
    assert dataset.sample_groups()[0] == {0: [0, 1], 1: [1], 3: [3]}, "what is drawn stays"


# The volumes of a patient lie apart, and patients sort otherwise than volumes.
PATIENTS = dict(zip("abcdefgh", ("p6", "p1", "p4", "p3", "p6", "p2", "p5", "p1"), strict=True))


@pytest.fixture
def patients_of(tmp_path):
    """Function: the patients of a choice of volumes, each with all of hers."""
    source = {"kind": "npy", "path": "none.npy"}
    volumes = [
        VolumeRecord(name, patient, "1", "1", source, 0, 9, (32, 32), (5.0, 0.8, 0.8))
        for name, patient in PATIENTS.items()
    ]
    lesions = [LesionRecord(number, name, (4, 5, 3, 10, 12, 4), 3) for number, name in enumerate(PATIENTS)]
    AnnotationSet({"name": "test", "label_scope": "x"}, volumes, lesions).save(tmp_path / "train.json")

    def run(**options):
        found = {volume for volume, _ in keys(CTLesionDataset(str(tmp_path / "train.json"), **options))}
        patients = {PATIENTS[volume] for volume in found}
        assert found == {volume for volume, patient in PATIENTS.items() if patient in patients}
        return patients

    return run


def test_share_of_the_patients(patients_of):
    shares = [patients_of(fraction=fraction) for fraction in (0.01, 1 / 3, 2 / 3, 1.0)]
    assert [len(share) for share in shares] == [1, 2, 4, 6]
    assert shares[0] < shares[1] < shares[2] < shares[3]
    drawn = [frozenset(patients_of(fraction=0.5, fraction_seed=seed)) for seed in (0, 1, 2, 3, 0)]
    assert drawn[0] == drawn[-1] and len(set(drawn)) > 1


@pytest.mark.parametrize("seed", [0, 1])
def test_parts_of_a_fold_are_the_patients(patients_of, seed):
    inside = patients_of(fold=(1, 3), fold_seed=seed)
    assert inside == fold_of_patients(PATIENTS.values(), 1, 3, seed)
    assert patients_of(fold=(1, 3), fold_seed=seed, fold_part="out") == set(PATIENTS.values()) - inside


def test_volumes_without_a_named_patient_are_patients_of_their_own(tmp_path):
    source = {"kind": "npy", "path": "none.npy"}
    volumes = [VolumeRecord(name, "", "", "", source, 0, 9, (32, 32), (5.0, 0.8, 0.8)) for name in "abcd"]
    lesions = [LesionRecord(number, name, (4, 5, 3, 10, 12, 4), 3) for number, name in enumerate("abcd")]
    AnnotationSet({"name": "test", "label_scope": "x"}, volumes, lesions).save(tmp_path / "train.json")
    file = str(tmp_path / "train.json")
    assert len(CTLesionDataset(file, fraction=0.5)) == len(CTLesionDataset(file, fold=(0, 2))) == 2
    infos = map(CTLesionDataset(file).get_data_info, range(4))
    assert len({info["patient"] for info in infos}) == 4  # what the samplers and losses go by


def test_slices_outside_the_volume_are_no_samples(write_annotations):
    root = write_annotations(LESIONS[3:])
    path = root / "annotations" / "train.json"
    part = AnnotationSet.load(path)
    part.volumes[0].first_slice, part.volumes[0].num_slices = 4, 3  # the folder has slices 0 to 9
    part.save(path)
    dataset = CTLesionDataset(str(path), str(root), sampling={"policy": "all_slices"})
    assert keys(dataset) == [("a", 4), ("a", 5), ("a", 6), *(("b", index) for index in range(20, 24))]


def test_pipeline(build):
    item = build(pipeline=PIPELINE)[1]
    assert item["inputs"].shape == (3, 32, 32)
    sample = item["data_samples"]
    assert (sample.img_id, sample.volume_id, sample.key_slice, sample.patient) == ("a/004", "a", 4, "patient-a")
    assert (sample.spacing_mm, sample.slice_interval_mm) == ((5.0, 0.8, 0.8), 5.0)
    assert sample.gt_instances.bboxes.tensor.tolist() == [[4, 5, 10, 12], [20, 5, 26, 12]]
    assert sample.gt_instances.labels.tolist() == [0, 0]
    expected = (np.array([3.6, 4, 4.4]) + 1024) / 3074 * 255 - 50
    np.testing.assert_allclose(item["inputs"][:, 1, 1], expected, atol=1e-4)


def _square(left: int, top: int, side: int) -> dict:
    mask = np.zeros((32, 32), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return encode_mask(mask)


MASKED = [
    {"volume": "a", "box": (4, 5, 2, 10, 12, 5), "key_slice": 3, "mask": _square(5, 6, 4)},
    {"volume": "a", "box": (20, 5, 3, 26, 12, 6), "key_slice": 3},
    {"volume": "a", "box": (2, 20, 3, 8, 30, 4), "key_slice": 3, "ignore": True, "mask": _square(3, 22, 2)},
]
WITH_MASK = [step | {"with_mask": True} if "LoadAnn" in step["type"] else step for step in PIPELINE]


def test_masks_lie_on_the_key_slice_and_are_empty_elsewhere(build):
    dataset = build("lesion_slices", MASKED, pipeline=WITH_MASK)
    samples = [dataset[index]["data_samples"] for index in range(len(dataset))]
    areas = {key: sample.gt_instances.masks.areas.tolist() for key, sample in zip(keys(dataset), samples, strict=True)}
    assert areas == {("a", 2): [0], ("a", 3): [16, 0], ("a", 4): [0, 0], ("a", 5): [0]}
    assert samples[1].gt_instances.masks.masks[0, 6:10, 5:9].all()
    assert samples[1].ignored_instances.masks.areas.tolist() == [4]


def test_recist_of_lesions_that_count_on_their_key_slice(build):
    mark = (5, 5, 15, 5, 8, 2, 8, 7)
    lesions = [MASKED[2] | {"recist": mark}, MASKED[0] | {"recist": mark}, MASKED[1]]
    info = build("lesion_slices", lesions).get_data_info(1)
    assert info["recist_mm"][0] == pytest.approx((8.0, 4.0))
    assert np.isnan(info["recist_mm"][1]).all()
    assert np.isnan(build("lesion_slices", lesions).get_data_info(0)["recist_mm"]).all()


def test_training_on_masks_needs_one(build):
    with pytest.raises(InputError, match="none of its 5 lesions has a mask.*convert .* --masks exact"):
        build(pipeline=WITH_MASK)
    assert len(build(pipeline=WITH_MASK, test_mode=True)) == 3


def test_samples_without_lesions_go_through_the_pipeline(build):
    sample = build("all_slices", pipeline=PIPELINE)[0]["data_samples"]
    assert sample.gt_instances.bboxes.tensor.shape == (0, 4)
    assert sample.gt_instances.labels.shape == (0,)


def test_ignored_lesions_are_ignored_instances(build):
    sample = build("all_slices", pipeline=PIPELINE)[8]["data_samples"]
    assert len(sample.gt_instances) == 0
    assert sample.ignored_instances.bboxes.tensor.tolist() == [[0, 20, 8, 32]]


def test_filter_empty_gt(build):
    kept = [("a", 2), ("a", 3), ("a", 4), ("a", 5), ("b", 21), ("b", 23)]
    assert keys(build("all_slices", filter_cfg={"filter_empty_gt": True})) == kept
    assert len(build("all_slices", filter_cfg={"filter_empty_gt": True}, test_mode=True)) == 14


def test_no_lesions(build):
    assert len(build("all_slices", lesions=[])) == 14
    for policy in ("key_slices", "lesion_slices"):
        with pytest.raises(
            InputError, match=rf"train\.json: no samples with sampling policy '{policy}'; .*'all_slices'"
        ):
            build(policy, lesions=[])
    with pytest.raises(InputError, match=r"no samples with sampling policy 'all_slices'; give a file with lesions$"):
        build("all_slices", lesions=[], filter_cfg={"filter_empty_gt": True})


def test_sample_groups(build):
    by_lesion, negatives = build("lesion_slices").sample_groups()
    assert by_lesion == {0: [0, 1, 2], 1: [2, 3], 3: [4], 4: [5]}
    assert negatives == []
    # Its lesion lies outside the image, yet an unlabelled slice is no negative here.
    assert build(
        lesions=[LESIONS[0], {"volume": "a", "box": (32, 5, 7, 40, 12, 8), "key_slice": 7}]
    ).sample_groups() == (
        {0: [0]},
        [],
    )
    _, negatives = build("all_slices").sample_groups()
    assert negatives == [0, 1, 6, 7, 8, 9, 10, 12]


def test_samples_do_not_change_what_is_stored(build):
    dataset = build(pipeline=PIPELINE, serialize_data=False)
    before = str(dataset.get_data_info(1))
    first, second = dataset[1]["inputs"], dataset[1]["inputs"]
    assert torch.equal(first, second)
    assert str(dataset.get_data_info(1)) == before


def test_category_ids(build):
    assert build().get_cat_ids(1) == [0, 0]


@pytest.mark.parametrize(
    ("folder", "file", "converter"),
    [
        ("DeepLesion", "train", "deeplesion"),
        ("luna16", "train", "luna16"),
        ("nih_ln", "val", "nih-ln"),
        ("my-lits", "train", "lits"),
        ("deeplesion", "manual_test", "deeplesion-3d"),
        ("splits", "train", r"KIND \(one of luna16, lits, nih-ln, deeplesion, boxes\)"),
    ],
)
def test_missing_annotation_file(tmp_path_factory, folder, file, converter):
    root = tmp_path_factory.mktemp("data") / folder
    wanted = rf"{file}.json: no such annotation file; .*`mmpluld convert {converter} {root}`, or "
    with pytest.raises(InputError, match=wanted):
        CTLesionDataset(f"annotations/{file}.json", str(root))


def test_missing_mined_file_is_to_be_mined(tmp_path):
    file = tmp_path / "annotations/train_mined.json"
    marked = tmp_path / "annotations/train.json"
    wanted = (
        f"{file}: no such annotation file; mine it with `mmpluld mine {marked} PROPOSALS --strategies ... --out {file}`"
    )
    with pytest.raises(InputError, match=re.escape(wanted)):
        CTLesionDataset("annotations/train_mined.json", str(tmp_path))


@pytest.mark.parametrize(
    ("root", "commands"),
    [
        ("phantom", "mmpluld phantom twins {0}"),
        ("phantom-organs", "mmpluld phantom organs {0}"),
        ("phantom-lits", "mmpluld phantom lits {0} && mmpluld convert lits {0}"),
        ("phantom-lens/luna16", "mmpluld phantom lens {1}"),
    ],
)
def test_missing_phantom(tmp_path_factory, root, commands):
    path = tmp_path_factory.mktemp("data") / root
    with pytest.raises(InputError, match=re.escape(f"make the data with `{commands.format(path, path.parent)}`")):
        CTLesionDataset("annotations/train.json", str(path))


def test_datasets_under_one_root(write_annotations):
    root = write_annotations(LESIONS)
    dataset = CTLesionDataset(
        f"{root.name}/annotations/train.json", str(root.parent), data_prefix={"img_path": root.name}, pipeline=[]
    )
    assert dataset.get_data_info(0)["source"]["path"] == str(root / "Images_png" / "a")
    missing = r"mmpluld convert KIND \(one of .*\) " + f"{root.parent}/elsewhere`"
    with pytest.raises(InputError, match=missing):
        CTLesionDataset("none.json", str(root.parent), data_prefix={"img_path": "elsewhere"})


def test_name_of_the_dataset(build):
    dataset = build(name="other")
    assert {dataset.get_data_info(index)["dataset"] for index in range(len(dataset))} == {"other"}
    assert dataset.metainfo["dataset"]["name"] == "other"


def test_faulty_annotation_file(tmp_path):
    (tmp_path / "train.json").write_text('{"schema": "mmpluld.annotations/2"}')
    with pytest.raises(InputError, match=r"train\.json: schema is 'mmpluld.annotations/2'; allowed is"):
        CTLesionDataset("train.json", str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling": {"policy": "key_slice"}}, r"unknown sampling policy 'key_slice'; .*did you mean 'key_slices'\?"),
        ({"sampling": {"policy": "all_slices", "ratio": 2}}, r"unknown key of sampling 'ratio'; allowed: policy"),
        ({"uncertain": "ignored"}, r"unknown way with uncertain lesions 'ignored'; .*did you mean 'ignore'\?"),
        ({"fraction": 0.0}, r"fraction is 0.0; allowed is above 0 up to 1"),
        ({"fraction": 1.5}, r"fraction is 1.5; allowed is above 0 up to 1"),
        ({"fold": (1, 2, 3)}, r"fold is \(1, 2, 3\); allowed is \(k, K\)"),
        ({"fold_part": "inside"}, r"unknown part of a fold 'inside'; allowed: in, out"),
        (
            {"sampling": "key_slices"},
            r"sampling is 'key_slices'; allowed is dict\(policy=...\), .* one of key_slices, ",
        ),
        ({"fold": 0}, r"fold is 0; allowed is \(k, K\)"),
        ({"fold": "01"}, r"fold is '01'; allowed is \(k, K\)"),
        ({"fold": (0, "2")}, r"fold is \(0, '2'\); allowed is \(k, K\)"),
        ({"data_prefix": {"img": "a"}}, r"unknown key of data_prefix 'img'; allowed: img_path"),
        ({"filter_cfg": {"filter_empty": True}}, r"unknown key of filter_cfg 'filter_empty'; .*'filter_empty_gt'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InputError, match=message):
        CTLesionDataset("train.json", **settings)


def test_real_key_slices_have_no_neighbours(tmp_path, real_data):
    from mmpluld.datasets.converters import convert_deeplesion

    (tmp_path / "Images_png").symlink_to(real_data / "deeplesion" / "Images_png")
    (tmp_path / "DL_info.csv").symlink_to(real_data / "deeplesion" / "DL_info_images.csv")
    convert_deeplesion(tmp_path)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        dataset = CTLesionDataset("annotations/test.json", str(tmp_path), pipeline=PIPELINE)
    item = dataset[0]
    assert item["inputs"].shape == (3, 512, 512)
    assert torch.equal(item["inputs"][0], item["inputs"][1])
    assert len(item["data_samples"].gt_instances) == 1
