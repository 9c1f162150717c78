"""Detections and truth that count other voxels: the same figure whichever they count, or a refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.evaluation import compare_files, evaluate_files, format_table
from mmpluld.evaluation.operating_points import OperatingPoints, measure_operating_points
from mmpluld.structures import (
    AnnotationSet,
    CTVolume,
    Detections,
    DetectionSet,
    Finding,
    LesionRecord,
    VolumeRecord,
    findings_to_detections,
)

SHAPE_XYZ = (40, 36, 24)
SPACING_XYZ = (0.8, 0.9, 2.5)
FIRST = 103
SERIES = "000001_01_01"
PART = f"{SERIES}_{FIRST}-{FIRST + SHAPE_XYZ[2] - 1}"
LESIONS = [(5.0, 6.0, 3.0, 12.0, 14.0, 7.0), (20.0, 4.0, 10.0, 30.0, 12.0, 13.0), (8.0, 22.0, 17.0, 16.0, 30.0, 22.0)]
FOUND = [  # the first two lesions a little off, and nothing
    ((6.0, 6.0, 3.0, 12.0, 15.0, 7.0), 0.9),
    ((33.0, 30.0, 1.0, 38.0, 34.0, 4.0), 0.8),
    ((20.0, 4.0, 10.0, 29.0, 12.0, 12.0), 0.7),
]
ORIENTATIONS = [
    tuple(sign * axis for sign, axis in zip(signs, order, strict=True))
    for order in permutations((1, 2, 3))
    for signs in product((1, -1), repeat=3)
]


def scan(axes: tuple[int, ...] = (1, 2, 3), shape: tuple[int, ...] = SHAPE_XYZ, moved: float = 0.0) -> CTVolume:
    """The scan, a little oblique, with each file axis along a canonical one; all orientations show the same tissue."""
    affine = np.diag([*(np.array(SPACING_XYZ) * (1, 1, -1)), 1.0])
    turn = np.deg2rad(4)
    affine[:2, :2] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ affine[:2, :2]
    affine[:3, 3] = (-20.5, 31.25 + moved, 60.0)
    sizes = [0, 0, 0]
    for size, axis in zip(shape, axes, strict=True):
        sizes[abs(axis) - 1] = size
    to_canonical = np.zeros((4, 4))
    to_canonical[3, 3] = 1
    for canonical, (size, axis) in enumerate(zip(shape, axes, strict=True)):
        to_canonical[canonical, abs(axis) - 1] = np.sign(axis)
        to_canonical[canonical, 3] = 0 if axis > 0 else size - 1
    # NIfTI keeps its affine in 32 bits.
    stored = (affine @ to_canonical).astype(np.float32).astype(np.float64)
    return CTVolume.from_file_array(np.zeros(sizes, np.int16), stored, "scan.nii.gz")


def detected(volume: CTVolume) -> Detections:
    """What ``mmpluld detect`` writes."""
    findings = [
        Finding.from_canonical(volume, box, score, int(box[2]), (box[0], box[1], box[3], box[4]))
        for box, score in FOUND
    ]
    return findings_to_detections(findings, volume)


def annotated(path: Path, name: str, first: int, kind: str, affine: np.ndarray | None = None, **changes: Any) -> Path:
    """The truth as converters write it; z counts from ``first``."""
    volume = VolumeRecord(
        name, "p", "1", "1", {"kind": kind, "path": "scan"}, first, SHAPE_XYZ[2], SHAPE_XYZ[1::-1], SPACING_XYZ[::-1],
        affine_lps=None if affine is None else tuple(map(tuple, affine.tolist())),
    )  # fmt: skip
    boxes = [(x1, y1, z1 + first, x2, y2, z2 + first) for x1, y1, z1, x2, y2, z2 in LESIONS]
    lesions = [LesionRecord(n, name, box, int(box[2]) + 1) for n, box in enumerate(boxes)]
    AnnotationSet({"name": "made", "label_scope": "all"}, [replace(volume, **changes)], lesions).save(path)
    return path


def save(path: Path, **volumes: Detections) -> Path:
    DetectionSet(volumes).save(path)
    return path


def averages(pred: Path, truth: Path) -> list[float]:
    return [evaluate_files(pred, truth, protocol)["average"] for protocol in ("deeplesion-2d", "lens-3d")]


@pytest.fixture
def canonical(tmp_path: Path) -> Path:
    return annotated(tmp_path / "canonical.json", "scan", 0, "npy")


def test_untouched_scan_by_hand(canonical: Path, tmp_path: Path) -> None:
    """Three key slices, two found; in 3D, a false positive before the second."""
    pred = save(tmp_path / "p.json", scan=detected(scan()))
    assert averages(pred, canonical) == pytest.approx([2 / 3, (3 * 1 / 3 + 4 * 2 / 3) / 7])


def test_all_48_orientations_give_the_same_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # most of the time of so many small files
    upright = scan()
    expected = averages(
        save(tmp_path / "p.json", scan=detected(upright)), annotated(tmp_path / "canonical.json", "scan", 0, "npy")
    )
    truths = {
        "scan": [
            tmp_path / "canonical.json",
            annotated(tmp_path / "world.json", "scan", 0, "npy", affine=upright.affine_lps),
        ],
        PART: [
            annotated(tmp_path / "part.json", PART, FIRST, "png16"),
            annotated(tmp_path / "series.json", SERIES, FIRST, "png16"),
        ],
    }
    for axes in ORIENTATIONS:
        volume = scan(axes)
        assert volume.source_axes == axes
        found = detected(volume)
        boxes = volume.boxes_to_source(LESIONS)
        own = replace(found, boxes=boxes, scores=None, world_lps=None, key_slices=None)
        untold = Detections(boxes)
        truths["scan"][2:] = [save(tmp_path / "own.json", scan=own), save(tmp_path / "untold.json", scan=untold)]
        for name, paths in truths.items():
            pred = save(tmp_path / f"{name}.json", **{name: found})
            for truth in paths:
                assert evaluate_files(pred, truth, "lens-3d")["average"] == pytest.approx(expected[1]), (axes, truth)
        flat = evaluate_files(tmp_path / "scan.json", tmp_path / "canonical.json", "deeplesion-2d")
        assert flat["average"] == pytest.approx(expected[0])


def test_key_slices_of_a_truth_in_file_voxels_are_canonical(tmp_path: Path) -> None:
    """Slices that the file stacks along its first axis, backwards."""
    volume = scan((3, 2, -1))
    box = [20.0, 4.0, 10.0, 30.0, 12.0, 11.0]
    truth = save(tmp_path / "t.json", scan=replace(detected(volume), boxes=volume.boxes_to_source([box]), scores=None,
                 world_lps=None, key_slices=None))  # fmt: skip
    result = evaluate_files(save(tmp_path / "p.json", scan=detected(volume)), truth, "deeplesion-2d")
    assert (result["num_images"], result["average"], result["num_detections"]) == (1, 1, 1)


def test_a_detector_is_compared_with_itself_on_another_copy_of_the_scan(canonical: Path, tmp_path: Path) -> None:
    one = save(tmp_path / "one.json", scan=detected(scan((2, -1, 3))), other=Detections(np.zeros((0, 6))))
    two = save(tmp_path / "two.json", scan=detected(scan((-3, 1, -2))))
    truth = AnnotationSet.load(canonical)
    truth.volumes.append(replace(truth.volumes[0], id="other", patient="q"))
    truth.save(canonical)
    result = compare_files(one, two, canonical, "lens-3d", bootstrap=10)
    assert (result["first"] == result["second"] > 0.5) and result["interval"]["num_resampled"] == 2


def test_converted_volume_that_was_mirrored_lies_in_the_same_world(tmp_path: Path) -> None:
    """A table of corrections mirrored the copy along x, and its place in the world with it."""
    affine = scan().affine_lps
    affine[:3, 3] += affine[:3, 0] * (SHAPE_XYZ[0] - 1)
    affine[:3, 0] *= -1
    gt = annotated(tmp_path / "gt.json", "scan", 0, "npy", affine=affine)
    truth = AnnotationSet.load(gt)
    for lesion in truth.lesions:
        x1, y1, z1, x2, y2, z2 = lesion.box
        lesion.box = (SHAPE_XYZ[0] - x2, y1, z1, SHAPE_XYZ[0] - x1, y2, z2)
    truth.save(gt)
    assert averages(save(tmp_path / "p.json", scan=detected(scan((-2, 3, 1)))), gt) == pytest.approx([2 / 3, 11 / 21])


def other(**changes: Any) -> Detections:
    return replace(detected(scan()), **changes)


@pytest.mark.parametrize(
    ("found", "truth", "message"),
    [
        (detected(scan(shape=(40, 36, 20))), {}, "numbers of voxels differ: .*40 x 36 x 20 .*has 40 x 36 x 24"),
        (detected(scan(shape=(38, 36, 24))), {}, "numbers of voxels differ"),
        (detected(scan(moved=5.0)), {"affine": scan().affine_lps}, "corners lie up to .* voxels apart"),
        (detected(scan()), {"spacing_mm": (2.5, 0.9, 0.7)}, "voxel size differs: .*another crop or of a resampled"),
        (detected(scan()), {"affine": scan().affine_lps * 2, "spacing_mm": (5.0, 1.8, 1.6)}, "voxel size or direct"),
        (other(affine_lps=None, shape=None), {}, "in voxels of the file scan.nii.gz, .* lacks the geometry"),
        (
            other(frame=None, affine_lps=None, shape=None),
            {},
            "in voxels of the file scan.nii.gz, .* lacks the geometry",
        ),
        (Detections(np.array([FOUND[0][0]]) + 100, np.array([0.5])), {}, r"box 0 \(106, .* lies outside the volume"),
        (
            Detections(np.array([FOUND[0][0]]), np.array([0.5]), frame="series-slices", first_slice=2),
            {},
            "slices are counted from 2, there from 0",
        ),
    ],
    ids=["crop-z", "crop-x", "moved", "spacing", "resampled", "no-geometry", "old-detect", "outside", "numbers"],
)
def test_another_scan_than_the_truth_is_refused(
    found: Detections, truth: dict[str, Any], message: str, tmp_path: Path
) -> None:
    gt = annotated(tmp_path / "gt.json", "scan", 0, "npy", **truth)
    with pytest.raises(InputError, match=rf"p\.json: volume 'scan': .*{message}") as caught:
        evaluate_files(save(tmp_path / "p.json", scan=found), gt, "lens-3d")
    assert "\n" not in str(caught.value)


def test_a_truth_of_another_size_is_refused_where_it_does_not_tell_its_place(tmp_path: Path) -> None:
    found = other()
    gt = replace(found, affine_lps=None, shape=(found.shape[0], found.shape[1] + 1, found.shape[2]), scores=None)
    for untold in (gt, replace(gt, frame=None)):
        with pytest.raises(
            InputError, match=r"records of one volume tell .* voxels and .* voxels.*boxes of another crop"
        ):
            evaluate_files(save(tmp_path / "p.json", scan=found), save(tmp_path / "gt.json", scan=untold), "lens-3d")


def test_numbers_that_a_test_wrote_are_those_of_the_truth(tmp_path: Path) -> None:
    """With a frame or, in older files, without."""
    gt = annotated(tmp_path / "gt.json", SERIES, FIRST, "png16")
    boxes = np.array([box for box, _ in FOUND]) + [0, 0, FIRST, 0, 0, FIRST]
    old = Detections(boxes, np.array([score for _, score in FOUND]))
    results = [
        averages(save(tmp_path / "p.json", **{SERIES: found}), gt)
        for found in (old, replace(old, frame="series-slices"))
    ]
    assert results[0] == results[1] == pytest.approx([2 / 3, 11 / 21])


def test_first_slice_of_an_exported_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gt = annotated(tmp_path / "gt.json", SERIES, FIRST, "png16")
    short = scan(shape=(40, 36, 14))  # holds the first two lesions
    pred = save(tmp_path / "p.json", **{SERIES: detected(short)})
    with pytest.raises(InputError, match=r"a scan of 14 slices, but .*gt.json counts slices 103 to 126; name it"):
        evaluate_files(pred, gt, "lens-3d")
    result = evaluate_files(pred, gt, "lens-3d", first_slice=FIRST)
    assert (result["average"], result["unexamined_lesions"]) == (pytest.approx(11 / 21), 1)
    assert "note: 1 lesion lies on slices that were not examined and counts as missed" in format_table(result)
    with pytest.raises(InputError, match="1 lesion of .* not on slices that were examined; strict"):
        evaluate_files(pred, gt, "lens-3d", first_slice=FIRST, strict=True)
    assert evaluate_files(pred, gt, "lens-3d", first_slice=FIRST + 9)["average"] == 0  # as told, though wrong
    with pytest.raises(InputError, match="slices 120 to 133 are not all among 103 to 126"):
        evaluate_files(pred, gt, "lens-3d", first_slice=120)
    arguments = ["evaluate", str(pred), str(gt), "--protocol", "lens-3d", "--first-slice", str(FIRST)]
    points = tmp_path / "points.json"
    assert main([*arguments, "--operating-points", str(points)]) == 0 and "52.38" in capsys.readouterr().out
    assert OperatingPoints.load(points) == measure_operating_points(pred, gt, "lens-3d", first_slice=FIRST)
    with pytest.raises(InputError, match="1 lesion of .* not on slices that were examined; strict"):
        measure_operating_points(pred, gt, "lens-3d", strict=True, first_slice=FIRST)
    flat = annotated(tmp_path / "flat.json", SERIES, 0, "npy")
    with pytest.raises(InputError, match="--first-slice 3 is for a scan's file whose truth counts the slices"):
        evaluate_files(pred, flat, "lens-3d", first_slice=3)


def test_parts_of_a_series_belong_together(tmp_path: Path) -> None:
    gt = annotated(tmp_path / "gt.json", SERIES, FIRST, "png16")
    found = detected(scan(shape=(40, 36, 14)))
    rest = replace(detected(scan(shape=(40, 36, 10))), boxes=np.zeros((0, 6)), scores=np.zeros(0), world_lps=None,
                   key_slices=None)  # fmt: skip
    whole = save(tmp_path / "p.json", **{f"{SERIES}_103-116": found, f"{SERIES}_117-126": rest})
    result = evaluate_files(whole, gt, "lens-3d", strict=True)
    assert (result["num_volumes"], result["average"], result["unexamined_lesions"]) == (1, pytest.approx(11 / 21), 0)
    with pytest.raises(InputError, match="--first-slice 103: there are 2 volumes"):
        evaluate_files(whole, gt, "lens-3d", first_slice=103)
    twice = save(tmp_path / "p.json", **{f"{SERIES}_103-116": found, f"{SERIES}_110-119": rest})
    with pytest.raises(InputError, match="'000001_01_01_103-116' and '000001_01_01_110-119' share slices"):
        evaluate_files(twice, gt, "lens-3d")
    wrong = save(tmp_path / "p.json", **{f"{SERIES}_103-115": found})
    with pytest.raises(InputError, match=r"the name tells 13 slices, 103 to 115 .*40 x 36 x 14 voxels"):
        evaluate_files(wrong, gt, "lens-3d")


def test_which_scan_is_which(canonical: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pred = save(tmp_path / "p.json", download=detected(scan((2, 1, 3))))
    arguments = ["evaluate", str(pred), str(canonical), "--protocol", "lens-3d"]
    assert main(arguments) == 2
    assert "('download', ...) is in" in (message := capsys.readouterr().err) and "--same PRED_ID GT_ID" in message
    assert main([*arguments, "--same", "download", "scan"]) == 0
    assert "52.38" in capsys.readouterr().out
    for pair, text in (
        (("downlod", "scan"), "p.json: no volume 'downlod'; did you mean 'download'?"),
        (("download", "scam"), "canonical.json: no volume 'scam' to evaluate; did you mean 'scan'?"),
    ):
        assert main([*arguments, "--same", *pair]) == 2
        assert text in capsys.readouterr().err
    two = save(tmp_path / "p.json", download=detected(scan()), scan=detected(scan()))
    with pytest.raises(InputError, match="two volumes would be 'scan' of the truth"):
        evaluate_files(two, canonical, "lens-3d", same=[("download", "scan")])


def test_annotation_files_say_their_frame(tmp_path: Path) -> None:
    for kind, first, frame in (
        ("png16", 0, "series-slices"),
        ("npy", 0, "canonical-voxels"),
        ("npy", 3, "series-slices"),
    ):
        path = annotated(tmp_path / "gt.json", "scan", first, kind)
        data = json.loads(path.read_text())
        assert data["volumes"][0].pop("frame") == frame
        path.write_text(json.dumps(data))  # as written before files said it
        assert AnnotationSet.load(path).volumes[0].frame == frame


def test_lesion_outside_its_slices_is_refused(canonical: Path, tmp_path: Path) -> None:
    truth = AnnotationSet.load(canonical)
    truth.lesions[1].box = (50.0, 4.0, 10.0, 60.0, 12.0, 13.0)
    truth.save(canonical)
    with pytest.raises(InputError, match=r"canonical.json: lesion 1: box .* lies outside the slices of 40 x 36 pixels"):
        evaluate_files(save(tmp_path / "p.json", scan=detected(scan())), canonical, "lens-3d")


def many(tmp_path: Path, names: list[str]) -> tuple[Path, Path]:
    """A lesion in each volume, found in every second; records on both sides."""
    box = np.array([LESIONS[0]])
    found = {name: Detections(box + 20 * (n % 2), np.array([0.5 + n / 100])) for n, name in enumerate(names)}
    return save(tmp_path / "p.json", **found), save(tmp_path / "gt.json", **{name: Detections(box) for name in names})


@pytest.mark.parametrize(
    ("names", "patients"),
    [
        ([f"case_{n}" for n in range(20)], 20),
        ([f"{n:06d}_{study:02d}_01" for n in (1, 2) for study in (1, 2)], 2),
        (["000001_01_01_103-115", "000001_02_01_001-020", "000002_01_01_109.png"], 2),
        (["000001_01_01x", "00001_01_01", "000001_1_1"], 3),
    ],
)
def test_patients_of_ids(names: list[str], patients: int, tmp_path: Path) -> None:
    """Only an id that is exactly DeepLesion's names its patient."""
    files = many(tmp_path, names)
    result = evaluate_files(*files, "lens-3d", bootstrap=50)
    assert (result["num_patients"], result["interval"]["num_resampled"]) == (patients, patients)
    assert f"95 % low, {patients} patients" in format_table(result)
    if patients == 20:
        low, high = result["interval"]["average"]
        assert low < result["average"] < high


