"""Volume files whose header says too little, something else than the file holds, or what no memory holds."""

from __future__ import annotations

import gzip
import os
import re
import resource
import shutil
import tempfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks import fuzz
from benchmarks._apart import peak_memory_mb
from mmpluld.errors import InputError, printable
from mmpluld.io import read_volume, write_volume
from mmpluld.structures import CTVolume

ARRAY = np.random.default_rng(3).integers(-1000, 1500, (6, 5, 4)).astype(np.int16)
VOLUME = CTVolume.from_canonical(ARRAY, (2.5, 0.8, 0.7))
MHD = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 -1",
    "Offset": "1 2 3",
    "ElementSpacing": "0.7 0.8 2.5",
    "DimSize": "4 5 6",
    "ElementType": "MET_SHORT",
}
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "space dimension": None,
    "sizes": "4 5 6",
    "space directions": "(0.7,0,0) (0,0.8,0) (0,0,-2.5)",
    "space origin": "(1,2,3)",
    "endian": "little",
    "encoding": "raw",
}


def _mhd(path, data="LOCAL", following=(), voxels=None, **changes):
    """Write a MetaImage header; a change to None leaves the field out."""
    fields = {key: value for key, value in {**MHD, **changes}.items() if value is not None}
    lines = [*(f"{key} = {value}" for key, value in fields.items()), f"ElementDataFile = {data}", *following]
    raw = ARRAY.tobytes() if voxels is None else voxels
    path.write_bytes(os.fsencode("\n".join(lines) + "\n") + (raw if data == "LOCAL" else b""))
    return path


def _nrrd(path, data=None, following=(), voxels=None, **changes):
    fields = {key: value for key, value in {**NRRD, **changes}.items() if value is not None}
    lines = ["NRRD0005", *(f"{key}: {value}" for key, value in fields.items())]
    lines += [f"data file: {data}", *following] if data else [""]
    raw = ARRAY.tobytes() if voxels is None else voxels
    path.write_bytes(os.fsencode("\n".join(lines) + "\n") + (b"" if data else raw))
    return path


def _nifti(path, change=None, affine=None):
    image = nib.Nifti1Image(ARRAY.transpose(), np.diag([0.7, 0.8, 2.5, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    nib.save(image, path)
    if change:
        header = nib.Nifti1Header(path.read_bytes()[:348]).structarr
        change(header)
        path.write_bytes(header.tobytes() + path.read_bytes()[348:])
    return path


def _refused(path, message):
    with pytest.raises(InputError, match=message) as caught:
        read_volume(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_headers_of_this_file_are_good(tmp_path):
    for path in (_mhd(tmp_path / "a.mha"), _nrrd(tmp_path / "a.nrrd"), _nifti(tmp_path / "a.nii")):
        volume = read_volume(path)
        assert volume.history == ()
        np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.8, 0.7))
        np.testing.assert_array_equal(np.sort(volume.array, axis=None), np.sort(ARRAY, axis=None))


# Geometry


def test_a_missing_spacing_is_refused(tmp_path):
    _refused(_mhd(tmp_path / "a.mha", ElementSpacing=None), "has no ElementSpacing, so the size of a voxel is unknown")
    _refused(
        _nrrd(tmp_path / "a.nrrd", **{"space directions": None, "space": None, "space origin": None}),
        r"has no 'space directions' \(and no 'spacings'\), so the size of a voxel is unknown",
    )
    assert read_volume(_mhd(tmp_path / "b.mha", ElementSpacing=None, ElementSize="0.7 0.8 2.5")).spacing_mm[0] == 2.5


def test_an_assumed_orientation_is_noted(tmp_path):
    note = "no TransformMatrix in the header: axes assumed to run left, back and up"
    assert read_volume(_mhd(tmp_path / "a.mha", TransformMatrix=None)).history == (note,)
    unused = read_volume(_mhd(tmp_path / "a.mha", TransformMatrix=None, AnatomicalOrientation="LPI")).history
    assert unused == (f"{note} (AnatomicalOrientation LPI is not used)",)
    assert "no Offset in the header" in read_volume(_mhd(tmp_path / "a.mha", Offset=None)).history[0]
    for space, said in ((None, "no 'space'"), ("scanner-xyz", "space is 'scanner-xyz'")):
        changes = {"space": space, "space dimension": None if space else "3"}
        history = read_volume(_nrrd(tmp_path / "a.nrrd", **changes)).history
        assert history[0].startswith(said)
        assert "assumed to be left, posterior, superior" in history[0]
    plain = {"space directions": None, "space": None, "space origin": None, "spacings": "0.7 0.8 2.5"}
    volume = read_volume(_nrrd(tmp_path / "a.nrrd", **plain))
    assert "no 'space directions' in the header: axes assumed to run left" in volume.history[0]
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.8, 0.7))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda p: _mhd(p / "a.mha", ElementSpacing="0.7 0.8 2000"), "0.7x0.8x2000 mm, from ElementSpacing, in mm"),
        (lambda p: _mhd(p / "a.mha", ElementSpacing="7e-4 8e-4 2.5e-3"), "0.0007x0.0008x0.0025 mm, from ElementSp"),
        (lambda p: _nrrd(p / "a.nrrd", **{"space directions": "(700,0,0) (0,800,0) (0,0,2500)"}), "space directions"),
        (lambda p: _nifti(p / "a.nii", affine=np.diag([700.0, 800, 2500, 1])), r"from sform, lengths in mm \(xyzt_u"),
        (
            lambda p: _nifti(p / "a.nii", lambda h: h.__setitem__("xyzt_units", 1)),
            "700x800x2500 mm, from sform, lengths in meter",
        ),
    ],
)
def test_voxel_sizes_that_no_ct_has(tmp_path, write, said):
    _refused(write(tmp_path), f"voxel size .*{said}.*; allowed is 0.05 to 50 mm along each axis, mend the unit")


