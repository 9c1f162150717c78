"""One's own scans and a table of boxes to annotation files: geometry, splits, what is refused and what is reported."""

from __future__ import annotations

import itertools
import json
import os

import nibabel as nib
import numpy as np
import pytest

from mmpluld.atomic import atomic_write_text
from mmpluld.datasets import CTLesionDataset
from mmpluld.datasets.check import check_dataset
from mmpluld.datasets.converters import ConversionReport, convert_boxes
from mmpluld.datasets.converters.assemble import convert_cases
from mmpluld.datasets.transforms import LoadSliceStack
from mmpluld.errors import InputError, NoRoomError
from mmpluld.evaluation.evaluate import evaluate_files
from mmpluld.io import read_volume, write_volume
from mmpluld.io.slice_sources import open_source
from mmpluld.structures import AnnotationSet, CTVolume, Detections, DetectionSet

SHAPE, SPACING, ORIGIN = (6, 8, 10), (5.0, 0.75, 0.5), (-20.0, 30.0, 400.0)
# Canonical voxel edges, no two sides or distances alike.
BOX, KEY = (2.0, 1.0, 1.0, 7.0, 4.0, 5.0), 3
ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((False, True), repeat=3)
]


def scan(seed=0):
    array = np.random.default_rng(seed).integers(-1000, 300, SHAPE).astype(np.int16)
    array[0, 0, 0] = -1000
    return CTVolume.from_canonical(array, SPACING, ORIGIN)


