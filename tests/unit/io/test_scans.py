"""The scans that inputs hold: which are found, which are meant, what their results are called."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.fileset import FileSet

from mmpluld.errors import InputError
from mmpluld.inference.formats import output_names
from mmpluld.io import archives as archives_module
from mmpluld.io import read_scan, read_volume
from mmpluld.io.readers import VOLUME_SUFFIXES
from mmpluld.io.scan_choice import SeveralSeriesError, choose_scans, result_names, safe_name
from mmpluld.io.scans import ScanReader, find_scans

_AFFINE = np.diag([1.0, 1.0, 2.5, 1.0])
_HU = np.full((16, 14, 4), -1000)
_HU[2:14, 2:12] = -100
_HU[4:12, 4:10] = 50
_HU = (_HU + np.random.default_rng(1).normal(0, 8, _HU.shape)).clip(-1024, 2000).astype(np.int16)
_VOXELS = _HU.transpose()[::-1]


@pytest.fixture
def patient(tmp_path, write_dicom_series):
    """A folder with two series of one patient."""
    for number, kernel in ((1, "B30f"), (2, "B70f")):
        tags = {"SeriesNumber": number, "ConvolutionKernel": kernel, "PatientID": "P", "SeriesDescription": "x[/]"}
        write_dicom_series(tmp_path / f"P/s{number}", _HU, _AFFINE, series=f"1.2.{number}", **tags)
    return tmp_path / "P"


def _found(*inputs, series=None, out=None):
    with ScanReader() as reader:
        scans = find_scans(inputs, reader, series, out)
        return scans, [None if scan.fault else reader.read(scan) for scan in scans]


def _unread(*inputs):
    with ScanReader() as reader:
        return find_scans(inputs, reader)


def _write_nifti(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(_HU.transpose())
    image.SetSpacing((1, 1, 2.5))
    SimpleITK.WriteImage(image, str(path))
    return path


def _zip(path: Path, *files: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, f"{file.parent.name}/{file.name}")
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


# -------------------------------------------------------------------------------------------------- what is found
def test_every_kind_of_input_gives_the_same_voxels(patient, tmp_path):
    slices = sorted((patient / "s1").iterdir())
    nifti = _write_nifti(tmp_path / "ct.nii.gz")
    tree = tmp_path / "tree"
    _write_nifti(tree / "a/ct.nii.gz")
    _write_nifti(tree / "b/ct.nrrd")
    inputs = [nifti, patient, _zip(tmp_path / "dicom.zip", *slices), _zip(tmp_path / "ct.zip", nifti), tree]
    scans, volumes = _found(*inputs)
    assert [scan.given.name for scan in scans] == ["ct.nii.gz", "P", "P", "dicom.zip", "ct.zip", "tree", "tree"]
    for volume in volumes:
        np.testing.assert_array_equal(volume.array, _VOXELS)
    assert volumes[3].source == str(tmp_path / "dicom.zip")
    assert volumes[4].source == f"{tmp_path}/ct.zip/{tmp_path.name}/ct.nii.gz"
    names = result_names(scans)
    assert names[0].startswith("ct-") and names[3:4] == ["dicom"] and len(set(names)) == 7
    assert all(name.startswith("P-") for name in names[1:3])  # no name of a subfolder
    assert result_names(scans, paths=True)[1:3] == ["s1", "s2"]
    assert result_names(scans[:1]) == ["ct"]
    reordered, _ = _found(*inputs[::-1])
    assert set(result_names(reordered)) == set(names)
    copied = shutil.copytree(tree, tmp_path / "copy")
    both, _ = _found(tree, copied)
    reordered, _ = _found(copied, tree)
    ways = [
        {(scan.given, scan.inner): name for scan, name in zip(scans, result_names(scans), strict=True)}
        for scans in (both, reordered)
    ]
    assert ways[0] == ways[1]  # a call with inputs the other way round may not mix two patients up


def test_read_scan_removes_what_it_unpacked(patient, tmp_path, monkeypatch):
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    archive = _zip(tmp_path / "dicom.zip", *sorted(patient.glob("s*/*")))
    np.testing.assert_array_equal(read_scan(archive, "2").array, _VOXELS)
    with pytest.raises(InputError, match=r"dicom.zip: 2 CT series of one patient: 1.2.1 \(4 files\)"):
        read_scan(archive)
    with pytest.raises(InputError, match="holds 2 scans"):
        read_scan(archive, "all")
    assert not list((tmp_path / "t").iterdir())


def test_files_beside_scans(patient, tmp_path, capfd):
    """Links in circles, macOS's companions, archives, and the output folder itself."""
    (patient / "again").symlink_to(patient)
    (patient / "._ct.nii.gz").write_bytes(b"x" * 300)
    _zip(patient / "more.zip", a=b"b")
    _write_nifti(patient / "out/boxes.nii.gz")
    scans, _ = _found(patient, patient, out=patient / "out")
    assert [scan.series for scan in scans] == ["1.2.1", "1.2.2"]
    told = capfd.readouterr().err
    assert "1 zip archive in it not looked into (more.zip); give it as an input" in told
    assert "is given twice, examined once" in told
    with pytest.raises(InputError, match=r"lies in the output folder .*; give another output folder"):
        _found(patient / "out/boxes.nii.gz", out=patient / "out")