def test_voxel_sizes_of_a_dicom_series(tmp_path, write_dicom_series):
    write_dicom_series(tmp_path / "d", ARRAY.transpose()[:, :, :3], np.diag([0.7, 0.8, 2000.0, 1.0]))
    _refused(tmp_path / "d", "2000.* mm.*allowed is 0.05 to 50 mm")


@pytest.mark.parametrize(("size", "good"), [(0.05, True), (0.04, False), (50.0, True), (51.0, False)])
def test_the_bounds_of_a_voxel(size, good):
    affine = np.diag([size, 1, 1, 1]).astype(np.float32)
    if good:
        CTVolume.from_file_array(ARRAY, affine, "memory")
    else:
        with pytest.raises(InputError, match="voxel size"):
            CTVolume.from_file_array(ARRAY, affine, "memory")


def test_units_of_nrrd_lengths(tmp_path):
    _refused(
        _nrrd(tmp_path / "a.nrrd", **{"space units": '"m" "m" "m"'}), "'space units' is 'm'; needed are lengths in mm"
    )
    assert read_volume(_nrrd(tmp_path / "a.nrrd", **{"space units": '"mm" "mm" "mm"'})).history == ()


def test_nifti_affines_that_disagree_are_noted(tmp_path):
    def shift(header):
        header["qoffset_x"] += 4

    def turn(header):
        header["quatern_d"] = 1.0  # half a turn about z

    for change, apart in ((shift, "by up to 4 mm"), (turn, "by up to ")):
        volume = read_volume(_nifti(tmp_path / "a.nii", change))
        assert apart in volume.history[0]
        assert volume.history[0].endswith("at the volume's corners: the sform is used")
        np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.8, 0.7), rtol=1e-6)

    def pixdim(header):
        header["qform_code"] = 0
        header["pixdim"][3] = 5

    assert read_volume(_nifti(tmp_path / "a.nii", pixdim)).history == (
        "voxel size is 0.7 x 0.8 x 2.5 mm in the sform but 0.7 x 0.8 x 5 mm in pixdim: the sform is used",
    )


@pytest.mark.parametrize("value", [0, -2.5, np.nan])
def test_nifti_pixdim_is_not_repaired(tmp_path, value):
    def change(header):
        header["sform_code"] = 0
        header["pixdim"][3] = value

    _refused(_nifti(tmp_path / "a.nii", change), "voxel size 0.7x0.8x.* mm in pixdim; each must be above 0")