def stored(array_xyz, order, flips):
    """Canonical (x, y, z) as a file keeps it whose axes run along ``order``, some of them backwards."""
    moved = array_xyz.transpose(order)
    return moved[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def stored_affine(volume, order, flips):
    """RAS affine of such a file: where its first voxel lies, and where its axes lead."""
    corner, columns = np.zeros(3), np.zeros((3, 3))
    sizes = volume.array.shape[::-1]
    for axis, (source, flip) in enumerate(zip(order, flips, strict=True)):
        corner[source] = sizes[source] - 1 if flip else 0
        columns[source, axis] = -1 if flip else 1
    affine = np.eye(4)
    affine[:3, :3] = volume.affine_lps[:3, :3] @ columns
    affine[:3, 3] = volume.points_to_world_lps(corner)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """The same scan stored in all 48 ways with a box, whose voxels are found in a mask that is turned with it."""
    root, volume = tmp_path_factory.mktemp("turned"), scan()
    mask = np.zeros(SHAPE, np.bool_)
    x1, y1, z1, x2, y2, z2 = map(int, BOX)
    mask[z1:z2, y1:y2, x1:x2] = True
    voxels = ["file,x1,y1,z1,x2,y2,z2,key_slice"]
    world = ["file,x_ras,y_ras,z_ras,diameter_x_mm,diameter_y_mm,diameter_z_mm"]
    centre = volume.points_to_world_lps((np.array(BOX[:3]) + BOX[3:]) / 2 - 0.5)
    sizes = (np.array(BOX[3:]) - BOX[:3]) * SPACING[::-1]
    for number, (order, flips) in enumerate(ORIENTATIONS):
        image = nib.Nifti1Image(stored(volume.array.transpose(), order, flips), stored_affine(volume, order, flips))
        nib.save(image, root / f"scan{number:02d}.nii.gz")
        places = np.argwhere(stored(mask.transpose(), order, flips))
        along_z = order.index(2)
        key = SHAPE[0] - 1 - KEY if flips[along_z] else KEY
        voxels.append(f"scan{number:02d},{','.join(map(str, [*places.min(0), *places.max(0)]))},{key}")
        world.append(f"scan{number:02d},{-centre[0]},{-centre[1]},{centre[2]},{','.join(map(str, sizes))}")
    found = {}
    for name, table, options in (("voxels", voxels, {"inclusive": True}), ("world", world, {})):
        (root / f"{name}.csv").write_text("\n".join(table))
        report = convert_boxes(root, root / f"{name}.csv", fractions=(1, 0, 0), overwrite=True, **options)
        found[name] = AnnotationSet.load(report.files["train"])
    return root, volume, found


@pytest.mark.parametrize("number", range(48), ids=lambda n: f"{ORIENTATIONS[n][0]}-{ORIENTATIONS[n][1]}")
def test_boxes_land_right_in_all_48_orientations(turned, number):
    root, volume, found = turned
    for converted in found.values():
        record, lesion = converted.volumes[number], converted.lesions[number]
        assert record.id == lesion.volume == f"scan{number:02d}"
        assert record.spacing_mm == pytest.approx(SPACING)
        assert lesion.box == pytest.approx(BOX)
        assert lesion.key_slice == KEY
    source = open_source(record, root)
    np.testing.assert_array_equal([source.read(z) for z in range(SHAPE[0])], volume.array)


@pytest.fixture
def own(tmp_path):
    """``own(table, scans, **options)``: scans of 6 x 8 x 10 voxels and a table -> report and all lesions."""

    def convert(table, scans=("a", "b"), suffix=".csv", **options):
        for number, name in enumerate(scans):
            file = tmp_path / "data" / f"{name}.nii.gz"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                write_volume(scan(number), file)
        text = table if isinstance(table, str) else json.dumps(table)
        (tmp_path / f"boxes{suffix}").write_text(text)
        report = convert_boxes(tmp_path / "data", tmp_path / f"boxes{suffix}", **options)
        sets = {split: AnnotationSet.load(path) for split, path in report.files.items()}
        return report, sets

    convert.root = tmp_path / "data"
    return convert


ALL = {"fractions": (1, 0, 0)}
HEAD = "volume,x1,y1,z1,x2,y2,z2"


def only(sets):
    (lesion,) = sets["train"].lesions
    return lesion


def test_what_a_voxel_box_becomes(own, decode_mask):
    # written with z downwards as canonical (1, 2, -3): NIfTI written from canonical keeps canonical order
    report, sets = own(f"{HEAD},type,ignore\na,2,1,1,7,4,5,liver,yes\n", label_scope="liver-lesions", **ALL)
    lesion = only(sets)
    assert sets["train"].dataset == {"name": "data", "label_scope": "liver-lesions"}
    assert (lesion.box, lesion.key_slice, lesion.type, lesion.ignore) == (BOX, 3, "liver", True)
    assert lesion.attributes["rows"] == ["line 2"]
    mask = decode_mask(lesion.mask)
    assert mask.shape == SHAPE[1:] and mask[2, 4] and not mask[1, 2]
    assert mask.sum() == mask[1:4, 2:7].sum() > 5
    assert report.remarks["scan not in the table, left out"] == ["b.nii.gz"]
    assert report.remarks["no patients given, a scan counts as a patient of its own"] == ["a"]
    assert "1 from the box alone" in report.summary()


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ("2,1,1,7,4,5", {}),
        ("2,1,1,6,3,4", {"inclusive": True}),
        ("3,2,2,8,5,6", {"one_based": True}),
        ("3,2,2,7,4,5", {"one_based": True, "inclusive": True}),
    ],
)
def test_ways_of_counting_voxels(own, row, options):
    assert only(own(f"{HEAD}\na,{row}\n", **ALL, **options)[1]).box == BOX


def test_edges_between_slices_take_the_slices_whose_centres_lie_inside(own):
    _, sets = own(f"{HEAD}\na,2.25,1,1.4,7,4,2.6\na,0,0,3.6,2,2,3.9\n", **ALL)
    assert [lesion.box for lesion in sets["train"].lesions] == [
        (2.25, 1.0, 1.0, 7.0, 4.0, 3.0),
        (0.0, 0.0, 3.0, 2.0, 2.0, 4.0),
    ]
    assert [lesion.key_slice for lesion in sets["train"].lesions] == [2, 3]