def test_annotated_volumes_without_a_patient_are_patients_of_their_own(tmp_path: Path) -> None:
    volume = VolumeRecord("a", "", "1", "1", {"kind": "npy", "path": "a"}, 0, 24, (36, 40), (2.5, 0.9, 0.8))
    truth = AnnotationSet({"name": "made", "label_scope": "all"}, [volume, replace(volume, id="b")])
    truth.lesions = [LesionRecord(0, "a", LESIONS[0]), LesionRecord(1, "b", LESIONS[1])]
    truth.save(tmp_path / "gt.json")
    pred = save(tmp_path / "p.json", a=Detections(np.array([LESIONS[0]]), np.array([0.5])))
    assert evaluate_files(pred, tmp_path / "gt.json", "lens-3d", bootstrap=5)["num_patients"] == 2


def test_one_patient_is_not_resampled(tmp_path: Path) -> None:
    files = many(tmp_path, ["000001_01_01", "000001_02_01"])
    result = evaluate_files(*files, "lens-3d", bootstrap=100)
    assert "interval" not in result and result["num_patients"] == 1
    assert "note: no interval: 1 patient, and a bootstrap over patients needs at least 2" in format_table(result)
    with pytest.raises(InputError, match=r"gt.json: 1 patient, and a bootstrap over patients needs at least 2; give"):
        compare_files(files[0], files[0], files[1], "lens-3d")


@pytest.mark.parametrize(
    ("interval", "group"),
    [(5.0000002, "5 mm"), (4.9998, "5 mm"), (2.0000003, "<= 2 mm"), (4.98, "> 2, < 5 mm"), (5.02, "> 5 mm")],
)
def test_interval_of_oblique_slices_is_rounded(interval: float, group: str, tmp_path: Path) -> None:
    gt = annotated(tmp_path / "gt.json", "scan", 0, "npy", spacing_mm=(interval, 0.9, 0.8))
    pred = save(tmp_path / "p.json", scan=Detections(np.array([LESIONS[0]]), np.array([0.5])))
    (row,) = evaluate_files(pred, gt, "lens-3d", strata=["interval"])["strata"]
    assert row["group"] == group