@pytest.mark.parametrize("code", [0, 7, 255])
def test_nifti_without_a_unit(tmp_path, code):
    def change(header):
        header["xyzt_units"] = code

    history = read_volume(_nifti(tmp_path / "a.nii", change)).history
    assert history == ("no unit of lengths in the header (xyzt_units): mm assumed",)


def test_a_qform_of_no_numbers_beside_a_good_sform(tmp_path):
    def change(header):
        header["quatern_b"] = np.nan

    history = read_volume(_nifti(tmp_path / "a.nii", change)).history
    assert history == ("the qform holds no directions: the sform is used",)


def test_units_and_scales_of_a_metaimage(tmp_path):
    """MetaIO knows the fields and applies none of them."""
    good = _mhd(
        tmp_path / "a.mha",
        DistanceUnits="mm",
        ElementToIntensityFunctionSlope="1.0",
        ElementToIntensityFunctionOffset="0",
    )
    np.testing.assert_array_equal(read_volume(good).array, ARRAY)
    _refused(_mhd(tmp_path / "a.mha", DistanceUnits="cm"), "DistanceUnits is 'cm'; needed are lengths in mm")
    for name, value in (("Slope", "2"), ("Offset", "-1024")):
        path = _mhd(tmp_path / "a.mha", **{f"ElementToIntensityFunction{name}": value})
        _refused(path, f"ElementToIntensityFunction{name} is '{value}', which is not applied")


def test_a_scan_beyond_the_room(tmp_path):
    affine = np.diag([0.7, 0.8, 2.5, 1.0])
    affine[0, 3] = 9e5
    assert read_volume(_nifti(tmp_path / "a.nii", affine=affine)).spacing_mm[0] == pytest.approx(2.5)
    affine[0, 3] = 1e30
    for path in (_nifti(tmp_path / "a.nii", affine=affine), _mhd(tmp_path / "a.mha", Offset="0 1e30 0")):
        _refused(path, "its first voxel lies 1e.30 mm from the origin; allowed are 1e.06, mend the position")