@pytest.mark.parametrize("names", ["x_lps,y_lps,z_lps", "x_ras,y_ras,z_ras", "coordX,coordY,coordZ"])
def test_spheres_in_both_worlds(own, names):
    x, y, z = scan().points_to_world_lps((4, 3, 2))
    lps = "ras" not in names
    row = f"a,{x if lps else -x},{y if lps else -y},{z},3"
    options = {"world": "lps"} if names.startswith("coord") else {}
    lesion = only(own(f"seriesuid,{names},diameter_mm\n{row}\n", **ALL, **options)[1])
    # 1.5 mm are 3 voxels of x and 2 of y; the next slices are 5 mm away.
    assert lesion.box == pytest.approx((1.5, 1.5, 2.0, 7.5, 5.5, 3.0))
    assert (lesion.key_slice, lesion.attributes["diameter_mm"]) == (2, 3.0)


def test_a_name_used_far_apart_is_two_lesions(own):
    table = "volume,x1,y1,x2,y2,slice,lesion\na,2,1,5,4,5,n1\na,2,1,7,4,1,n1\na,3,2,6,4,2,n1\n"
    report, sets = own(table, **ALL)  # slices 3 and 4 are 10 mm
    assert only(sets).box == (2.0, 1.0, 1.0, 7.0, 4.0, 6.0)
    report, sets = own(table, **ALL, max_gap_mm=9.9, overwrite=True)
    first, second = sets["train"].lesions
    assert (first.box, second.box) == ((2.0, 1.0, 1.0, 7.0, 4.0, 3.0), (2.0, 1.0, 5.0, 5.0, 4.0, 6.0))
    assert (first.attributes["rows"], second.attributes["rows"]) == (["line 3", "line 4"], ["line 2"])
    (item,) = report.remarks["more than 9.9 mm unmarked within a lesion, a lesion of its own from there"]
    assert item == "'n1' of a, line 2"


def test_slices_of_a_lesion_are_joined(own):
    rows = "a,2,1,5,4,1,n1\na,2,1,7,4,2,n1\na,3,2,6,4,3,n1\na,0,0,2,2,3,\n"
    report, sets = own(f"volume,x1,y1,x2,y2,slice,lesion\n{rows}", **ALL)
    joined, single = sets["train"].lesions
    assert joined.box == (2.0, 1.0, 1.0, 7.0, 4.0, 4.0)
    assert joined.attributes["slice_boxes"] == [[1, 2, 1, 5, 4], [2, 2, 1, 7, 4], [3, 3, 2, 6, 4]]
    assert joined.key_slice == 2
    assert single.box == (0.0, 0.0, 3.0, 2.0, 2.0, 4.0)
    assert report.remarks["boxes of one slice without 'lesion', each a lesion of its own"] == ["line 5"]


def coco(**changes):
    data = {
        "images": [
            {"id": 1, "file_name": "a.nii.gz", "slice": 3, "width": 10, "height": 8, "patient": "p", "split": "train"},
            {"id": 2, "file_name": "b.nii.gz", "patient": "q", "split": "test"},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 1, 5, 3], "iscrowd": 0, "area": 15},
            {"id": 2, "image_id": 2, "category_id": 7, "bbox": [2, 1, 1, 5, 3, 4], "iscrowd": 1, "key_slice": 4},
        ],
        "categories": [{"id": 7, "name": "kidney"}],
        "info": {},
    }
    return data | changes


def test_coco_of_slices_and_scans(own):
    _, sets = own(coco(), suffix=".json")
    flat, full = sets["train"].lesions[0], sets["test"].lesions[0]
    assert (flat.box, flat.key_slice, flat.type, flat.ignore) == ((2, 1, 3, 7, 4, 4), 3, "kidney", False)
    assert (full.box, full.key_slice, full.type, full.ignore) == (BOX, 4, "kidney", True)
    assert [volume.patient for volume in sets["train"].volumes] == ["p"]


