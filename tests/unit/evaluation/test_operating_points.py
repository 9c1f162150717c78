"""Operating points and calibration, by hand on four volumes."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.evaluation.operating_points import OperatingPoints, measure_operating_points
from mmpluld.inference.settings import DetectionSettings
from mmpluld.structures import AnnotationSet, Detections, DetectionSet
from mmpluld.structures.model_line import ModelLine, RescoringLine


@pytest.fixture
def points(validation):
    return measure_operating_points(*validation, "lens-3d")


def test_curve_and_counts(points):
    """Scores 0.95 x4 right; 0.8 x1, 0.7 x2, 0.6 x3 wrong; 0.5 x4 right."""
    assert (points.per, points.num_images, points.num_patients, points.num_lesions) == ("volume", 4, 4, 8)
    assert points.curve == ((0.95, 0.0, 0.5), (pytest.approx(0.8), 0.25, 0.5), (0.7, 0.75, 0.5), (0.5, 1.5, 1.0))


@pytest.mark.parametrize(
    ("rate", "threshold", "given", "sensitivity"), [(0.25, 0.8, 0.25, 0.5), (1, 0.7, 0.75, 0.5), (1.5, 0.5, 1.5, 1.0)]
)
def test_lowest_threshold_within_the_rate(points, rate, threshold, given, sensitivity):
    point = points.at(rate)
    assert (point.score_thr, point.rate, point.sensitivity) == pytest.approx((threshold, given, sensitivity))
    gave = f"gave {given:g} false positives per volume{'' if rate == given else f' (asked for: {rate:g})'} and"
    assert f"{gave} sensitivity {sensitivity:.2f} on 4 validation volumes (lens-3d)" in point.describe()


@pytest.mark.parametrize("rate", [0, 0.2, 1.51, 100, float("nan")])
def test_rates_that_were_not_measured(points, rate):
    with pytest.raises(InputError, match=r"allowed are 0.25 to 1.5 false positives per volume, which 4 validation"):
        points.at(rate)


def test_without_a_false_positive_there_is_no_rate(points):
    right = replace(points, curve=((0.9, 0.0, 0.5), (0.5, 0.0, 1.0)))
    with pytest.raises(InputError, match=r"--fp-rate 1: 4 validation volumes gave less than one false positive in all"):
        right.at(1)


def test_calibration(points):
    bins = {round(item.low, 1): item for item in points.calibration}
    assert len(bins) == 10
    assert (bins[0.9].count, bins[0.9].hits, bins[0.9].precision, bins[0.9].mean_score) == (4, 4, 1.0, 0.95)
    assert (bins[0.5].count, bins[0.5].precision) == (4, 1.0)
    assert sum(item.count for item in bins.values()) == 14
    assert sum(item.hits for item in bins.values()) == 8
    assert (bins[0.0].count, bins[0.0].precision, bins[0.0].interval) == (0, None, None)


def test_ignored_and_repeated_findings_are_not_calibrated_and_patients_are_drawn(validation, tmp_path):
    found, truth = DetectionSet.load(validation[0]), AnnotationSet.load(validation[1])
    truth.lesions.append(
        replace(truth.lesions[0], id=99, volume="b", box=tuple(found.volumes["b"].boxes[2]), ignore=True)
    )
    first = found.volumes["a"]
    found.volumes["a"] = Detections(np.vstack([first.boxes, first.boxes[:1]]), np.append(first.scores, 0.15))
    for volume in truth.volumes:
        volume.patient = "alone"
    truth.save(tmp_path / "truth.json")
    found.save(tmp_path / "found.json")
    points = measure_operating_points(tmp_path / "found.json", tmp_path / "truth.json", "lens-3d")
    counts = {round(item.low, 1): item.count for item in points.calibration if item.count}
    assert counts == {0.9: 4, 0.7: 2, 0.6: 3, 0.5: 4}, "the one of 0.8 is ignored, that of 0.15 repeated"
    assert points.num_patients == 1
    assert all(item.interval is None for item in points.calibration), "four volumes, but of one patient"


def test_the_model_is_known_where_all_records_name_it(validation, tmp_path):
    predictions, truth = validation
    record = DetectionSet.load(predictions)
    line, other = (ModelLine.text("a", "c0" * 32, "w, b.pth", digits * 32) for digits in ("0a", "0b"))
    before = "model a, weights w, b.pth (SHA-256 0a0a0a0a0a0a0a0a)"  # of a version that did not tell the config

    def measure(*lines):
        for number, volume in enumerate(record.volumes.values()):
            volume.history = ["read", *lines[number % len(lines)]]
        record.save(tmp_path / "found.json")
        return measure_operating_points(tmp_path / "found.json", truth, "lens-3d")

    for lines, wanted in (
        ([], (None, None, None)),
        ([line], ("a", "0a" * 8, "c0" * 8)),
        ([before], ("a", "0a" * 8, None)),
        (["model a"], ("a", None, None)),
    ):
        points = measure(lines)
        points.save(tmp_path / "points.json")
        assert (points.model, points.weights, points.config) == wanted
        assert OperatingPoints.load(tmp_path / "points.json") == points
    averaged, alone = (str(RescoringLine(mode, "net, weights w")) for mode in ("average", "alone"))
    for lines, wanted in (
        ([], (None, None)),
        ([line], ("none", None)),
        ([line, averaged], ("average", "net, weights w")),
        ([alone], ("alone", "net, weights w")),
    ):
        points = measure(lines)
        points.save(tmp_path / "points.json")
        assert (points.fpr, points.fpr_network) == wanted
        assert OperatingPoints.load(tmp_path / "points.json") == points
    linked, otherwise = (DetectionSettings(link_score_thr=thr).describe() for thr in (0.05, 0.2))
    for lines, wanted in (([line], None), ([linked], "0.05 or more, linked at IoU above 0.5")):
        points = measure(lines)
        points.save(tmp_path / "points.json")
        assert points.linking == wanted
        assert OperatingPoints.load(tmp_path / "points.json") == points
    for first, second, message in (
        ([line], [other], r"several models \(a, weights with SHA-256 0a0a0a0a0a0a0a0a..., a"),
        ([line], [], r"several models \(a, weights with SHA-256 0a0a0a0a0a0a0a0a..., one not named"),
        ([line], [line, alone], r"several ways of scoring \(one not named, scores are those of net"),
        ([line, linked], [line, otherwise], r"several rules of linking \(2D boxes scored 0.05 or more, .* 0.2 or more"),
    ):
        with pytest.raises(InputError, match=message):
            measure(first, second)


@pytest.mark.parametrize(
    "line",
    [
        "model a, weights w (SHA 256 0a0a0a0a0a0a0a0a)",
        "2D boxes scored 0.05 or more, linked",
        "scores are the average of the detector's and those of net",
    ],
)
def test_a_history_that_cannot_be_read_is_refused(validation, tmp_path, line):
    record = DetectionSet.load(validation[0])
    record.volumes["b"].history = [line]
    record.save(tmp_path / "found.json")
    with pytest.raises(InputError, match=rf"found\.json, volume 'b': its history says '{re.escape(line)}', which is"):
        measure_operating_points(tmp_path / "found.json", validation[1], "lens-3d")


def test_file_and_back(points, tmp_path):
    points.save(tmp_path / "points.json")
    assert OperatingPoints.load(tmp_path / "points.json") == points


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "x"},
        {"curve": []},
        {"curve": [[0.5, 1, 1], [0.6, 2, 1]]},
        {"curve": [[0.5, 1]]},
        {"curve": [[0.5, 2, 1], [0.4, 1, 1]]},
        {"curve": [[7, 1, 1]]},
        {"num_images": 0},
        {"per": "scan"},
        {"calibration": [{}]},
        {"extra": 1},
    ],
)
def test_damaged_file(points, tmp_path, change):
    path = tmp_path / "points.json"
    path.write_text(json.dumps({**json.loads(points.to_json()), **change}))
    with pytest.raises(InputError, match=r"points.json: .*give what `mmpluld evaluate --operating-points` wrote"):
        OperatingPoints.load(path)


def test_command(validation, points, tmp_path, capsys, monkeypatch):
    found, truth = map(str, validation)
    load, read = DetectionSet.load, []
    monkeypatch.setattr(DetectionSet, "load", lambda path: read.append(str(path)) or load(path))
    out, picture = tmp_path / "points.json", tmp_path / "reliability.svg"
    command = ["evaluate", found, truth, "--protocol", "lens-3d", "--operating-points", str(out)]
    assert main([*command, "--reliability", str(picture)]) == 0
    assert OperatingPoints.load(out) == points
    assert "Share that is a lesion" in picture.read_text()
    assert "0.9 to 1.0         4     1.00  1.00 to 1.00" in capsys.readouterr().out
    assert read.count(found) == 1  # a record can be large
    record = load(found)
    for volume in record.volumes.values():
        volume.scores = volume.scores * 9
    record.save(tmp_path / "high.json")
    command[1], out = str(tmp_path / "high.json"), tmp_path / "result.json"
    assert main([*command, "--json", str(out)]) == 2
    assert "operating points need 0 to 1" in capsys.readouterr().err and not out.exists()
    assert main([*command[:5], "--json", str(out), "--reliability", str(tmp_path / "reliability.txt")]) == 2
    told = capsys.readouterr()
    assert "cannot plot to '.txt'" in told.err and not told.out and not out.exists()