def test_earlier_results_are_no_scans(tmp_path, capfd):
    """So a scan has one number, whether an output folder is given, as to `detect`, or not, as with its --list."""
    for name in ("ct1", "ct2"):
        _write_nifti(tmp_path / f"in/{name}.nii.gz")
        _write_nifti(tmp_path / f"in/a_many/{name}/boxes.nii.gz")
    (tmp_path / "in/a_many/detect.json").write_text("{}")
    volumes = [name for name in output_names() if name.lower().endswith(VOLUME_SUFFIXES)]
    for name in volumes:
        _write_nifti(tmp_path / "in/a_one" / name)
    for name in {*output_names()} - {*volumes}:
        (tmp_path / "in/a_one" / name).write_text("{}")
    for out in (None, tmp_path / "in/a_many", tmp_path / "in/a_one"):
        scans, _ = _found(tmp_path / "in", out=out)
        assert [scan.inner for scan in scans] == ["ct1.nii.gz", "ct2.nii.gz"]
        left_out = {"a_many", *(f"a_one/{name}" for name in volumes)}
        wanted = sorted(name for name in left_out if out is None or not name.startswith(out.name))
        assert f"in: earlier results in it left out: {', '.join(wanted)}\n" in capfd.readouterr().err
    (scan,), _ = _found(tmp_path / "in/a_one")
    assert "a_one: no CT image among its files" in scan.fault


def test_what_is_wrong_with_one_input_is_no_matter_to_the_others(patient, tmp_path, write_dicom_series):
    damaged = write_dicom_series(tmp_path / "P/s3", _HU, _AFFINE, series="1.2.3")
    for file in damaged:
        file.write_bytes(file.read_bytes()[:300])
    (tmp_path / "empty").mkdir()
    inputs = [tmp_path / "gone.nii", patient, tmp_path / "empty", sorted((patient / "s1").iterdir())[0]]
    scans, _ = _found(*inputs)
    faults = [scan.fault for scan in scans]
    assert "no such file or folder; give a CT scan (.nii.gz" in faults[0]
    assert faults[1:3] == ["", ""]
    assert "s3/IM0000: holds no SeriesInstanceUID, and 3 more such files, and no image of its series" in faults[3]
    assert "the folder is empty" in faults[4]
    assert "unknown file type" in faults[5]