def test_a_scan_without_lesions_is_kept(own):
    _, sets = own(f"{HEAD},split\na,2,1,1,7,4,5,train\nb,,,,,,,train\n")
    assert [volume.id for volume in sets["train"].volumes] == ["a", "b"]
    report, sets = own(coco(annotations=coco()["annotations"][:1]), suffix=".json", overwrite=True)
    assert report.remarks["split without a lesion that counts"] == ["test"]
    assert ([v.id for v in sets["test"].volumes], sets["test"].lesions) == (["b"], [])


def test_random_splits_keep_patients_together(own):
    names = [f"p{patient}/scan{number}" for patient in range(6) for number in range(2)]
    rows = "".join(f"{name},2,1,1,7,4,5,{name[:2]}\n" for name in names)
    _, sets = own(f"{HEAD},patient\n{rows}", names, fractions=(3, 1, 2), seed=1)
    patients = {split: {volume.patient for volume in found.volumes} for split, found in sets.items()}
    assert [len(patients[split]) for split in ("train", "val", "test")] == [3, 1, 2]
    assert set().union(*patients.values()) == {f"p{n}" for n in range(6)}
    assert sum(len(found.volumes) for found in sets.values()) == 12
    assert {volume.id for found in sets.values() for volume in found.volumes} == {n.replace("/", "_") for n in names}


def test_names_below_the_root(own):
    scans = ("deep/down/a", "b", "one/same", "two/same")
    rows = "".join(f"{name},2,1,1,7,4,5\n" for name in ("a", own.root / "b.nii.gz", "one/same"))
    _, sets = own(f"{HEAD}\n{rows}", scans, **ALL)
    assert [volume.id for volume in sets["train"].volumes] == ["deep_down_a", "b", "one_same"]
    with pytest.raises(InputError, match=r"line 2: scan 'same' may be one/same.nii.gz, two/same.nii.gz; give"):
        own(f"{HEAD}\nsame,2,1,1,7,4,5\n", scans, overwrite=True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("p1/scn.nii.gz", r"did you mean 'p1/scan.nii.gz'\?"),
        ("p1/scn", "did you mean 'p1/scan.nii.gz'"),
        ("scn", "candidates are 'p1/scan.nii.gz', 'p2/scan.nii.gz', 'p3/scan.nii.gz', 'p4/scan.nii.gz' and 1 more"),
        ("scan", "may be p1/scan.nii.gz, p2/scan.nii.gz, p3/scan.nii.gz, p4/scan.nii.gz and 1 more; give its path"),
        ("liver", "there are 5 scans in files"),
    ],
)
def test_unknown_scan_is_named_by_its_path(own, name, hint):
    scans = [f"p{number}/scan" for number in (3, 2, 5, 1, 4)]
    with pytest.raises(InputError, match=rf"1 faulty row: line 2: .*scan '{name}' .*{hint}"):
        own(f"{HEAD}\n{name},2,1,1,7,4,5\n", scans)


def test_dicom_folders(own, write_dicom_series):
    volume = scan()
    write_dicom_series(own.root / "p1" / "series", stored(volume.array.transpose(), (0, 1, 2), (False, False, True)),
                       np.diag([-1, -1, 1, 1]) @ stored_affine(volume, (0, 1, 2), (False, False, True)))  # fmt: skip
    lesion = only(own(f"{HEAD},key_slice\np1/series,2,1,1,7,4,5,1\n", (), **ALL)[1])
    # The slices of a DICOM series are numbered upwards: 1 to 4 of 6 are 1 to 4 downwards as well, 1 is 4.
    assert (lesion.volume, lesion.box, lesion.key_slice) == ("p1_series", BOX, 4)


def test_override_mirrors_boxes_with_the_scan(own, tmp_path):
    (tmp_path / "fix.csv").write_text("volume,flip,spacing_mm\na,x,4 1 1\n")
    _, sets = own(f"{HEAD}\na,2,1,1,7,4,5\n", overrides=tmp_path / "fix.csv", **ALL)
    assert only(sets).box == (3.0, 1.0, 1.0, 8.0, 4.0, 5.0)
    assert sets["train"].volumes[0].spacing_mm == (4.0, 1.0, 1.0)


