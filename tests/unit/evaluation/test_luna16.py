"""The challenge's CSV files, by hand and against the published answer for a real detector."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.evaluation import evaluate_luna16, format_table
from mmpluld.structures.records import Detections, DetectionSet

FINDING = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
MARK = "seriesuid,coordX,coordY,coordZ,probability\n"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Four scans; nodules in two of them, and one in a scan that is not listed."""
    (tmp_path / "seriesuids.csv").write_bytes(b"1.2.1\r\n1.2.2\r\n1.2.3\r\n1.2.4\r\n")
    (tmp_path / "annotations.csv").write_text(f"{FINDING}1.2.1,0,0,0,10\n1.2.2,-9.5,0,3,6\n1.2.9,0,0,0,9\n")
    (tmp_path / "annotations_excluded.csv").write_text(f"{FINDING}1.2.1,50,0,0,-1\n")
    return tmp_path


@pytest.fixture
def submission(truth: Path) -> Path:
    rows = ["1.2.1,1,0,0,0.9", "1.2.1,2,0,0,0.8", "1.2.1,50,4,0,0.7", "1.2.3,0,0,0,0.6", "1.2.2,-9.5,1,3,5e-1"]
    path = truth / "submission.csv"
    path.write_text(MARK + "\n".join([*rows, "1.2.8,0,0,0,0.4"]) + "\n\n")
    return path


def test_by_hand(truth: Path, submission: Path) -> None:
    result = evaluate_luna16(submission, truth)
    # 1 of 2 nodules without any false positive; the other after the only one, at 1 / 4 per scan.
    assert result["sensitivity"] == [0.5, 1, 1, 1, 1, 1, 1]
    assert result["average"] == pytest.approx(6.5 / 7)
    assert result["threshold_at_level"] == [0.7, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert (result["protocol"], result["mode"], result["per"], result["num_images"]) == (
        "luna16",
        "official",
        "scan",
        4,
    )
    counts = ("num_lesions", "num_found", "num_ignored_lesions", "num_detections", "num_false_positives")
    assert [result[name] for name in counts] == [2, 2, 1, 5, 1]
    assert (result["num_set_aside"], result["num_over_limit"]) == (2, 0)
    assert (result["missing_volumes"], result["extra_volumes"]) == (["1.2.4"], ["1.2.8"])
    json.dumps(result, allow_nan=False)


def test_columns_may_stand_in_any_order(truth: Path, submission: Path) -> None:
    expected = evaluate_luna16(submission, truth)
    rows = [line.split(",") for line in submission.read_text().split()]
    submission.write_text("".join(",".join(reversed(row)) + "\n" for row in rows))
    assert evaluate_luna16(submission, truth) == expected


def test_detection_record_with_world_boxes(truth: Path, submission: Path) -> None:
    expected = evaluate_luna16(submission, truth)
    volumes: dict[str, list[list[float]]] = {}
    for line in submission.read_text().split()[1:]:
        name, *numbers = line.split(",")
        volumes.setdefault(name, []).append([float(number) for number in numbers])
    record = {}
    for name, rows in volumes.items():
        marks = np.array(rows)
        hulls = np.hstack([marks[:, :3] - [1, 2, 3], marks[:, :3] + [1, 2, 3]])
        record[name] = Detections(np.zeros((len(marks), 6)), marks[:, 3], world_lps=hulls)
    DetectionSet(record).save(truth / "found.json")
    assert evaluate_luna16(truth / "found.json", truth) == expected
    record["1.2.3"] = Detections(np.zeros((1, 6)), np.array([0.5]))
    DetectionSet(record).save(truth / "found.json")
    with pytest.raises(InputError, match=r"volume '1.2.3': boxes without world_lps; marks are places in world mm"):
        evaluate_luna16(truth / "found.json", truth)
    record["1.2.3"] = Detections(np.zeros((0, 6)))
    DetectionSet(record).save(truth / "found.json")
    assert evaluate_luna16(truth / "found.json", truth)["num_false_positives"] == 0


def test_interval_and_table(truth: Path, submission: Path) -> None:
    result = evaluate_luna16(submission, truth, bootstrap=60, seed=1)
    assert result == evaluate_luna16(submission, truth, bootstrap=60, seed=1)
    interval = result["interval"]
    assert (interval["resampled"], interval["resamples"], interval["confidence"]) == ("scans", 60, 0.95)
    for (low, high), value in zip(interval["sensitivity"], result["sensitivity"], strict=True):
        assert low <= value <= high
    lines = format_table(result).splitlines()
    assert lines[0] == "luna16 (official)"
    assert lines[1].split()[:3] == ["FP", "per", "scan"]
    assert lines[6] == "2 lesions, 5 detections, 4 volumes; a hit is a mark nearer to the centre than the radius"
    assert "note: 2 marks on excluded findings, or again on a nodule, are not counted" in lines


def test_no_marks_at_all(truth: Path, submission: Path) -> None:
    submission.write_text(MARK)
    result = evaluate_luna16(submission, truth, bootstrap=5)
    assert (result["average"], result["num_detections"], len(result["missing_volumes"])) == (0.0, 0, 4)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "submission.csv",
            MARK + "1.2.1,1,0,x,0.9\n",
            "submission.csv: line 2, column 'coordZ': 'x'; needed is a finite",
        ),
        ("submission.csv", MARK + "1.2.1,1,0,0,\n", "line 2, column 'probability': ''"),
        ("submission.csv", MARK + "1.2.1,1,0,0,nan\n", "line 2, column 'probability': 'nan'"),
        ("submission.csv", MARK + "1.2.1,1,0,0\n", "line 2: 4 fields; the header has 5"),
        ("submission.csv", MARK + ",1,0,0,0.9\n", "line 2, column 'seriesuid': empty"),
        ("submission.csv", "", "line 1: no column 'seriesuid' in the header; needed: seriesuid, coordX"),
        (
            "submission.csv",
            "seriesuid,coordX,coordY,coordZ,probabilty\n",
            "line 1: no column 'probability' in the header; is it the one called 'probabilty'",
        ),
        ("annotations.csv", FINDING, "annotations.csv: no nodule in the 4 scans of seriesuids.csv"),
        ("annotations.csv", FINDING + "1.2.1,0,0,0,big\n", "annotations.csv: line 2, column 'diameter_mm': 'big'"),
        ("seriesuids.csv", "", "seriesuids.csv: no scan id"),
        ("seriesuids.csv", "1.2.1\n1.2.2\n1.2.1\n", "seriesuids.csv: line 3: '1.2.1' stands on line 1 already"),
        ("seriesuids.csv", "1.2.1,5\n", "seriesuids.csv: line 1: '1.2.1,5'; needed is one scan id a line"),
        ("annotations_excluded.csv", None, r"annotations_excluded.csv: cannot be read \(no such file"),
        ("submission.csv", b"\xff\xfe\x00", "submission.csv: not UTF-8 text"),
    ],
)
def test_faulty_files_are_named(
    truth: Path, submission: Path, name: str, text: str | bytes | None, message: str
) -> None:
    path = truth / name
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        evaluate_luna16(submission, truth)