# Promised and held


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"])
def test_a_file_longer_than_its_header_says(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    write_volume(VOLUME, path)
    voxels = tmp_path / "scan.raw" if suffix == ".mhd" else path
    content = voxels.read_bytes()
    if suffix == ".nii.gz":
        voxels.write_bytes(gzip.compress(gzip.decompress(content) + ARRAY[:1].tobytes()))
    else:
        voxels.write_bytes(content + ARRAY[:1].tobytes())
    _refused(path, r"holds (more than 240|280) bytes of voxels, but its header promises 240 \(4 x 5 x 6 of ")


@pytest.mark.parametrize(("sizes", "held"), [("4 5 5", "more than 200"), ("4 5 7", "240")])
def test_compressed_voxels_that_are_not_as_many(tmp_path, sizes, held):
    packed = zlib.compress(ARRAY.tobytes())
    path = _mhd(tmp_path / "a.mha", voxels=packed, CompressedData="True", DimSize=sizes)
    _refused(path, f"holds {held} bytes of voxels")
    _refused(_nrrd(tmp_path / "a.nrrd", voxels=gzip.compress(ARRAY.tobytes()), encoding="gzip", sizes=sizes), held)


def test_compressed_voxels_are_read_right(tmp_path):
    packed = zlib.compress(ARRAY.tobytes())
    size = str(len(packed))
    good = _mhd(tmp_path / "a.mha", voxels=packed, CompressedData="True", CompressedDataSize=size)
    np.testing.assert_array_equal(read_volume(good).array, ARRAY)
    _refused(
        _mhd(tmp_path / "a.mha", voxels=packed, CompressedData="True", CompressedDataSize="70"),
        f"CompressedDataSize is 70, but there are {size} compressed bytes",
    )
    for said in (None, "0"):  # ITK made up voxels
        path = _mhd(tmp_path / "a.mha", voxels=packed, CompressedData="True", CompressedDataSize=said)
        _refused(path, f"does not say how many compressed bytes follow; add 'CompressedDataSize = {size}' before")
    (tmp_path / "b.zraw").write_bytes(packed)
    alone = _mhd(tmp_path / "b.mhd", "b.zraw", CompressedData="True")
    np.testing.assert_array_equal(read_volume(alone).array, ARRAY)
    _refused(_mhd(tmp_path / "a.mha", voxels=packed[:-9], CompressedData="True"), "compressed data .* early")
    _refused(_mhd(tmp_path / "a.mha", voxels=b"x" * 99, CompressedData="True"), "compressed data do not decode")


def _slices(folder, count):
    names = []
    for z in range(count):
        names.append(f"s{z:02d}.raw")
        (folder / names[-1]).write_bytes(ARRAY[z].tobytes())
    return names


def test_lists_of_slices(tmp_path):
    names = _slices(tmp_path, 6)
    for data, following in (("LIST", names), ("s%02d.raw 0 5 1", ())):
        np.testing.assert_array_equal(read_volume(_mhd(tmp_path / "a.mhd", data, following)).array, ARRAY)
        np.testing.assert_array_equal(read_volume(_nrrd(tmp_path / "a.nrrd", data, following)).array, ARRAY)
    for write, path in ((_mhd, tmp_path / "a.mhd"), (_nrrd, tmp_path / "a.nrrd")):
        for data, following, found in (("LIST", names[:3], 3), ("LIST", names * 2, 12), ("s%02d.raw 0 4 1", (), 5)):
            _refused(write(path, data, following), f"names {found} files where 6 are needed for 4 x 5 x 6 voxels")
        _refused(
            write(path, "LIST", [*names[:5], "s06.raw"]), r"its voxels in .*s06.raw: cannot be read \(no such file"
        )
        _refused(write(path, "s%s%s%s.raw 0 5 1"), "allowed is a name without %")
        _refused(write(path, "s%02d.raw 0 999999999 1"), "make no list of files")
    (tmp_path / names[2]).write_bytes(ARRAY[2].tobytes()[:-2])
    _refused(_mhd(tmp_path / "a.mhd", "LIST", names), "its voxels in .*s02.raw: holds 38 bytes")


def test_a_detached_nrrd_header(tmp_path):
    whole = read_volume(_nrrd(tmp_path / "a.nrrd"))
    (tmp_path / "v.raw").write_bytes(ARRAY.tobytes())
    (tmp_path / "v.raw.gz").write_bytes(gzip.compress(ARRAY.tobytes()))
    for changes in ({"data": "v.raw"}, {"data": "v.raw.gz", "encoding": "gzip"}, {}):  # the last holds its voxels
        found = read_volume(_nrrd(tmp_path / "a.NHDR", **changes))
        np.testing.assert_array_equal(found.array, ARRAY)
        np.testing.assert_array_equal(found.affine_lps, whole.affine_lps)
        assert found.history == whole.history
    path = _nrrd(tmp_path / "a.nhdr", "v.raw")
    for voxels, held in ((ARRAY.tobytes()[:-2], 238), (ARRAY.tobytes() + b"xx", 242)):
        (tmp_path / "v.raw").write_bytes(voxels)
        _refused(path, f"a.nhdr: its voxels in .*v.raw: holds {held} bytes of voxels, but its header promises 240")
    (tmp_path / "v.raw").unlink()
    _refused(path, r"a.nhdr: its voxels in .*v.raw: cannot be read \(no such file")
    (tmp_path / "v.raw.gz").write_bytes(gzip.compress(ARRAY.tobytes())[:-9])
    _refused(_nrrd(path, "v.raw.gz", encoding="gzip"), "v.raw.gz: compressed data end early")


@pytest.mark.parametrize("name", ["../out.raw", "/etc/hostname", "a/../../out.raw", "C:\\out.raw", "..\\out.raw"])
def test_voxels_outside_the_folder_of_the_header(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "out.raw").write_bytes(ARRAY.tobytes())
    _refused(_mhd(folder / "a.mhd", name), "allowed is a file beside the header or in a folder beside it")
    _refused(_nrrd(folder / "a.nrrd", name), "allowed is a file beside the header or in a folder beside it")
    _refused(_mhd(folder / "a.mhd", "LIST", [name] * 6), "allowed is a file beside the header")


def test_voxels_in_a_folder_beside_the_header(tmp_path):
    (tmp_path / "voxels").mkdir()
    (tmp_path / "voxels" / "a b.raw").write_bytes(b"head" + ARRAY.tobytes())
    np.testing.assert_array_equal(read_volume(_mhd(tmp_path / "a.mhd", "voxels/a b.raw", HeaderSize=-1)).array, ARRAY)
    np.testing.assert_array_equal(read_volume(_mhd(tmp_path / "a.mhd", "voxels/a b.raw", HeaderSize=4)).array, ARRAY)
    skipped = _nrrd(tmp_path / "a.nrrd", "voxels/a b.raw", **{"byte skip": "4"})
    np.testing.assert_array_equal(read_volume(skipped).array, ARRAY)
    _refused(_mhd(tmp_path / "a.mhd", "voxels/a b.raw"), "holds 244 bytes")


@pytest.mark.parametrize(
    "changes",
    [
        {"DimSize": "4 5"},
        {"DimSize": "4 5 -6"},
        {"DimSize": "0 5 6"},
        {"DimSize": "4 5 99999999999999999999"},
        {"DimSize": "4e9 5 6"},
        {"NDims": "0"},
        {"NDims": "-3"},
        {"NDims": "200"},
        {"ElementNumberOfChannels": "x"},
        {"ElementSpacing": "0.7 0.8"},
        {"ElementSpacing": "0.7 nan 2"},
        {"ElementSpacing": "-0.7 0.8 2"},
        {"ElementType": "MET_OTHER"},
        {"TransformMatrix": "1 0 0"},
        {"TransformMatrix": "0 0 0 0 0 0 0 0 0"},
        {"TransformMatrix": "1 0 0 1 0 0 0 0 1"},
        {"Orientation": "1 0 0 0 1 0 0 0 1"},
    ],
)
def test_fields_of_a_metaimage_that_are_no_such_value(tmp_path, changes):
    _refused(_mhd(tmp_path / "a.mha", **changes), next(iter(changes)))


def test_fields_that_contradict_each_other(tmp_path):
    path = _mhd(tmp_path / "a.mha")
    path.write_bytes(path.read_bytes().replace(b"DimSize", b"DimSize = 6 5 4\nDimSize", 1))
    _refused(path, "DimSize appears twice")
    path = _nrrd(tmp_path / "a.nrrd")
    path.write_bytes(path.read_bytes().replace(b"sizes", b"sizes: 6 5 4\nsizes", 1))
    _refused(path, "'sizes' appears twice")


# Sizes before memory


def _peak_of_refusal(folder, name, message):
    """Read in a child process: refused as said, and how much memory it took in MB."""
    target = fuzz.Target("file", lambda _: None, lambda _: read_volume(folder / name))
    outcome, said, peak = fuzz.attempt(target, folder, "")
    assert outcome == "refused", said
    assert re.search(message, said)
    return peak / 1e6


def test_a_small_file_that_promises_much_takes_no_memory(tmp_path):
    def large(header):
        header["dim"][1:4] = 1500

    _nifti(tmp_path / "a.nii", large)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    _mhd(tmp_path / "a.mha", DimSize="1500 1500 1500")
    _mhd(tmp_path / "b.mha", DimSize="1500 1500 1500", voxels=zlib.compress(ARRAY.tobytes()), CompressedData="True")
    _nrrd(tmp_path / "a.nrrd", sizes="1500 1500 1500")
    for name in ("a.nii", "a.nii.gz", "a.mha", "b.mha", "a.nrrd"):
        message = "holds .* bytes of voxels, but its header promises 6750000000|GiB of memory, of which"
        assert _peak_of_refusal(tmp_path, name, message) < peak_memory_mb() + 150


def test_a_bomb_stops_where_the_promise_ends(tmp_path):
    bomb = gzip.compress(bytes(1 << 28), 1)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(_nifti(tmp_path / "a.nii").read_bytes()) + bomb)
    _nrrd(tmp_path / "a.nrrd", voxels=bomb, encoding="gzip")
    for name in ("a.nii.gz", "a.nrrd"):
        assert _peak_of_refusal(tmp_path, name, "holds more than 240 bytes") < peak_memory_mb() + 150