@pytest.mark.parametrize("flips", [(False, False, False), (False, False, True), (True, True, True)])
def test_a_wrong_spacing_moves_no_box_given_in_mm(own, tmp_path, flips):
    own.root.mkdir()
    for name, factor in (("right", 1.0), ("wrong", 2.5)):
        affine = stored_affine(scan(), (0, 1, 2), flips)
        affine[:3, 2] /= factor  # the slices
        nib.save(nib.Nifti1Image(stored(scan().array.transpose(), (0, 1, 2), flips), affine), own.root / f"{name}.nii")
    x, y, z = scan().points_to_world_lps((4.0, 2.0, 3.0))
    rows = "".join(f"{name},{x},{y},{z},2,2,12\n" for name in ("right", "wrong"))
    (tmp_path / "fix.csv").write_text("volume,spacing_mm\nwrong,5 0.75 0.5\n")
    table = f"volume,x_lps,y_lps,z_lps,diameter_x_mm,diameter_y_mm,diameter_z_mm\n{rows}"
    _, sets = own(table, (), overrides=tmp_path / "fix.csv", **ALL)
    right, wrong = sets["train"].lesions
    assert (wrong.box, wrong.key_slice) == (right.box, right.key_slice)
    assert right.key_slice == 3


def test_check_data_dataset_and_evaluation_take_the_result(own, tmp_path):
    report, sets = own(f"{HEAD},split\na,2,1,1,7,4,5,train\nb,1,1,0,4,4,3,test\n")
    assert check_dataset(own.root, all_slices=True).problems == []
    dataset = CTLesionDataset(
        "annotations/train.json",
        str(own.root),
        [LoadSliceStack(num_slices=3, slice_gap_mm=0.0)],
        sampling={"policy": "lesion_slices"},
    )
    assert [dataset.get_data_info(index)["key_slice"] for index in range(len(dataset))] == [1, 2, 3, 4]
    sample = dataset[2]
    assert sample["img"].shape == (8, 10, 3)
    np.testing.assert_array_equal(sample["img"][..., 1], scan(0).array[3])
    assert sample["instances"][0]["bbox"] == [2, 1, 7, 4]
    boxes = np.array([lesion.box for lesion in sets["test"].lesions])
    DetectionSet({"b": Detections(boxes, np.array([0.9]))}).save(tmp_path / "found.json")
    for protocol in ("lens-3d", "deeplesion-2d"):
        result = evaluate_files(tmp_path / "found.json", report.files["test"], protocol, strict=True)
        assert result["average"] == 1.0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (f"{HEAD}\na,2,1,1,7,4,9\n", r"line 2: box \[2, 1, 1, 7, 4, 9\] leaves its scan of 10 x 8 x 6 voxels along z"),
        (f"{HEAD}\na,-1,1,1,7,4,5\n", r"along x; allowed are edges from 0 to 10"),
        (f"{HEAD}\nc,2,1,1,7,4,5\n", r"line 2: no scan 'c' below .*data; there are 2 scans in files"),
        (f"{HEAD}\n../boxes.csv,2,1,1,7,4,5\n", r"no scan '\.\./boxes\.csv'"),
        (f"{HEAD}\na,2,1,1,7,4,5\na.nii.gz,2,1,1,7,4,5\n", r"line 2 and line 3: the same box twice in 'a.nii.gz'"),
        (f"{HEAD}\na,2,1,1,7,4,5\na,,,,,,\n", r"line 3: scan 'a' without a box, but other rows have boxes"),
        (f"{HEAD},key_slice\na,2,1,1,7,4,5,5\n", r"line 2: key slice 5 lies outside its box, which holds slices 1 t"),
        (f"{HEAD},lesion\na,2,1,1,7,4,5,n\na,0,0,0,1,1,1,n\n", r"lesion 'n' of 'a' has two boxes in 3D"),
        ("volume,x1,y1,x2,y2,slice,lesion\na,0,0,1,1,2,n\na,3,3,4,4,2,n\n", r"lesion 'n' of 'a' has two boxes on one"),
        ("volume,x1,y1,x2,y2,slice\na,0,0,1,1,6\n", r"leaves its scan of 10 x 8 x 6 voxels along z"),
        ("volume,x_lps,y_lps,z_lps,diameter_mm\na,0,0,0,3\n", r"centre 0, 0, 0 \(LPS\) lies outside its scan, which"),
        (f"{HEAD},patient\na,2,1,1,7,4,5,p\na,0,0,0,1,1,1,q\n", r"line 2 and line 3: patient of 'a' is 'p' and 'q'"),
        (f"{HEAD},patient\na,2,1,1,7,4,5,p\nb,0,0,0,1,1,1,\n", r"line 3: no patient of 'b', though others have one"),
        (f"{HEAD},split\na,2,1,1,7,4,5,training\n", r"split is 'training'; allowed are train, val, test, did you mean"),
        (f"{HEAD},patient,split\na,2,1,1,7,4,5,p,train\nb,2,1,1,7,4,5,p,test\n", r"patient 'p' is in two splits"),
        (f"{HEAD}\na,,,,,,\n", r"no box in it \(1 row\)"),
    ],
)  # fmt: skip
def test_faults_end_the_conversion_with_nothing_written(own, table, message):
    with pytest.raises(InputError, match=message) as caught:
        own(table, **({} if "split" in table else ALL))
    assert "\n" not in str(caught.value)
    assert not (own.root / "annotations").exists()


