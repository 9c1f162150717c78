from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpluld.cli.main import command_parser
from mmpluld.errors import InputError
from mmpluld.evaluation import compare_files, evaluate_files, format_table
from mmpluld.evaluation.functional import DEEPLESION_2D, LENS_3D, PROTOCOLS, FROCProtocol
from mmpluld.evaluation.pairing import load_truth
from mmpluld.structures.records import AnnotationSet, Detections, DetectionSet, LesionRecord, VolumeRecord

NOWHERE = (300.0, 300.0)


def box(x: float, z: float, depth: int = 1) -> tuple[float, ...]:
    return (x, 10.0, float(z), x + 20, 30.0, float(z + depth))


def volume(name: str, patient: str, interval: float = 5.0) -> VolumeRecord:
    return VolumeRecord(
        name, patient, "01", "01", {"kind": "png16", "path": name}, 1, 50, (512, 512), (interval, 0.5, 0.5)
    )


def save_detections(path: Path, volumes: dict[str, list[tuple[tuple[float, ...], float]]]) -> Path:
    DetectionSet(
        {
            name: Detections(np.array([b for b, _ in found]).reshape(-1, 6), np.array([s for _, s in found]))
            for name, found in volumes.items()
        }
    ).save(path)
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Three volumes of two patients; four lesions on three key slices and one ignored one."""
    lesions = [
        LesionRecord(0, "p_1", box(10, 5), 5, recist=(10, 10, 40, 10, 20, 5, 20, 15), type="lung"),
        LesionRecord(1, "p_1", box(100, 5), 5, type="liver"),
        LesionRecord(2, "p_1", box(10, 9), 9, type="lung"),
        LesionRecord(3, "q_1", box(10, 7), 7, type="lung"),
        LesionRecord(4, "q_1", box(200, 7), 7, ignore=True),
    ]
    volumes = [volume("p_1", "p"), volume("p_2", "p"), volume("q_1", "q", interval=1.0)]
    AnnotationSet({"name": "made", "label_scope": "universal-partial"}, volumes, lesions).save(tmp_path / "gt.json")
    return tmp_path / "gt.json"


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    found = {
        "p_1": [(box(10, 5), 0.9), (box(100, 20), 0.8), (box(10, 9), 0.3), (box(400, 9), 0.95)],
        "p_2": [],
        "q_1": [(box(200, 7), 0.7), (box(10, 6, depth=2), 0.6)],
    }
    return save_detections(tmp_path / "pred.json", found)


def test_key_slices_by_hand(truth: Path, predictions: Path) -> None:
    """Order: wrong .95, hit .9, off-slice .8, on ignored .7, hit .6, hit .3; three images, four lesions."""
    result = evaluate_files(predictions, truth, "deeplesion-2d")
    assert result["sensitivity"] == [0.75] * 6
    assert result["average"] == 0.75
    assert result["threshold_at_level"] == [0.3] * 6
    counts = {key: value for key, value in result.items() if key.startswith("num_")}
    assert counts == {
        "num_images": 3,
        "num_volumes": 2,
        "num_patients": 2,
        "num_lesions": 4,
        "num_ignored_lesions": 1,
        "num_detections": 5,
        "num_off_slice_detections": 1,
    }
    assert (result["protocol"], result["mode"]) == ("deeplesion-2d", "compat")
    assert result["extra_volumes"] == ["p_2"]
    json.dumps(result, allow_nan=False)


def test_volumes_by_hand(truth: Path, predictions: Path) -> None:
    """All three volumes count in 3D; wrong are .95 and .8; the two-slice box lies half on the lesion."""
    result = evaluate_files(predictions, truth, "lens-3d")
    assert (result["num_images"], result["num_volumes"], result["num_detections"]) == (3, 3, 6)
    assert result["sensitivity"] == [0, 0, 0.25, 0.75, 0.75, 0.75, 0.75]
    assert result["threshold_at_level"] == [None, None, 0.9, 0.3, 0.3, 0.3, 0.3]


def test_one_wide_detection_counts_on_each_key_slice_it_covers(truth: Path, tmp_path: Path) -> None:
    path = save_detections(tmp_path / "p.json", {"p_1": [(box(10, 4, depth=6), 0.5)], "q_1": []})
    result = evaluate_files(path, truth, "deeplesion-2d")
    assert (result["num_detections"], result["num_off_slice_detections"]) == (2, 0)
    assert result["sensitivity"][0] == 0.5


def test_detection_record_as_truth(tmp_path: Path) -> None:
    DetectionSet({"a_1": Detections(np.array([box(10, 3), box(10, 8)])), "b_1": Detections(np.zeros((0, 6)))}).save(
        tmp_path / "gt.json"
    )
    found = {"a_1": [(box(10, 3), 0.9), (box(10, 4), 0.8)], "b_1": [(box(10, 4), 0.7)]}
    result = evaluate_files(save_detections(tmp_path / "p.json", found), tmp_path / "gt.json", "deeplesion-2d")
    assert (result["num_images"], result["num_patients"], result["num_detections"]) == (3, 2, 2)
    assert result["sensitivity"] == [0.5] * 6


def test_missing_volumes_are_taken_as_empty_and_named(truth: Path, tmp_path: Path) -> None:
    path = save_detections(tmp_path / "p.json", {"q_1": [(box(10, 7), 0.5)], "z_9": [(box(10, 7), 0.5)]})
    result = evaluate_files(path, truth, "deeplesion-2d")
    assert (result["missing_volumes"], result["extra_volumes"]) == (["p_1"], ["z_9"])
    assert result["sensitivity"] == [0.25] * 6


def test_strict_refuses_missing_and_extra_volumes(truth: Path, tmp_path: Path) -> None:
    path = save_detections(tmp_path / "p.json", {"q_1": []})
    with pytest.raises(InputError, match=r"p\.json: no entry for 2 volumes \(p_1, p_2\); strict"):
        evaluate_files(path, truth, "lens-3d", strict=True)
    path = save_detections(tmp_path / "p.json", {name: [] for name in ("p_1", "p_2", "q_1", *"abcdef")})
    with pytest.raises(InputError, match=r"unknown to the truth: 6 volumes \(a, b, c, d, e, \.\.\.\)"):
        evaluate_files(path, truth, "lens-3d", strict=True)


def test_strict_adds_other_measures(truth: Path, predictions: Path) -> None:
    result = evaluate_files(predictions, truth, "lens-3d", strict=True)
    assert result["mode"] == "strict"
    measures = [(m["overlap"], m["threshold"], m["min_iogt"]) for m in result["other_measures"]]
    assert measures == [("iou", 0.1, 0), ("iou", 0.3, 0), ("iou", 0.5, 0), ("iobb", 0.3, 0.3)]
    assert result["other_measures"][3]["average"] <= result["average"]


def test_bootstrap_is_seeded_and_plain(truth: Path, predictions: Path) -> None:
    result = evaluate_files(predictions, truth, "deeplesion-2d", bootstrap=50, seed=1)
    # Drawn are patients: p with 2 of 3 lesions found, q with 1 of 1; of its three images one has 1 of 2 found.
    assert result["interval"]["average"] == [pytest.approx(2 / 3), 1.0]
    assert result["interval"]["sensitivity"] == [[pytest.approx(2 / 3), 1.0]] * 6
    assert result == evaluate_files(predictions, truth, "deeplesion-2d", bootstrap=50, seed=1)


def test_strata(truth: Path, predictions: Path) -> None:
    result = evaluate_files(predictions, truth, "deeplesion-2d", strata=["type", "size", "interval"])
    rows = {
        (r["stratum"], r["group"]): (r["num_images"], r["num_lesions"], r["sensitivity"][0]) for r in result["strata"]
    }
    assert rows == {
        ("type", "liver"): (3, 1, 0.0),
        ("type", "lung"): (3, 3, 1.0),
        ("size", "10 to 30 mm"): (3, 4, 0.75),
        ("interval", "<= 2 mm"): (1, 1, 1.0),
        ("interval", "5 mm"): (2, 3, 2 / 3),
    }


def test_unknown_stratum_is_explained(truth: Path, predictions: Path) -> None:
    with pytest.raises(InputError, match="stratum 'sise' is not one of type, size, interval; did you mean 'size'"):
        evaluate_files(predictions, truth, "deeplesion-2d", strata=["sise"])


def test_compare_files(truth: Path, predictions: Path, tmp_path: Path) -> None:
    nothing = save_detections(tmp_path / "nothing.json", {})
    result = compare_files(predictions, nothing, truth, "deeplesion-2d", bootstrap=20)
    assert (result["first"], result["second"], result["average_difference"]) == (0.75, 0, 0.75)
    assert result["difference"] == [0.75] * 6
    assert result["interval"]["average"] == [pytest.approx(2 / 3), 1.0]  # of patients drawn, not of images
    text = format_table(result)
    assert "p = " in text
    assert "FP per image" in text
    assert "note: second: 2 volumes have no entry and count as without detections" in text
    assert "note: first: 1 volume is unknown to the truth and left out" in text
    json.dumps(result, allow_nan=False)


def test_no_lesion_is_refused(tmp_path: Path, predictions: Path) -> None:
    DetectionSet({"p_1": Detections(np.zeros((0, 6)))}).save(tmp_path / "gt.json")
    with pytest.raises(InputError, match=r"gt\.json: no lesion to find in 1 images"):
        evaluate_files(predictions, tmp_path / "gt.json", "lens-3d")


def test_3d_lesions_without_key_slice_are_refused_in_2d(tmp_path: Path, predictions: Path) -> None:
    lesion = LesionRecord(8, "p_1", box(10, 5, depth=3))
    AnnotationSet({"name": "made", "label_scope": "x"}, [volume("p_1", "p")], [lesion]).save(tmp_path / "gt.json")
    with pytest.raises(InputError, match="lesion 8 has no key_slice and spans z 5 to 8; .* use a 3D protocol"):
        evaluate_files(predictions, tmp_path / "gt.json", "deeplesion-2d")


def test_detections_without_scores_are_refused(truth: Path, tmp_path: Path) -> None:
    DetectionSet({"p_1": Detections(np.array([box(10, 5)]))}).save(tmp_path / "p.json")
    with pytest.raises(InputError, match=r"p\.json: volume 'p_1': detections have no scores"):
        evaluate_files(tmp_path / "p.json", truth, "deeplesion-2d")


def test_table(truth: Path, predictions: Path) -> None:
    result = evaluate_files(predictions, truth, "lens-3d", strict=False, bootstrap=10, strata=["type"])
    lines = format_table(result).splitlines()
    assert lines[0] == "lens-3d (compat)"
    assert lines[1].split() == ["FP", "per", "volume", "0.125", "0.25", "0.5", "1", "2", "4", "8", "average"]
    assert lines[2].split()[2:] == ["0.00", "0.00", "25.00", "75.00", "75.00", "75.00", "75.00", "46.43"]
    assert [line.split()[0] for line in lines[3:5]] == ["95", "95"]
    assert lines[5].split()[2:4] == ["-", "-"]
    assert any(line.startswith("type lung (3)") for line in lines)
    assert lines[-2].startswith("4 lesions, 6 detections, 3 volumes, 2 patients; a hit is IoBB >= 0.3")
    assert lines[-1] == "note: 1 lesion marked ignore is not counted"
    assert all(len(line) == len(line.rstrip()) for line in lines)
    strict = format_table(evaluate_files(predictions, truth, "lens-3d", strict=True))
    assert "IoBB >= 0.3, IoGT >= 0.3" in strict


@pytest.mark.parametrize("dim", [2, 3])
def test_published_examples_as_files(oracle: Callable[[int], dict[str, Any]], dim: int, tmp_path: Path) -> None:
    case = oracle(dim)
    flat = dim == 2
    files = {}
    for part in ("boxes", "truth"):
        boxes = case[part]
        if flat:
            boxes = [np.insert(np.insert(b, 2, 0, axis=1), 5, 1, axis=1) for b in boxes]
        scores = case["scores"] if part == "boxes" else [None] * len(boxes)
        volumes = {k: Detections(b, s) for k, b, s in zip(case["keys"], boxes, scores, strict=True)}
        files[part] = tmp_path / f"{part}.json"
        DetectionSet(volumes).save(files[part])
    for expected in case["expected"]:
        protocol = FROCProtocol(
            "published", dim, expected["overlap"].lower(), expected["threshold"], case["levels"], case["levels"][:7]
        )
        result = evaluate_files(files["boxes"], files["truth"], protocol)
        assert np.abs(np.array(result["sensitivity"]) - expected["sensitivity"]).max() < 0.0005
        assert result["average"] == pytest.approx(expected["mean_at_0p125_to_8"], abs=0.0005)
        assert result["num_images"] == len(case["keys"])


def test_custom_protocol_value(truth: Path, predictions: Path) -> None:
    result = evaluate_files(predictions, truth, replace(LENS_3D, name="mine", threshold=0.6))
    assert (result["protocol"], result["sensitivity"][-1]) == ("mine", 0.5)


def test_lesions_that_cross_a_key_slice_count_there(tmp_path: Path) -> None:
    """As in the samples of the dataset: own key slice or not, ignored or not, with the box of that slice."""
    rows = [[4, 10, 10, 20, 20], [5, 200, 10, 240, 30], [6, 10, 10, 20, 20]]
    lesions = [
        LesionRecord(0, "p_1", box(10, 3, depth=5), 5),
        LesionRecord(1, "p_1", box(100, 5, depth=3), 6),
        LesionRecord(2, "p_1", (10, 10, 4, 240, 30, 7), 4, ignore=True, attributes={"slice_boxes": rows}),
        LesionRecord(3, "p_1", box(300, 20), 20, ignore=True),
        LesionRecord(4, "p_1", box(400, 3, depth=5), ignore=True, attributes={"slice_boxes": []}),
        LesionRecord(5, "p_1", box(450, 5.6), 6, ignore=True),
    ]
    AnnotationSet({"name": "m", "label_scope": "all"}, [volume("p_1", "p")], lesions).save(tmp_path / "gt.json")
    found = [(box(10, 5), 0.9), (box(100, 5), 0.8), ((200.0, 10.0, 5.0, 240.0, 30.0, 6.0), 0.7), (box(100, 6), 0.6)]
    found += [(box(400, 5), 0.95), (box(450, 5), 0.95)]
    pred = save_detections(tmp_path / "pred.json", {"p_1": found})
    result = evaluate_files(pred, tmp_path / "gt.json", "deeplesion-2d")
    # Lesions 0 and 1 on slices 5 and 6; the third detection is on an ignored one, slice 20 is no image. Lesion 4 is on
    # no slice, and lesion 5 does not hold the centre of slice 5, so the last two detections are false.
    assert (result["num_images"], result["num_lesions"]) == (2, 4)
    assert result["sensitivity"] == [0, 0.75, 0.75, 0.75, 0.75, 0.75]


def test_a_lesion_without_a_box_on_its_only_slice_is_refused(tmp_path, predictions):
    record = LesionRecord(4, "p_1", box(10, 6), attributes={"slice_boxes": []})
    AnnotationSet({"name": "m", "label_scope": "all"}, [volume("p_1", "p")], [record]).save(tmp_path / "gt.json")
    with pytest.raises(InputError, match="lesion 4: is on key slice 6 without a box, it has one on none; no detection"):
        evaluate_files(predictions, tmp_path / "gt.json", "deeplesion-2d")


def test_of_a_lesion_that_leaves_the_image_the_part_inside_is_found(tmp_path: Path) -> None:
    """As a sample of the dataset has it."""
    outside = [
        LesionRecord(0, "p_1", (-25.0, 10.0, 5.0, 20.0, 30.0, 6.0), 5),
        LesionRecord(1, "p_1", (500.0, 490.0, 5.0, 560.0, 512.5, 6.0), 5),
    ]
    gt = tmp_path / "gt.json"
    AnnotationSet({"name": "made", "label_scope": "x"}, [volume("p_1", "p")], outside).save(gt)
    found = [((0.0, 10.0, 5.0, 20.0, 30.0, 6.0), 0.9), ((500.0, 490.0, 5.0, 512.0, 512.0, 6.0), 0.8)]
    result = evaluate_files(save_detections(tmp_path / "p.json", {"p_1": found}), gt, "deeplesion-2d")
    assert result["sensitivity"][0] == 1


def test_images_come_in_the_order_of_the_dataset(tmp_path: Path) -> None:
    """Of equal scores that of the later image comes first."""
    lesions = [LesionRecord(n, name, box(10, z), z) for n, (name, z) in enumerate([("q_1", 7), ("p_1", 9), ("p_1", 5)])]
    gt = tmp_path / "gt.json"
    AnnotationSet({"name": "made", "label_scope": "x"}, [volume("p_1", "p"), volume("q_1", "q")], lesions).save(gt)
    assert list(load_truth(gt, DEEPLESION_2D).images) == [("p_1", 5), ("p_1", 9), ("q_1", 7)]


def test_no_common_volume_is_refused(truth: Path, tmp_path: Path) -> None:
    pred = save_detections(tmp_path / "pred.json", {"scan": [(box(10, 5), 0.9)]})
    with pytest.raises(
        InputError, match=r"pred.json: none of its volumes \('scan', ...\) is in .*gt.json \('p_1', ...\)"
    ):
        evaluate_files(pred, truth, "deeplesion-2d")


def _scans(folder: Path, shapes: dict[str, int]) -> Path:
    """Truth of scans that lie in the world, by id and number of slices."""
    affine = tuple(tuple(row) for row in np.diag([0.5, 0.5, 5.0, 1.0]).tolist())
    volumes = [
        replace(volume(name, name), num_slices=count, affine_lps=affine, first_slice=0)
        for name, count in shapes.items()
    ]
    lesions = [LesionRecord(index, name, box(10, 5), 5) for index, name in enumerate(shapes)]
    AnnotationSet({"name": "m", "label_scope": "all"}, volumes, lesions).save(folder / "gt.json")
    return folder / "gt.json"


def test_unknown_ids_are_not_guessed_at(tmp_path: Path) -> None:
    pred = save_detections(tmp_path / "pred.json", {"scan": [(box(10, 5), 0.9)]})
    shapes = {f"p{number}_scan": 30 + number for number in (9, 1, 5, 6, 7)}
    with pytest.raises(InputError, match="; candidates are 'p1_scan', 'p5_scan', 'p6_scan', 'p7_scan' and 1 more$"):
        evaluate_files(pred, _scans(tmp_path, shapes), "deeplesion-2d")
    same = [("scan", "scan")]
    with pytest.raises(InputError, match="no volume 'scan' to evaluate; candidates are 'p1_scan', .* and 1 more$"):
        evaluate_files(pred, tmp_path / "gt.json", "deeplesion-2d", same=same)
    with pytest.raises(InputError, match=r"--same PRED_ID GT_ID; did you mean 'scam'\?$"):
        evaluate_files(pred, _scans(tmp_path, {"scam": 30, "liver": 30}), "deeplesion-2d")


def test_unknown_id_is_known_by_its_geometry(tmp_path: Path) -> None:
    truth = AnnotationSet.load(_scans(tmp_path, {f"p{number}_scan": 30 + number for number in (1, 5, 6)}))
    like = truth.volumes[1]
    height, width = like.shape_yx
    found = Detections(
        np.array([box(10, 5)]),
        np.array([0.9]),
        frame="canonical-voxels",
        shape=(width, height, like.num_slices),
        affine_lps=np.array(like.affine_lps),
    )
    DetectionSet({"scan": found}).save(tmp_path / "pred.json")
    with pytest.raises(InputError, match="GT_ID; --same scan p5_scan fits by its geometry$"):
        evaluate_files(tmp_path / "pred.json", tmp_path / "gt.json", "deeplesion-2d")
    twins = _scans(tmp_path, {"p1_scan": 30, "p5_scan": like.num_slices, "p6_scan": like.num_slices})
    with pytest.raises(InputError, match="GT_ID; candidates are 'p5_scan', 'p6_scan'$"):
        evaluate_files(tmp_path / "pred.json", twins, "deeplesion-2d")


def test_table_of_findings_is_no_record(truth: Path, tmp_path: Path) -> None:
    (tmp_path / "findings.csv").write_text("x1,y1\n")
    with pytest.raises(InputError, match=r"findings.csv: is a CSV, .*; give the detections.json of `mmpluld detect`"):
        evaluate_files(tmp_path / "findings.csv", truth, "deeplesion-2d")
    save_detections(tmp_path / "detections.json", {"p_1": []})
    with pytest.raises(InputError, match=r"findings.csv: is a CSV, .*; give .*/detections.json, which is beside it"):
        evaluate_files(tmp_path / "findings.csv", truth, "deeplesion-2d")


def test_boxes_of_a_file_do_not_fit_the_converted_volume(tmp_path: Path) -> None:
    stored = replace(volume("v", "p"), source={"kind": "npy", "path": "volumes/v.npy"})
    AnnotationSet({"name": "m", "label_scope": "all"}, [stored], [LesionRecord(0, "v", box(10, 5), 5)]).save(
        tmp_path / "gt.json"
    )
    boxes = {"boxes": np.array([box(10, 5)]), "scores": np.array([0.5])}
    DetectionSet({"v": Detections(**boxes)}).save(tmp_path / "test.json")
    assert evaluate_files(tmp_path / "test.json", tmp_path / "gt.json", "lens-3d")["average"] == 1
    DetectionSet({"v": Detections(**boxes, source="scan.mhd")}).save(tmp_path / "detect.json")
    with pytest.raises(InputError, match="boxes are in voxels of the file scan.mhd"):
        evaluate_files(tmp_path / "detect.json", tmp_path / "gt.json", "lens-3d")


def test_the_command_takes_every_protocol() -> None:
    (option,) = [item for item in command_parser("evaluate")._actions if item.dest == "protocol"]
    assert option.choices == [*PROTOCOLS, "luna16"]
    assert all(f"{name}: " in option.help for name in option.choices)