def test_command(truth: Path, submission: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(submission), str(truth), "--protocol", "luna16"]
    assert main([*arguments, "--json", str(truth / "out.json")]) == 0
    assert "92.86" in capsys.readouterr().out
    assert json.loads((truth / "out.json").read_text()) == evaluate_luna16(submission, truth)
    for option in (["--strict"], ["--by", "size"], ["--others", "fp"], ["--first-slice", "0"]):
        assert main([*arguments, *option]) == 2
        assert f"{option[0]} is not part of the LUNA16 rules" in capsys.readouterr().err


def test_published_answer_for_a_real_detector(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "luna16" / "eval_example"
    for path in source.glob("*.csv*"):
        if path.suffix == ".gz":
            with gzip.open(path) as packed, (tmp_path / path.stem).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        else:
            shutil.copy(path, tmp_path)
    result = evaluate_luna16(tmp_path / "submission.csv", tmp_path)
    expected = json.loads((source / "expected.json").read_text())
    assert result["sensitivity"] == pytest.approx(expected["sensitivity"], abs=1e-6)
    assert result["average"] == pytest.approx(expected["mean_sensitivity"], abs=1e-6)
    counts = expected["counts"]
    assert result["num_found"] == counts["True positives"]
    assert result["num_false_positives"] == counts["False positives"]
    assert result["num_detections"] == counts["Total number of candidates"]
    assert result["num_lesions"] == counts["Total number of nodules"]
    aside = [value for name, value in counts.items() if name.startswith("Ignored")]
    assert result["num_set_aside"] == sum(aside)


def test_ids_that_are_none_of_the_scans_are_refused(truth: Path, submission: Path) -> None:
    submission.write_text(MARK + "1.2.11,1,0,0,0.9\n1.2.22,1,0,0,0.8\n")
    message = r"none of its scans \('1.2.11', ...\) is in .*seriesuids.csv \('1.2.1', ...\); .*; did you mean '1.2.1'"
    with pytest.raises(InputError, match=message):
        evaluate_luna16(submission, truth)


def test_one_scan_is_not_resampled(truth: Path, submission: Path) -> None:
    (truth / "seriesuids.csv").write_text("1.2.1\n")
    result = evaluate_luna16(submission, truth, bootstrap=10)
    assert "interval" not in result and result["num_lesions"] == 1
    assert "note: no interval: 1 scan, and a bootstrap over scans needs at least 2" in format_table(result)