@pytest.fixture
def find_closed():
    """Function that finds and reads the scans of a copy of a folder, in which what a pattern names has other rights."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no such rights on this system")
    place, user = Path(tempfile.mkdtemp(prefix="scans-")), os.geteuid()

    def find(source: Path, closed: str, rights: int):
        root = Path(shutil.copytree(source, place / source.name))
        for item in (place, root, *root.rglob("*")):
            item.chmod(0o755)
        shut = list(root.glob(closed))
        for item in shut:
            item.chmod(rights)
        try:
            if user == 0:  # whom no rights stop
                os.seteuid(65534)
            return _found(root)
        finally:
            os.seteuid(user)
            for item in shut:
                item.chmod(0o755)

    yield find
    shutil.rmtree(place)


@pytest.mark.parametrize("rights", [0, 0o444])
def test_a_folder_that_may_not_be_opened_stops_no_other_scan(find_closed, patient, rights):
    for name in ("a", "b", "closed/c"):
        _write_nifti(patient / f"{name}.nii.gz")
    shutil.rmtree(patient / "s2")
    (*scans, refused), (*volumes, _) = find_closed(patient, "closed", rights)
    assert [scan.inner for scan in scans] == ["a.nii.gz", "b.nii.gz", "s1"]
    for volume in volumes:
        np.testing.assert_array_equal(volume.array, _VOXELS)
    message = "P/closed/: the folder cannot be opened (Permission denied); allow reading it, slices may be in it"
    assert refused.fault.endswith(message) and refused.inner == "closed"


@pytest.mark.parametrize("closed", ["s2", "s1/more"])
def test_a_folder_that_may_not_be_opened_may_hold_slices_of_a_series(find_closed, patient, closed):
    """A like one beside it, or one amid its files: then the series is refused, and a volume file is not."""
    _write_nifti(patient / "a.nii.gz")
    shutil.rmtree(patient / "s2")
    (patient / closed).mkdir()
    (file, series), (volume, _) = find_closed(patient, closed, 0)
    assert (file.fault, series.inner) == ("", "s1") and volume is not None
    assert f"P/{closed}/: the folder cannot be opened" in series.fault


def test_nothing_but_a_folder_that_may_not_be_opened(find_closed, patient):
    shutil.rmtree(patient / "s1")
    (scan,), _ = find_closed(patient, "s2", 0)
    assert "P/s2/: the folder cannot be opened (Permission denied)" in scan.fault


def test_slices_that_may_not_be_opened_are_no_scan_passed_over(find_closed, patient, write_dicom_series):
    write_dicom_series(patient / "s3", _HU, _AFFINE, series="1.2.3")
    (*scans, refused), (*volumes, _) = find_closed(patient, "s3/*", 0)
    assert [scan.inner for scan in scans] == ["s1", "s2"]
    assert not any(volume is None for volume in volumes)
    assert "P/s3/IM0000: cannot be opened (Permission denied), and 3 more such files, and no image" in refused.fault


@pytest.mark.parametrize(("name", "is_one"), [("IM0000", True), ("a.dcm", True), ("DONE", False), ("._IM0000", False)])
def test_an_empty_file_is_a_lost_series_if_it_is_called_like_a_slice(patient, name, is_one):
    (patient / "s3").mkdir()
    (patient / "s3" / name).touch()
    scans, _ = _found(patient)
    assert [scan.inner for scan in scans] == ["s1", "s2", *(["s3"] if is_one else [])]
    assert [f"s3/{name}: is empty, and no image" in scan.fault for scan in scans] == [False, False, *([True] * is_one)]


def test_a_damaged_slice_stays_with_its_series(patient):
    file = sorted((patient / "s1").iterdir())[0]
    file.write_bytes(file.read_bytes()[:300])
    with ScanReader() as reader:
        one, two = find_scans([patient], reader)
        np.testing.assert_array_equal(reader.read(two).array, _VOXELS)
        with pytest.raises(InputError, match=f"{file.name}: holds no SeriesInstanceUID; it may be a slice"):
            reader.read(one)
    assert one.digest != two.digest


def test_another_scan_of_the_same_name_and_size_has_another_digest(tmp_path, write_dicom_series):
    """So that its result is not taken for done; where the data lie does not matter."""
    places = [tmp_path / name for name in "abc"]
    for place, change in zip(places, (0, 0, 1), strict=True):
        for name in ("ct.nii", "ct.mhd"):
            file = _write_nifti(place / name)
        for file in (place / "ct.nii", place / "ct.raw"):
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= change
            file.write_bytes(content)
        write_dicom_series(place / "P", _HU + change, _AFFINE, series="1.2.3")
    with ScanReader() as reader:
        found = [find_scans([place], reader) for place in places]
    one, copy, other = ([scan.digest for scan in scans] for scans in found)
    assert one == copy and len(one) == 3
    assert all(digest != before for digest, before in zip(other, one, strict=True))


# ------------------------------------------------------------------------------------------------------- DICOMDIR
@pytest.fixture
def medium(patient, tmp_path):
    """A folder with a DICOMDIR and the files of one series, which have other names."""
    files = FileSet()
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in sorted((patient / "s1").iterdir()):
            dataset = pydicom.dcmread(file)
            dataset.StudyInstanceUID, dataset.StudyDate, dataset.StudyTime, dataset.StudyID = (
                "1.9",
                "20200101",
                "1",
                "1",
            )
            dataset.PatientName, dataset.InstanceNumber = "Doe^John", int(dataset.SOPInstanceUID.split(".")[-1])
            files.add(dataset)
        files.write(tmp_path / "cd")
    return tmp_path / "cd"


def test_dicomdir(medium):
    for given in (medium, medium / "DICOMDIR"):
        (scan,), (volume,) = _found(given)
        assert (scan.title, volume.history[0]) == ("cd", "DICOM series of 4 slices")
        np.testing.assert_array_equal(volume.array, _VOXELS)
    # Copies of media often have small letters.
    for folder, _, names in os.walk(medium, topdown=False):
        for name in names:
            Path(folder, name).rename(Path(folder, name.lower()))
        if Path(folder) != medium:
            Path(folder).rename(Path(folder).with_name(Path(folder).name.lower()))
    _, (volume,) = _found(medium / "dicomdir")
    np.testing.assert_array_equal(volume.array, _VOXELS)


def test_a_file_that_dicomdir_names_and_that_is_gone(medium):
    """An end of the scan is missing, which nothing else would tell."""
    last = max(
        (file for file in medium.rglob("*") if file.is_file() and file.name != "DICOMDIR"),
        key=lambda file: float(read_position(file)),
    )
    last.unlink()
    message = rf"{last.name}: is missing, though a DICOMDIR names it; it may be a slice"
    for given in (medium, medium / "DICOMDIR"):
        with pytest.raises(InputError, match=message), ScanReader() as reader:
            reader.read(find_scans([given], reader)[0])
    with pytest.raises(InputError, match=message):
        read_volume(medium)


def read_position(file: Path) -> float:
    import pydicom

    return float(pydicom.dcmread(file).ImagePositionPatient[2])


def test_odd_dicomdirs(medium, tmp_path):
    content = (medium / "DICOMDIR").read_bytes()
    at = content.index(b"PT000000")
    (medium / "DICOMDIR").write_bytes(content[:at] + b"..\\..\\..\\"[:8] + content[at + 8 :])
    (scan,), _ = _found(medium / "DICOMDIR")
    assert "which is outside of its folder; give the folder of the series" in scan.fault
    (scan,), (volume,) = _found(medium)  # its own files tell what they are
    assert any("DICOMDIR not used, which could have told of missing files" in line for line in volume.history)
    assert not any(tmp_path.name in line for line in volume.history)  # a report has no paths
    for damaged in (content[:1000], content[:-50], b"", b"x" * 500):
        (medium / "DICOMDIR").write_bytes(damaged)
        (scan,), _ = _found(medium / "DICOMDIR")
        assert scan.fault and "\n" not in scan.fault


# ------------------------------------------------------------------------------------------------------- archives
@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "C:/x", "a\\..\\x"])
def test_a_member_outside_of_its_archive(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = name
        archive.writestr(info, b"x")
    (scan,), _ = _found(tmp_path / "bad.zip")
    assert "which would lie outside of it; unpack it yourself and give the folder" in scan.fault
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]


def test_archives_that_are_refused(tmp_path, monkeypatch):
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    _zip(tmp_path / "none.zip")
    _zip(tmp_path / "text.zip", a=b"text")
    bomb = _zip(tmp_path / "bomb.zip", a=bytes(5 << 20))
    locked = bytearray(_zip(tmp_path / "locked.zip", a=b"text").read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        locked[locked.index(mark) + place] |= 1
    (tmp_path / "locked.zip").write_bytes(locked)
    (tmp_path / "cut.zip").write_bytes(bomb.read_bytes()[:-30])
    (tmp_path / "no.zip").write_bytes(b"no archive")
    damaged = bytearray(_zip(tmp_path / "crc.zip", a=b"text" * 99).read_bytes())
    damaged[40] ^= 255
    (tmp_path / "crc.zip").write_bytes(damaged)
    monkeypatch.setattr(archives_module, "MOST_BYTES", 4 << 20)
    expected = {
        "link": "holds 'link.dcm', which is a link or a device",
        "none": "the archive is empty",
        "text": "no CT image among its files (found 1 not DICOM)",
        "bomb": "allowed are 0 GiB",
        "locked": "is encrypted",
        "cut": "cannot be read as a zip archive",
        "no": "cannot be read as a zip archive",
        "crc": "cannot be read as a zip archive",
    }
    scans, _ = _found(*(tmp_path / f"{name}.zip" for name in expected))
    for scan, (name, text) in zip(scans, expected.items(), strict=True):
        assert scan.fault.startswith(f"{tmp_path / name}.zip: ") and text in scan.fault and "\n" not in scan.fault


# --------------------------------------------------------------------------------------------------- what is meant
def test_choice_among_series_of_one_patient(patient, capfd):
    scans, _ = _found(patient)
    assert (scans[0].facts.interval_mm, scans[0].facts.images, scans[0].facts.size) == (2.5, 4, ("16", "14"))
    assert scans[0].facts.description == "x[/]"
    several = "2 CT series of one patient: .*; choose one with --series NUMBER or UID, or take each scan with"
    with pytest.raises(SeveralSeriesError, match=several) as caught:
        choose_scans(scans)
    assert caught.value.scans == scans
    for series, wanted in (("2", ["1.2.2"]), ("1.2.1", ["1.2.1"]), ("all", ["1.2.1", "1.2.2"])):
        assert [scan.series for scan in choose_scans(scans, series)] == wanted
    by_kernel, _ = _found(patient, series="ConvolutionKernel=B70f")
    (scan,) = choose_scans(by_kernel, "ConvolutionKernel=B70f")
    assert scan.series == "1.2.2:ConvolutionKernel=B70f"
    # A second call with another choice never takes the first one's result for its own.
    choices = ("1.2.1", "1.2.2", "1.2.2:ConvolutionKernel=B70f", "1.2.2:ConvolutionKernel=B30f", "1.2.2:KVP=1")
    one_by_one = [result_names(choose_scans(scans, choice))[0] for choice in choices]
    assert len(set(one_by_one)) == 5 and result_names(scans) == one_by_one[:2]
    named = [result_names(choose_scans(scans, choice), paths=True)[0] for choice in choices]
    assert named[:2] == ["s1", "s2"] and len(set(named)) == 5
    first, second = (result_names(choose_scans(scans, f"1.2.2:{pair}")) for pair in ("KVP=1:Rows=2", "Rows=2:KVP=1"))
    assert first == second
    for series, message in (
        ("3", "is no number from 1 to 2, as the scans have; see --list"),
        ("0", "is no number from 1 to 2"),
        ("1.2.3", "no CT series '1.2.3'; there are 1.2.1, 1.2.2"),
    ):
        with pytest.raises(InputError, match=message):
            choose_scans(scans, series)
    none, _ = _found(patient, series="ConvolutionKernel=B50f")
    with pytest.raises(InputError, match="no series has an image with ConvolutionKernel=B50f; see --list"):
        choose_scans(none, "ConvolutionKernel=B50f")


def test_the_only_volume_is_taken_and_said(patient, write_dicom_series, capfd):
    for file in sorted((patient / "s1").iterdir())[2:]:
        file.unlink()  # a topogram of two images
    scans, _ = _found(patient)
    assert [scan.series for scan in choose_scans(scans)] == ["1.2.2"]
    assert "series 2 of 2 taken; the others have images at fewer than three places" in capfd.readouterr().err
    _write_nifti(patient / "seg.nii.gz")
    scans, _ = _found(patient)
    assert [scan.series for scan in choose_scans(scans)] == [None, "1.2.2"]
    assert "series 3 of 3 taken; the other series have images at fewer" in capfd.readouterr().err


@pytest.mark.parametrize("fault", ["no position", "flat", "frames", "cut off"])
def test_a_series_is_left_out_only_if_its_places_are_known(patient, write_dicom_series, fault):
    files = sorted((patient / "s1").iterdir())
    if fault == "frames":  # Enhanced CT: a file of many slices, whose positions are told elsewhere
        shutil.rmtree(patient / "s1")
        tags = {"NumberOfFrames": 300, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1", "PatientID": "P"}
        write_dicom_series(patient / "s1", _HU[:, :, :1], _AFFINE, series="1.2.1", ImagePositionPatient=None, **tags)
    elif fault == "cut off":
        for file in files[2:]:
            file.write_bytes(file.read_bytes()[:300])
    else:
        name, value = {
            "no position": ("ImagePositionPatient", None),
            "flat": ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        }[fault]
        header = pydicom.dcmread(files[0])
        setattr(header, name, value)
        header.save_as(files[0])
    scans = _unread(patient)
    with pytest.raises(SeveralSeriesError, match=r"2 CT series of one patient: 1.2.1 \([124] files?\), 1.2.2"):
        choose_scans(scans)
    for file in sorted((patient / "s2").iterdir())[2:]:
        file.unlink()  # beside a topogram it is taken, and refused by its reader
    (scan,) = choose_scans(_unread(patient))
    assert scan.series == "1.2.1"


@pytest.mark.parametrize("choice", ["1.2.2", "ConvolutionKernel=B70f"])
def test_no_input_is_passed_over_in_silence_when_a_series_is_chosen(choice, patient, tmp_path, capfd):
    """What cannot be read stays, to be refused; of what has no such series a note tells."""
    _write_nifti(tmp_path / "ct.nii.gz")
    damaged = shutil.copytree(patient / "s1", tmp_path / "damaged")
    for file in damaged.iterdir():
        file.write_bytes(file.read_bytes()[:300])  # its UID is left, its kernel is not
    inputs = [tmp_path / "gone.nii.gz", tmp_path / "ct.nii.gz", patient, damaged]
    with ScanReader() as reader:
        chosen = choose_scans(find_scans(inputs, reader, choice), choice)
    may_fit = [damaged] if "=" in choice else []
    assert [scan.given for scan in chosen] == [patient, tmp_path / "gone.nii.gz", *may_fit]
    told = capfd.readouterr().err
    assert f"{tmp_path / 'ct.nii.gz'}: left out, has no DICOM series that fits --series {choice}" in told
    assert "gone" not in told and f"{patient}:" not in told
    assert (f"{damaged}: left out" in told) == (not may_fit)


def test_what_lies_beside_the_series_of_a_patient_does_not_choose(patient, write_dicom_series):
    _write_nifti(patient / "seg.nii.gz")
    for file in write_dicom_series(patient / "s3", _HU, _AFFINE, series="1.2.3"):
        file.write_bytes(file.read_bytes()[:300])  # a series of which nothing can be read
    scans, _ = _found(patient)
    assert len(scans) == 4 and choose_scans(scans, "all") == scans
    with pytest.raises(SeveralSeriesError, match=r"2 CT series of one patient: 1.2.1 \(4 files\), 1.2.2"):
        choose_scans(scans)


def test_series_of_several_patients_are_all_taken(patient, tmp_path, write_dicom_series):
    write_dicom_series(patient / "other", _HU, _AFFINE, series="1.2.7", PatientID="Q")
    scans, _ = _found(patient)
    assert choose_scans(scans) == scans


def test_a_number_does_not_hide_what_is_wrong(tmp_path):
    scans, _ = _found(tmp_path / "gone")
    with pytest.raises(InputError, match="gone: no such file or folder"):
        choose_scans(scans, "7")


def test_no_series_of_a_file(tmp_path):
    scans, _ = _found(_write_nifti(tmp_path / "ct.nii"))
    with pytest.raises(InputError, match="has no DICOM series, so '1.2' cannot be chosen; leave --series out"):
        choose_scans(scans, "1.2")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc", "_.._etc"),
        ("a/b\\c:d", "a_b_c_d"),
        (".hidden", "hidden"),
        ("=1+1", "1+1"),
        ("\x1b[31m\n", "x1b_31m"),
        (os.fsdecode(b"\xbb 1"), "xbb_1"),
        ("", "scan"),
        ("é" * 99, "é" * 40),
    ],
)
def test_names_are_safe(text, name):
    assert safe_name(text) == name


def test_names_that_are_taken_or_alike(tmp_path):
    files = [_write_nifti(tmp_path / place) for place in ("a/CT.nii", "b/ct.nii", "summary.csv.nii")]
    scans, _ = _found(*files)
    names = result_names(scans, ("summary.csv",))
    assert len({name.casefold() for name in names}) == 3
    assert names[2].startswith("summary.csv-")