def test_what_does_not_fit_into_memory_is_refused(tmp_path):
    def read(_):
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        return read_volume(tmp_path / "a.mha")

    # The file is as large as it says, though of one block on the disk only.
    _mhd(tmp_path / "a.mha", DimSize="1024 1024 1024")
    with (tmp_path / "a.mha").open("r+b") as stream:
        stream.truncate((2 << 30) + (tmp_path / "a.mha").stat().st_size - ARRAY.nbytes)
    outcome, said, _ = fuzz.attempt(fuzz.Target("file", lambda _: None, read), tmp_path, "")
    assert outcome == "refused", said
    assert re.search("1024 x 1024 x 1024 of MET_SHORT needs 6.0 GiB of memory, of which .* GiB are free", said)


# What is no regular file


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.mhd", "a.nrrd"])
def test_special_files_are_not_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)
    _refused(tmp_path / name, "is a named pipe; give the whole scan, as a file")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    _refused(tmp_path / name, "is a device; give the whole scan, as a file")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(name)
    _refused(tmp_path / name, r"cannot be read \(a link that leads to itself\)")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("gone")
    _refused(tmp_path / name, "is a link to gone, which does not exist; give a CT scan")
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(b"")
    _refused(tmp_path / name, r"is empty \(0 bytes\)")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    _refused(tmp_path / name, "the folder is empty")