def test_faults_of_options(own, tmp_path):
    good = f"{HEAD}\na,2,1,1,7,4,5\nb,2,1,1,7,4,5\n"
    with pytest.raises(InputError, match=r"split 70 10 20: leaves test without any of 2 patients; .*--split"):
        own(good)
    with pytest.raises(InputError, match=r"label scope 'universal-parital'.*did you mean 'universal-partial'"):
        own(good, label_scope="universal-parital")
    with pytest.raises(InputError, match=r"tells the splits, and --split or --seed"):
        own(f"{HEAD},split\na,2,1,1,7,4,5,train\n", seed=1)
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        convert_boxes(tmp_path / "nowhere", tmp_path / "boxes.csv")
    with pytest.raises(InputError, match=r"boxes\.xlsx: unknown kind of table '\.xlsx'"):
        convert_boxes(own.root, tmp_path / "boxes.xlsx")
    own(good, **ALL)
    with pytest.raises(InputError, match=r"train\.json: exists already"):
        own(good, **ALL)


def test_scans_that_are_no_ct_or_damaged_are_left_out_by_name(own):
    own.root.mkdir()
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), own.root / "mask.nii.gz")
    (own.root / "broken.nii.gz").write_bytes(b"no scan")
    rows = "".join(f"{name},1,1,1,2,2,2\n" for name in ("a", "mask", "broken"))
    report, sets = own(f"{HEAD}\n{rows}", **ALL)
    assert [volume.id for volume in sets["train"].volumes] == ["a"]
    mask, broken = report.remarks["volume left out"]
    assert "values are not HU: all values are 1;" in mask
    assert "broken.nii.gz: cannot be read" in broken
    with pytest.raises(InputError, match=r"no volume of 1 could be converted.*all values are 1;"):
        own(f"{HEAD}\nmask,1,1,1,2,2,2\n", overwrite=True, **ALL)


def test_slices_of_a_file_that_is_not_axial_are_refused(own):
    own.root.mkdir()
    volume, how = scan(), ((2, 1, 0), (False, False, False))
    image = nib.Nifti1Image(stored(volume.array.transpose(), *how), stored_affine(volume, *how))
    nib.save(image, own.root / "side.nii.gz")
    with pytest.raises(InputError, match=r"line 2: a box of one slice, but the file is not stored in axial slices"):
        own("volume,x1,y1,x2,y2,slice\nside,0,0,1,1,2\n", **ALL)


