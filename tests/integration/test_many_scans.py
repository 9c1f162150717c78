"""``mmpluld detect`` in many scans: results, table, what is refused, what a second call does."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mmpluld import outputs
from mmpluld.cli import scan_table
from mmpluld.cli.main import main
from mmpluld.errors import InputError, NoMemoryError, NoRoomError
from mmpluld.inference import Detector, many_scans
from mmpluld.inference.formats import output_names
from mmpluld.inference.many_scans import _public
from mmpluld.inference.output import output_folder
from mmpluld.inference.scan_store import Row, ScanStore
from mmpluld.io.scans import Scan
from mmpluld.structures import DetectionSet
from mmpluld.version import __version__

_HU = np.full((24, 20, 5), -1000)
_HU[2:22, 2:18] = -100
_HU[5:19, 5:15] = 50
_HU = (_HU + np.random.default_rng(0).normal(0, 8, _HU.shape)).clip(-1024, 2000).astype(np.int16)
_AFFINE = np.diag([1.5, 1.5, 3.0, 1.0])


@pytest.fixture(scope="module")
def root(tmp_path_factory, write_dicom_series):
    """Two patients with a series each, and one whose series lacks a slice."""
    folder = tmp_path_factory.mktemp("many") / "in"
    for name in ("Doe_A", "Doe_B", "Doe_C"):
        uid = f"1.2.840.113619.2.{ord(name[-1])}"
        files = write_dicom_series(folder / name / "ct", _HU, _AFFINE, series=uid, PatientID=name)
    files[2].unlink()
    return folder


@pytest.fixture(scope="module")
def done(root):
    """The folder after a first call, and its exit status."""
    out = root.parent / "out"
    return out, _detect(root, out)


def _detect(*words, threshold="0.02"):
    *inputs, out = map(str, words)
    model = ["--model", "pluld-a3d_densenet121-fpn_7s_phantom", "--max-boxes", "2"]
    return main(["detect", *inputs, "--out", out, "--score-thr", threshold, *model])


def _rows(out):
    with (out / "summary.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_results_and_table(root, done):
    out, status = done
    assert status == 2
    rows = _rows(out)
    assert sorted(row["status"] for row in rows) == ["done", "done", "refused"]
    folders = {path.name: path for path in out.iterdir() if path.is_dir()}
    assert folders.keys() == {row["scan"] for row in rows if row["status"] == "done"}
    for row in rows:
        assert row["scan"].startswith("in-")
        if row["status"] == "refused":
            assert row["message"].startswith(f"{row['scan']}: slices are missing between IM")
            continue
        record = json.loads((folders[row["scan"]] / "detections.json").read_text())["volumes"][row["scan"]]
        assert int(row["findings"]) == len(record["boxes"]) > 0
        assert float(row["best_score"]) == pytest.approx(max(record["scores"]), abs=1e-4)
        assert (folders[row["scan"]] / "report.html").exists()
    record = json.loads((out / "detections.json").read_text())["volumes"]
    assert record == {
        name: json.loads((folder / "detections.json").read_text())["volumes"][name] for name, folder in folders.items()
    }
    with (out / "findings.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["scan"] for row in table] == [name for name in sorted(record) for _ in record[name]["boxes"]]
    scores = [score for name in sorted(record) for score in record[name]["scores"]]
    assert [float(row["score"]) for row in table] == pytest.approx(scores, abs=1e-6)
    texts = [path.read_text(encoding="utf-8") for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
    assert not any(secret in text for text in texts for secret in ("Doe", "1.2.840.113619", str(root.parent)))


def test_all_are_evaluated_at_once(done, tmp_path, capsys):
    """Against the first finding of each as truth."""
    record = DetectionSet.load(done[0] / "detections.json")
    truth = {name: {"boxes": found.boxes[:1].tolist()} for name, found in record.volumes.items()}
    for name, found in record.volumes.items():
        geometry = {"frame": found.frame, "shape": found.shape, "affine_lps": found.affine_lps.tolist()}
        truth[name] |= {"world_lps": found.world_lps[:1].tolist(), "spacing_mm": found.spacing_mm, **geometry}
    files = str(done[0] / "detections.json"), str(tmp_path / "truth.json")
    Path(files[1]).write_text(json.dumps({"schema": "mmpluld.detections/1", "volumes": truth}))
    assert main(["evaluate", *files, "--protocol", "lens-3d"]) == 0
    count = sum(len(found.boxes) for found in record.volumes.values())
    assert f"2 lesions, {count} detections, 2 volumes" in capsys.readouterr().out


def test_a_second_call_does_what_is_missing(root, done, capfd, write_dicom_series):
    out = root.parent / "again"
    shutil.copytree(done[0], out)
    kept, lost = (row for row in _rows(out) if row["status"] == "done")
    (out / lost["scan"] / "findings.csv").unlink()
    before = (out / kept["scan"] / "report.html").stat().st_mtime_ns
    assert _detect(root, out) == 2
    told = capfd.readouterr().out
    assert "1 of 3 scans done before" in told and "[2/2]" in told and "2 of 3 scans done, 1 refused" in told
    assert (out / kept["scan"] / "report.html").stat().st_mtime_ns == before
    for name in ("summary.csv", "detections.json", "findings.csv", f"{lost['scan']}/findings.csv"):
        assert (out / name).read_bytes() == (done[0] / name).read_bytes()

    assert _detect(root, out, threshold="0.5") == 2  # other settings
    assert "were made with rules" in capfd.readouterr().err
    assert main(["detect", str(root), "-o", str(out), "--score-thr", "0.5", "--overwrite"]) == 2
    assert (out / "summary.csv").read_bytes() != (done[0] / "summary.csv").read_bytes()


def _scans(folder, *names):
    """Volume files of one content that lie below a folder."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(_HU + np.int16(number), np.diag([-1.0, -1, 1, 1]) @ _AFFINE)
        nib.save(image, folder / name)