def test_pipes_as_voxel_files(tmp_path):
    os.mkfifo(tmp_path / "v.raw")
    _refused(_mhd(tmp_path / "a.mhd", "v.raw"), "its voxels in .*v.raw: is a named pipe")
    _refused(_nrrd(tmp_path / "a.nrrd", "v.raw"), "its voxels in .*v.raw: is a named pipe")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_files_that_may_not_be_read(what):
    folder = Path(tempfile.mkdtemp(prefix="unreadable-"))
    path = _nifti(folder / "a.nii")
    mode, user = folder.stat().st_mode, os.geteuid()
    try:
        folder.chmod(0o755 if what == "file" else 0o600)
        path.chmod(0)
        if user == 0:  # whom no permission stops
            os.seteuid(65534)
        _refused(path, r"cannot be read \(Permission denied\); give ")
    finally:
        os.seteuid(user)
        folder.chmod(mode)
        shutil.rmtree(folder)


# Names


def test_the_content_decides_whether_a_nifti_is_compressed(tmp_path):
    plain = _nifti(tmp_path / "a.nii").read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain))
    expected = read_volume(tmp_path / "a.nii").array
    for name in ("plain.nii.gz", "packed.nii"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, expected)


NAMES = [
    "患者".encode("gbk"),
    "скан №1".encode(),
    b"\xff\xfe",
    b"-rf",
    b"a\nb",
    b"a'b\"c$(d)`e`;f",
    "🫁".encode(),
    b" a ",
    b"%s%n",
    b"x" * 200,
]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_any_name(tmp_path, name, suffix):
    folder = tmp_path / os.fsdecode(b"dir " + name)
    folder.mkdir()
    path = folder / (os.fsdecode(name) + suffix)
    if suffix == ".mhd":
        voxels = "v.raw" if b"\n" in name or b"%" in name or name != name.strip() else os.fsdecode(name) + ".raw"
        (folder / voxels).write_bytes(ARRAY.tobytes())
        _mhd(path, voxels)
    elif suffix == ".mha":
        _mhd(path)
    elif suffix == ".nrrd":
        _nrrd(path)
    else:
        shutil.copy(_nifti(tmp_path / f"good{suffix}"), path)
    volume = read_volume(path)
    assert volume.array.size == ARRAY.size
    assert volume.source.encode("utf-8")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert " ".join(printable(str(path)).splitlines()) in str(caught.value)


@pytest.mark.parametrize("kind", ["complex64", "rgb"])
def test_values_that_are_no_numbers(tmp_path, kind):
    array = ARRAY.transpose().astype(np.complex64)
    if kind == "rgb":
        array = np.zeros(array.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    _refused(tmp_path / "a.nii", "voxels are of type .*; allowed are whole or real numbers")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_types_of_voxels(tmp_path, dtype, suffix):
    array = np.clip(ARRAY, -100, 100).astype(dtype)
    if suffix == ".nii":
        nib.save(nib.Nifti1Image(array.transpose(), np.eye(4), dtype=dtype), tmp_path / "a.nii")
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"a{suffix}"))
    volume = read_volume(tmp_path / f"a{suffix}", units="hu")
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(np.sort(volume.array, axis=None), np.sort(array, axis=None))