def test_coco_that_does_not_fit_its_scan(own):
    images = [{"id": 1, "file_name": "a.nii.gz", "slice": 3, "width": 8, "height": 10}]
    with pytest.raises(InputError, match=r"annotation 1: its image is 8 x 10 \(width x height\), but the scan 10 x 8"):
        own(coco(images=images, annotations=coco()["annotations"][:1]), suffix=".json", **ALL)


def test_one_millimetre_headers_and_linked_folders(own, tmp_path):
    own.root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    array = np.resize(np.int16([-1000, -90, 40]), (3, 4, 5))
    write_volume(CTVolume.from_canonical(array, (1.0, 1.0, 1.0)), tmp_path / "elsewhere" / "c.nrrd")
    (own.root / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "loop").symlink_to(own.root, target_is_directory=True)
    report, sets = own(f"{HEAD}\nc,1,1,1,2,2,2\n", (), **ALL)
    assert [volume.id for volume in sets["train"].volumes] == ["linked_c"]
    assert report.remarks["header says 1 x 1 x 1 mm; if it is wrong, correct it (--overrides)"] == ["linked_c"]


def test_names_that_check_data_would_refuse_are_refused(own):
    with pytest.raises(InputError, match=r"its id 'a\.\.b' cannot be part of a file name"):
        own(f"{HEAD}\na..b,1,1,1,2,2,2\n", ("a..b",))


def test_two_files_with_one_id_are_refused(own):
    with pytest.raises(InputError, match=r"b\.nii\.gz: gets the id 'a_b', as .*a_b\.nii\.gz does"):
        own(f"{HEAD}\na_b,1,1,1,2,2,2\na/b,1,1,1,2,2,2\n", ("a_b", "a/b"), **ALL)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_refused_before_the_work(own):
    own(f"{HEAD}\na,2,1,1,7,4,5\n", **ALL)
    own.root.chmod(0o555)
    try:
        with pytest.raises(InputError, match=r"may not be written to.*ln -s"):
            own(f"{HEAD}\na,2,1,1,7,4,5\n", overwrite=True, **ALL)
    finally:
        own.root.chmod(0o755)


def test_real_scans_from_a_linked_folder(real_data, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "scans").symlink_to(real_data / "volumes", target_is_directory=True)
    known = json.loads((real_data / "volumes" / "boxes.json").read_text())
    names = ["nsclc_lung1_001", "sts_002"]
    rows = [f"{name}_image,{','.join(map(str, known[name]['lesions'][0]['box']))}\n" for name in names]
    (tmp_path / "boxes.csv").write_text(f"{HEAD}\n{''.join(rows)}")
    report = convert_boxes(tmp_path / "data", tmp_path / "boxes.csv", inclusive=True, **ALL)
    assert check_dataset(tmp_path / "data").problems == []
    for lesion, name in zip(AnnotationSet.load(report.files["train"]).lesions, names, strict=True):
        mask = read_volume(real_data / "volumes" / f"{name}_mask.nii.gz", labels=True).array > 0
        places = np.argwhere(mask)[:, ::-1]
        assert lesion.box == (*places.min(0), *(places.max(0) + 1))


def test_a_folder_and_a_file_of_one_name_are_told_apart(own):
    (own.root / "a").mkdir(parents=True)
    with pytest.raises(InputError, match=r"'a' may be a, a\.nii\.gz;"):
        own(f"{HEAD}\na,1,1,1,3,3,3\n", scans=("a",), **ALL)


def test_a_full_disk_leaves_no_scan_out_of_a_dataset_that_is_then_written():
    """As a damaged scan would be: what is written then lacks scans that nothing is wrong with."""
    with pytest.raises(NoRoomError, match="/dev/full"):
        convert_cases(["a"], lambda name: atomic_write_text("/dev/full", name), {}, ConversionReport())