def test_scans_of_one_name_from_several_folders_keep_a_result_each(tmp_path, capfd):
    _scans(tmp_path, "s1/a/ct.nii", "s1/b/other.nii", "s2/ct.nii", "s2/b/other.nii", "s1/c/ct.nii")
    (tmp_path / "s1/c/ct.nii").rename(tmp_path / "later.nii")
    out = tmp_path / "out"
    assert _detect(tmp_path / "s1", out) == 0
    first = {row["scan"]: row for row in _rows(out)}
    assert sorted(first) == ["ct", "other"]

    assert _detect(tmp_path / "s2", out) == 0
    told = capfd.readouterr()
    new = sorted({row["scan"] for row in _rows(out)} - first.keys())
    assert [name[:-8] for name in new] == ["ct-", "other-"]
    assert f"s2/ct.nii: its result is {new[0]}, since ct is that of another scan" in told.err
    assert [row for row in _rows(out) if row["scan"] in first] == list(first.values())

    # With another ct beside it, each keeps the name that it has, and is not examined again.
    (tmp_path / "s1/c").mkdir(exist_ok=True)
    (tmp_path / "later.nii").rename(tmp_path / "s1/c/ct.nii")
    assert _detect(tmp_path / "s1", tmp_path / "s2", out) == 0
    assert "4 of 5 scans done before" in capfd.readouterr().out
    rows = {row["scan"]: row for row in _rows(out)}
    assert len(rows) == 5 and len({row["place_digest"] for row in rows.values()}) == 5
    assert {name: rows[name] for name in first} == first
    record = json.loads((out / "detections.json").read_text())["volumes"]
    assert record.keys() == rows.keys()


def test_copies_of_one_series_keep_a_result_each(root, tmp_path, capfd):
    shutil.copytree(root / "Doe_A", tmp_path / "in/copy/a")
    shutil.copytree(root / "Doe_B", tmp_path / "in/copy/b")
    out = tmp_path / "out"
    assert _detect(root / "Doe_A", root / "Doe_B", out) == 0
    for done_before in (2, 4, 4):
        assert _detect(tmp_path / "in", root / "Doe_A", root / "Doe_B", out) == 0
        assert f"{done_before} of 4 scans done before" in capfd.readouterr().out
        assert len(_rows(out)) == 4


def test_a_scan_that_moved_keeps_its_result_and_one_that_changed_gets_another(tmp_path, capfd):
    _scans(tmp_path, "in/x.nii", "in/y.nii")
    out = tmp_path / "out"
    assert _detect(tmp_path / "in", out) == 0
    (tmp_path / "in").rename(tmp_path / "archive")
    assert _detect(tmp_path / "archive", out) == 0
    assert "2 of 2 scans done before" in capfd.readouterr().out
    _scans(tmp_path, "in/y.nii", "in/x.nii")  # back at the first place, with other content
    assert _detect(tmp_path / "in", out) == 0
    told = capfd.readouterr().out
    assert "done before" not in told and told.count("; the scan has changed since its earlier result") == 2
    assert sorted(row["scan"] for row in _rows(out)) == ["x", "y"]


def test_one_scan_keeps_its_folder_and_nothing_else_is_taken(root, done, tmp_path, capfd):
    assert _detect(root / "Doe_A", tmp_path / "one") == 0
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "detections.json", "findings.csv", "report.html",
    ]  # fmt: skip
    assert _detect(root, tmp_path / "one") == 2
    assert "holds detections.json already; give another folder, or --overwrite" in capfd.readouterr().err
    assert main(["detect", str(root), "-o", str(tmp_path / "one"), "--overwrite"]) == 2
    assert "holds detections.json of one scan, beside which" in capfd.readouterr().err
    assert len(list((tmp_path / "one").iterdir())) == 3
    assert _detect(root / "Doe_C", tmp_path / "bad") == 2
    assert not (tmp_path / "bad").exists()
    assert _detect(root / "Doe_C", root / "gone.nii", tmp_path / "bad") == 2  # one may be read after all
    assert {row["status"] for row in _rows(tmp_path / "bad")} == {"refused"}
    assert _detect(tmp_path / "no.nii", root / "gone.nii", tmp_path / "none") == 2
    assert "(and 1 more inputs are refused)" in capfd.readouterr().err
    assert not (tmp_path / "none").exists()


def test_what_fails_is_told_apart_from_what_is_refused(root, tmp_path, monkeypatch, capfd):
    def fail(self, volume, name, formats=(), place=None):
        raise RuntimeError("out of\nmemory")

    asked, plain = [], many_scans.ScanReader.read

    def read(self, scan, units=None):
        asked.append(scan.inner)
        if asked == ["Doe_A/ct", "Doe_B/ct"]:  # read beside another one
            raise NoMemoryError("in: does not fit into the memory that is free")
        return plain(self, scan, units)

    monkeypatch.setattr(many_scans.ScanReader, "read", read)
    monkeypatch.setattr(many_scans.Detector, "examine", fail)
    assert _detect(root, tmp_path / "out") == 1
    assert "1 refused, 2 failed" in capfd.readouterr().out
    assert [asked.count(f"Doe_{name}/ct") for name in "ABC"] == [1, 2, 1]  # nothing is read twice for being bad
    assert {row["message"] for row in _rows(tmp_path / "out") if row["status"] == "failed"} == {
        "RuntimeError: out of memory"
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["detect.json", "summary.csv"]


def test_notes_say_of_which_scan_they_are(tmp_path, capfd, write_dicom_series):
    """Of two patients in one folder, one has a header that contradicts its positions."""
    for name, told in (("x", None), ("y", 5)):
        tags = {} if told is None else {"SpacingBetweenSlices": told}
        write_dicom_series(tmp_path / "in" / name, _HU, _AFFINE, series=f"1.2.{ord(name)}", PatientID=name, **tags)
    assert _detect(tmp_path / "in", tmp_path / "out") == 0
    notes = [line for line in capfd.readouterr().err.splitlines() if "SpacingBetweenSlices" in line]
    assert len(notes) == 1 and notes[0].startswith(f"note: {tmp_path}/in/y: SpacingBetweenSlices says")
    list(Detector("pluld-a3d_densenet121-fpn_7s_phantom").each(tmp_path / "in"))
    assert f"note: {tmp_path}/in/y: SpacingBetweenSlices says" in capfd.readouterr().err


def test_a_full_disk_ends_the_call(root, tmp_path, monkeypatch, capfd):
    asked = []

    def fill(self, volume, name, formats=(), place=None):
        asked.append(name)
        raise NoRoomError(f"{tmp_path / 'out'}: cannot be written (No space left on device); make room")

    monkeypatch.setattr(many_scans.Detector, "examine", fill)
    assert _detect(root, tmp_path / "out") == 2
    assert "No space left on device" in capfd.readouterr().err and len(asked) == 1
    assert "begun" in {row["status"] for row in _rows(tmp_path / "out")}  # so that it is examined when there is room


def test_a_result_of_another_call_is_kept(root, done, tmp_path):
    """A folder that the table does not know is never replaced, not by a second call either."""
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    name = next(row["scan"] for row in _rows(out) if row["status"] == "done")
    table = out / "summary.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if not line.startswith(name)))
    for _ in range(2):
        assert _detect(root, out) == 2
        (row,) = (row for row in _rows(out) if row["scan"] == name)
        assert "holds detections.json already" in row["message"]


def test_a_scan_that_was_damaged_and_mended(root, done, tmp_path, capfd, monkeypatch):
    """Its earlier result is kept beside what the table says, and replaced when it can be read again."""
    scans, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(root, scans)
    shutil.copytree(done[0], out)
    image = next((scans / "Doe_A/ct").iterdir())
    content = image.read_bytes()
    image.write_bytes(content[:300])
    assert _detect(scans, out) == 2
    assert "its earlier result is kept" in capfd.readouterr().out
    (row,) = (row for row in _rows(out) if row["result"] == "earlier")
    assert row["status"] == "refused" and (out / row["scan"] / "report.html").exists()

    image.write_bytes(content)
    monkeypatch.setattr(outputs, "_PATIENCE_S", 0.0)
    with output_folder(out / row["scan"], output_names(), overwrite=True) as folder:  # another process is at it
        shutil.copytree(out / row["scan"], folder, dirs_exist_ok=True)
        assert _detect(scans, out) == 1
    told = capfd.readouterr().out
    assert "left out: " in told and "1 of 3 scans done, 1 refused, 1 left to other processes" in told
    left = next(other for other in _rows(out) if other["scan"] == row["scan"])
    assert (left["status"], left["message"], left["result"]) == ("begun", "", "earlier")  # not called bad input
    assert not (out / "detections.json").exists()  # of all, which would lack it
    assert _detect(scans, out) == 2
    assert (out / "summary.csv").read_bytes() == (done[0] / "summary.csv").read_bytes()


def test_list(root, capsys, monkeypatch):
    assert main(["detect", str(root), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("1.2.840.113619.2" in line for line in lines) == 3
    assert main(["detect", str(root), "--list", "--identifiers"]) == 0
    assert "Doe_A_ct " in capsys.readouterr().out
    monkeypatch.setattr(scan_table, "_PLAIN_WIDTH", 80)  # a narrow terminal, where UIDs would be broken into pieces
    assert main(["detect", str(root), "--list"]) == 0
    assert "1.2" not in (told := capsys.readouterr().out) and "no." in told


def test_several_series_of_one_patient_are_shown(root, tmp_path, capsys, write_dicom_series):
    for number in (1, 2):
        write_dicom_series(tmp_path / f"in/{number}", _HU, _AFFINE, series=f"1.2.{number}", SeriesDescription="[red]x")
    assert _detect(tmp_path / "in", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "[red]x" in told and "1.2.2" in told
    assert "2 CT series of one patient" in told.splitlines()[-1]
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------ the table
def test_table_is_read_as_it_is_written(tmp_path, capsys):
    store = ScanStore(tmp_path / "out")
    (tmp_path / "out").mkdir()
    store.open({"a": 1}, ["x"])
    rows = [Row("x", "done", "3", "0.5", input_digest="d"), Row("y", "refused", message='=1+1, "two"')]
    for row in rows:
        store.record(row)
    assert store.rows()["x"] == rows[0]
    assert store.rows()["y"].message == '\'=1+1, "two"'  # no formula
    header = tmp_path / "out" / "detect.json"
    header.write_text(header.read_text().replace(__version__, "0.1.0"))
    store.open({"a": 1}, ["x"])
    assert "detect.json: begun by mmpluld 0.1.0, goes on with" in capsys.readouterr().err
    assert not store.is_done("x", "d", ["gone"], store.rows())
    assert not store.is_done("x", "changed", [], store.rows()) and store.is_done("x", "d", [], store.rows())
    with pytest.raises(InputError, match="were made with a 1, not 2; give another folder, or --overwrite"):
        store.open({"a": 2}, ["x"])
    with pytest.raises(InputError, match="results of 1 scans there were made with a 1, not 2; give another folder$"):
        store.open({"a": 2}, ["x"], overwrite=True)
    store.record(Row("y", "done", "0", result="whole"))
    store.open({"a": 2}, ["x", "y"], overwrite=True)
    assert store.rows() == {"y": Row("y", "begun", result="earlier")}  # which a call that is cut off may replace later
    store.record(Row("z", "failed"))
    store.begin({"y": "1", "z": "2", "new": "3"})
    assert {name: (row.status, row.result, row.place_digest) for name, row in store.rows().items()} == {
        "y": ("begun", "earlier", "1"), "z": ("begun", "", "2"), "new": ("begun", "", "3"),
    }  # fmt: skip
    assert store.collect(["new"], ["json"]) == []  # another process may be at it
    (tmp_path / "out/summary.csv").write_text("other\n")
    with pytest.raises(InputError, match=r"summary.csv: is not as it was written; remove it"):
        store.rows()


def test_messages_for_the_table_name_nobody():
    scan = Scan(Path("/data/in"), "in", "1", "Doe/ct", ("Doe/ct/IM1", "Doe/IM2"))
    for reason, wanted in (
        ("/data/in/Doe/ct/IM1: is cut off", "IM1: is cut off"),
        ("/data/in/Doe/x/IM9: is cut off", "IM9: is cut off"),
        ("/data/in: cannot be read (/data/in is a link to /data/Doe 1.nii, which does not exist); give a scan",
         "s: cannot be read (s is a link, which does not exist); give a scan"),
        ("/data/in: cannot be read (Bad CRC-32 for file 'Doe, John/0.dcm'); it holds \"O'Neil x/1.dcm\", a link",
         "s: cannot be read (Bad CRC-32 for file '0.dcm'); it holds \"1.dcm\", a link"),
        ("/data/in: series 1.2.840.1.2.3 holds 2 parts that are not one volume, by PatientID: 'Doe' (8 slices), 'X' (8 "
         "slices); choose one with --series '1.2.840.1.2.3:PatientID=Doe'",
         "s: series UID holds 2 parts that are not one volume, by PatientID; choose one with --series"),
        ("IM1: PatientName is 'Doe^Jane', of others 'Roe; Richard'; remove it", "IM1: PatientName; remove it"),
        ("IM1: AccessionNumber is 'A123'", "IM1: AccessionNumber"),
        ("IM1: ReferringPhysicianName=House; OtherPatientIDs: 7", "IM1: ReferringPhysicianName; OtherPatientIDs"),
        ("IM1: ImageOrientationPatient is [1, 0, 0]; export it again", "IM1: ImageOrientationPatient is [1, 0, 0]; "
         "export it again"),
        ("/data/in: no image has PatientID 'Doe'; there are 'Roe' (8 slices), choose one of them",
         "s: no image has PatientID"),
    ):  # fmt: skip
        assert _public(reason, scan, "s") == wanted
    for folder in ("DOE, JOHN/CT", "ROE JANE (12345)/CT", "O'NEIL; X: 1/A  B"):
        scan = Scan(Path("/data/in"), "in", "1", folder, (f"{folder}/IM1",))
        for reason in (f"/data/in/{folder}/IM1: is cut off", f"s: {folder}/IM1 is cut off"):
            assert _public(" ".join(reason.split()), scan, "s") in ("IM1: is cut off", "s: IM1 is cut off")
    whole = Scan(Path("/data/in"), "in", "1")  # an input of which nothing is known
    told = _public("/data/in/DOE, JOHN (1)/: the folder cannot be opened", whole, "s")
    assert told == "s: the folder cannot be opened"
    medium = Scan(Path("/data/DOE, JOHN/DICOMDIR"), "DICOMDIR", "1", "A (1)", ("A (1)/IM1",))
    for reason, wanted in (
        ("/data/DOE, JOHN/A (1)/IM1: is cut off", "IM1: is cut off"),
        ("/data/DOE, JOHN/DICOMDIR: is cut off", "s: is cut off"),
    ):
        assert _public(reason, medium, "s") == wanted
    short = Scan(Path("mp"), "mp", "1")
    assert (
        _public("mp/Doe/IM1: is uneven; resample the scan in mp", short, "s")
        == "IM1: is uneven; resample the scan in s"
    )


# ---------------------------------------------------------------------------------------------- several processes
@pytest.mark.slow
def test_two_processes_share_the_scans(root, done, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mmpluld"]
    command += ["detect", str(root), "-o", str(out), "--score-thr", "0.02", "--max-boxes", "2", "--launcher", "pytorch"]
    command += ["--model", "pluld-a3d_densenet121-fpn_7s_phantom"]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    for name in ("summary.csv", "detections.json", "findings.csv"):
        assert (out / name).read_bytes() == (done[0] / name).read_bytes(), ended.stderr
    assert ended.stdout.count("[1/") == 2
    for row in _rows(out):
        if row["status"] == "done":
            for name in ("detections.json", "findings.csv"):
                assert (out / row["scan"] / name).read_bytes() == (done[0] / row["scan"] / name).read_bytes()
