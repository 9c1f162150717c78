"""LUNA16 to annotation files: world marks to boxes, flipped headers, folds, the store, what is reported."""

from __future__ import annotations

import json
import math
import os
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from mmpluld.datasets.converters.luna16 import convert_luna16, read_luna16_marks
from mmpluld.errors import InputError
from mmpluld.io import write_volume
from mmpluld.io.slice_sources import open_source
from mmpluld.phantom import PhantomSpec
from mmpluld.phantom.case import make_case
from mmpluld.structures import AnnotationSet, CTVolume

HEAD = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def load_all(root):
    sets = [AnnotationSet.load(path) for path in sorted((root / "annotations").glob("*.json"))]
    return {v.id: v for s in sets for v in s.volumes}, [lesion for s in sets for lesion in s.lesions]


@pytest.fixture
def one_scan(tmp_path):
    """10 slices of 20 x 30 at 2 x 1 x 0.5 mm, whose origin is (100, -50, 7)."""
    array = np.resize(np.int16([-1000, -90, 40]), (10, 20, 30))
    volume = CTVolume.from_canonical(array, (2.0, 1.0, 0.5), (100.0, -50.0, 7.0))
    (tmp_path / "subset3").mkdir()
    write_volume(volume, tmp_path / "subset3" / "1.2.mhd")

    def convert(rows, **options):
        (tmp_path / "annotations.csv").write_text(HEAD + rows)
        return convert_luna16(tmp_path, **({"fractions": (1, 0, 0)} | options))

    convert.root = tmp_path
    return convert


def test_one_mark_by_hand(one_scan):
    # x = 100 + 10 * 0.5, y = -50 + 8 * 1, z = 7 - 4 * 2 (down is +z); a sphere of 5 mm.
    report = one_scan("1.2,105,-42,-1,5\n")
    found = AnnotationSet.load(report.files["train"])
    (volume,), (lesion,) = found.volumes, found.lesions
    assert found.dataset == {"name": "luna16", "label_scope": "lung-nodules"}
    assert (volume.id, volume.patient, volume.study) == ("1.2", "1.2", "subset3")
    assert volume.source == {"kind": "npy", "path": "volumes/1.2.npy"}
    assert (volume.num_slices, volume.shape_yx, volume.spacing_mm) == (10, (20, 30), (2.0, 1.0, 0.5))
    assert volume.frame == "canonical-voxels"
    np.testing.assert_allclose(np.array(volume.affine_lps) @ [10, 8, 4, 1], [105, -42, -1, 1])  # the mark's voxel
    # Voxel centre 10 is edge coordinate 10.5; 2.5 mm is 5 voxels of x and 2.5 of y; slices 3, 4, 5 lie within 2.5 mm.
    assert lesion.box == pytest.approx((5.5, 6.0, 3.0, 15.5, 11.0, 6.0))
    assert lesion.key_slice == 4
    cut = math.sqrt(2.5**2 - 2.0**2)
    assert lesion.attributes["slice_boxes"][0] == pytest.approx(
        [3, 10.5 - 2 * cut, 8.5 - cut, 10.5 + 2 * cut, 8.5 + cut]
    )
    assert lesion.attributes["slice_boxes"][1] == pytest.approx([4, 5.5, 6.0, 15.5, 11.0])


def test_a_sphere_between_two_slices_takes_the_one_of_its_centre(one_scan):
    found = AnnotationSet.load(one_scan("1.2,105,-42,-1.9,1\n").files["train"])
    assert (found.lesions[0].box[2], found.lesions[0].box[5]) == (4.0, 5.0)
    assert found.lesions[0].attributes["slice_boxes"] == [pytest.approx([4, 9.5, 8.0, 11.5, 9.0])]


def test_slices_that_the_sphere_only_touches_are_not_its(one_scan):
    found = AnnotationSet.load(one_scan("1.2,105,-42,-1,4\n1.2,105,-42,-2,2\n").files["train"])
    # 4 mm around the centre of slice 4 of 2 mm touch the centres of 3 and 5; 2 mm around the edge of slices 4 and 5
    # touch both of theirs, and take the one that holds the mark.
    assert [lesion.box[2::3] for lesion in found.lesions] == [(4.0, 5.0), (5.0, 6.0)]
    assert [[row[3] - row[1] for row in lesion.attributes["slice_boxes"]] for lesion in found.lesions] == [[8], [4]]


@pytest.mark.parametrize("rows", ["", "9.9,0,0,0,5\n"])
def test_a_table_of_other_scans_makes_no_scans_without_nodules(one_scan, rows):
    with pytest.raises(InputError, match=r"annotations\.csv: none of its [01] nodules? is in one of the 1 scan"):
        one_scan(rows)


def test_marks_without_scan_outside_or_repeated_are_reported(one_scan):
    (one_scan.root / "seriesuids.csv").write_text("1.2\n1.3\n\n")
    report = one_scan("9.9,0,0,0,5\n1.2,0,0,0,5\n1.2,105,-42,-1,5\n1.2,105,-42,-1,5\n")
    assert [(row.line, row.reason, row.item) for row in report.dropped] == [(2, "no scan", "9.9")]
    assert report.remarks == {
        "in seriesuids.csv, but no scan in the subsets": ["1.3"],
        "mark outside its scan, dropped": ["line 3 of annotations.csv (1.2)"],
        "mark repeated, taken once": ["line 5 of annotations.csv (1.2)"],
    }
    assert report.splits["train"].lesions == 1
    assert "mark repeated, taken once: 1: line 5" in report.summary()


def test_excluded_findings_are_ignored_and_unknown_diameters_are_10_mm(one_scan):
    (one_scan.root / "annotations_excluded.csv").write_text(HEAD + "1.2,105,-42,-1,-1\n")
    found = AnnotationSet.load(one_scan("1.2,103,-42,-1,5\n", with_excluded=True).files["train"])
    assert [lesion.ignore for lesion in found.lesions] == [False, True]
    assert found.lesions[1].attributes["diameter_mm"] == 10.0


def test_padding_stops_at_the_image(one_scan):
    found = AnnotationSet.load(one_scan("1.2,101,-49,-1,5\n", pad_mm=4).files["train"])
    assert found.lesions[0].box[:2] == (0.0, 0.0)
    assert found.lesions[0].box[3:5] == pytest.approx((2.5 + 5 + 8, 1.5 + 2.5 + 4))  # pixels of 0.5 x 1 mm


def test_override_corrects_spacing_and_direction(one_scan):
    table = one_scan.root / "fix.csv"
    table.write_text("volume,spacing_mm,flip\n1.2,4 1 0.5,x\n")
    report = one_scan("1.2,105,-42,-1,5\n", overrides=table)
    found = AnnotationSet.load(report.files["train"])
    assert found.volumes[0].spacing_mm == (4.0, 1.0, 0.5)
    # x is mirrored (30 - 15.5, 30 - 5.5); z = (7 + 1) / 4 = 2 voxels.
    assert found.lesions[0].box == pytest.approx((14.5, 6.0, 2.0, 24.5, 11.0, 3.0))
    assert report.remarks["mirrored along x"] == ["1.2"]
    assert report.remarks["spacing overridden (header: 2x1x0.5 mm)"] == ["1.2"]


@pytest.mark.parametrize("signs", [(1, 1, -1), (1, 1, 1), (-1, -1, 1)])
def test_a_wrong_spacing_moves_no_mark(tmp_path, signs):
    origin, right, wrong = np.array([100.0, -50.0, 7.0]), np.array([0.5, 1.0, 2.0]), np.array([1.0, 1.0, 1.0])
    (tmp_path / "subset0").mkdir()
    image = sitk.GetImageFromArray(np.resize(np.int16([-1000, -90, 40]), (10, 20, 30)))
    image.SetOrigin(origin)
    image.SetDirection(np.diag(signs).astype(float).ravel())
    for name, spacing in (("right", right), ("wrong", wrong)):
        image.SetSpacing(spacing)
        sitk.WriteImage(image, str(tmp_path / "subset0" / f"{name}.mhd"))
    x, y, z = origin + right * signs * (10, 8, 4)
    (tmp_path / "annotations.csv").write_text(HEAD + "".join(f"{n},{x},{y},{z},5\n" for n in ("right", "wrong")))
    (tmp_path / "fix.csv").write_text("volume,spacing_mm\nwrong,2 1 0.5\n")
    convert_luna16(tmp_path, fractions=(1, 0, 0), overrides=tmp_path / "fix.csv")
    volumes, lesions = load_all(tmp_path)
    found = {lesion.volume: (lesion.box, lesion.key_slice, lesion.attributes["slice_boxes"]) for lesion in lesions}
    assert found["wrong"] == found["right"]
    assert volumes["wrong"].affine_lps == volumes["right"].affine_lps


def test_phantom_round_trip_with_reversed_headers(luna16, tmp_path):
    root = shutil.copytree(luna16, tmp_path / "luna16")
    report = convert_luna16(root)
    volumes, lesions = load_all(root)
    truth = AnnotationSet.load(root / "truth" / "complete.json")
    assert len(volumes) == 3
    assert report.remarks["header reverses x or y, reoriented"] == ["1.2.826.0.1.3680043.10.1338.3"]
    for record in truth.volumes:
        assert volumes[record.id].spacing_mm == pytest.approx(record.spacing_mm)
    settings = {"size": 64, "max_slices": 10, "lesions_per_series": 14.0, "intervals_mm": (5.0,), "regions": ("chest",)}
    image = make_case(3, "luna16", 3, PhantomSpec(**settings)).volume
    source = open_source(volumes["1.2.826.0.1.3680043.10.1338.3"], root)
    for index in (0, 4, 7):
        np.testing.assert_array_equal(source.read(index), image.array[index])
    want = sorted((t.volume, *np.add(t.box[:3], t.box[3:]) / 2) for t in truth.lesions if t.type == "lung")
    got = sorted((t.volume, (t.box[0] + t.box[3]) / 2, (t.box[1] + t.box[4]) / 2) for t in lesions)
    assert len(want) > 2
    inside = [row for row in want if not _clipped(row, lesions)]
    assert len(got) == len(want) and inside
    for name, x, y, _ in inside:
        assert any(g[0] == name and abs(g[1] - x) < 0.01 and abs(g[2] - y) < 0.01 for g in got)


def _clipped(row, lesions):
    """Whether a lesion touches the border, where clipping moves the middle of its box."""
    return row[1] < 12 or row[1] > 52 or row[2] < 12 or row[2] > 52


def test_official_fold(luna16, tmp_path):
    root = shutil.copytree(luna16, tmp_path / "luna16")
    convert_luna16(root, test_subset=2)
    assert [v.study for v in AnnotationSet.load(root / "annotations" / "test.json").volumes] == ["subset2"]
    assert len(AnnotationSet.load(root / "annotations" / "train.json").volumes) == 2
    with pytest.raises(InputError, match=r"no folder subset7 with scans; there are subset0"):
        convert_luna16(root, test_subset=7, overwrite=True)


def test_an_interrupted_conversion_goes_on(one_scan, monkeypatch):
    one_scan("1.2,105,-42,-1,5\n")
    (one_scan.root / "annotations" / "train.json").unlink()
    stored = one_scan.root / "volumes" / "1.2.npy"
    before = stored.stat().st_mtime_ns
    one_scan("1.2,105,-42,-1,5\n")
    assert stored.stat().st_mtime_ns == before


def test_a_copy_whose_values_were_never_tested_is_made_again(one_scan):
    one_scan("1.2,105,-42,-1,5\n")
    (one_scan.root / "annotations" / "train.json").unlink()
    meta_path = one_scan.root / "volumes" / "1.2.json"
    meta = json.loads(meta_path.read_text())
    assert meta.pop("units") == "tested"
    meta_path.write_text(json.dumps(meta))
    np.save(one_scan.root / "volumes" / "1.2.npy", np.full((10, 20, 30), -2000, np.int16))
    one_scan("1.2,105,-42,-1,5\n")
    assert np.load(one_scan.root / "volumes" / "1.2.npy").min() == -1000


def test_a_scan_taken_as_it_is_is_reported_and_its_copy_serves_no_other_call(one_scan):
    array = np.resize(np.int16([24, 934, 1064]), (10, 20, 30))
    volume = CTVolume.from_canonical(array, (2.0, 1.0, 0.5), (100.0, -50.0, 7.0))
    write_volume(volume, one_scan.root / "subset3" / "1.2.mhd")
    with pytest.raises(InputError, match=r"no volume of 1.*values are not HU: no value is below 0"):
        one_scan("1.2,105,-42,-1,5\n")
    report = one_scan("1.2,105,-42,-1,5\n", units="hu")
    assert any(what.startswith("assumed to be in HU as told, though no value is below 0") for what in report.remarks)
    with pytest.raises(InputError, match=r"values are not HU"):
        one_scan("1.2,105,-42,-1,5\n", overwrite=True)


def test_existing_files_and_stale_volumes_are_not_replaced_unasked(one_scan):
    one_scan("1.2,105,-42,-1,5\n")
    with pytest.raises(InputError, match=r"train\.json: exists already.*--overwrite"):
        one_scan("1.2,105,-42,-1,5\n")
    (one_scan.root / "annotations" / "train.json").unlink()
    os.utime(one_scan.root / "subset3" / "1.2.raw", ns=(1, 1))
    with pytest.raises(InputError, match=r"no volume of 1.*1\.2\.npy: made from other raw files"):
        one_scan("1.2,105,-42,-1,5\n")
    assert one_scan("1.2,105,-42,-1,5\n", overwrite=True).splits["train"].lesions == 1
    header, voxels = (one_scan.root / "subset3" / name for name in ("1.2.mhd", "voxels.bin"))
    header.with_suffix(".raw").rename(voxels)
    header.write_text(header.read_text().replace("1.2.raw", "voxels.bin"))
    one_scan("1.2,105,-42,-1,5\n", overwrite=True)
    os.utime(voxels, ns=(2, 2))
    (one_scan.root / "annotations" / "train.json").unlink()
    with pytest.raises(InputError, match=r"1\.2\.npy: made from other raw files"):
        one_scan("1.2,105,-42,-1,5\n")


def test_a_damaged_scan_is_left_out_by_name(luna16, tmp_path):
    root = shutil.copytree(luna16, tmp_path / "luna16")
    (root / "subset0" / "1.2.826.0.1.3680043.10.1338.1.raw").unlink()
    report = convert_luna16(root)
    (reason,) = report.remarks["volume left out"]
    assert reason.startswith("1.2.826.0.1.3680043.10.1338.1 (") and ".raw: cannot be read (no such file)" in reason
    assert sum(count.volumes for count in report.splits.values()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seriesuid,coordX,coordY,coordZ\n", r"no column 'diameter_mm'"),
        ("seriesuid,coordX,coordY,coordZ,diameter\n", r"is it the one called 'diameter'\?"),
        (
            HEAD + "a,1,2,x,4\nb,1,2,3,0\n",
            r"2 faulty rows: line 2: coordZ is 'x'; needed is a finite number.*line 3: diameter_mm is 0",
        ),
    ],
)
def test_faulty_tables(tmp_path, text, message):
    (tmp_path / "annotations.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_luna16_marks(tmp_path / "annotations.csv")


def test_empty_and_missing_inputs(tmp_path):
    (tmp_path / "empty.csv").write_text(HEAD)
    assert read_luna16_marks(tmp_path / "empty.csv") == []
    with pytest.raises(InputError, match=r"none\.csv: cannot be read \(no such file"):
        read_luna16_marks(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"no scans subset0"):
        convert_luna16(tmp_path)
    with pytest.raises(InputError, match=r"no such folder"):
        convert_luna16(tmp_path / "nowhere")
    for fractions in ((0, 0, 0), (1e308, 1e308, 1), (math.nan, 0, 1), (math.inf, 0, 1), (2, -1, 0)):
        with pytest.raises(InputError, match=r"split \[.*\]: needed are three shares"):
            convert_luna16(tmp_path, fractions=fractions)


def test_real_tables(real_data):
    marks = read_luna16_marks(real_data / "luna16" / "annotations.csv")
    assert (len(marks), len({mark.seriesuid for mark in marks})) == (1186, 601)
    assert min(mark.diameter_mm for mark in marks) >= 3
    excluded = read_luna16_marks(real_data / "luna16" / "annotations_excluded.csv")
    assert len(excluded) == 35192
    assert min(mark.diameter_mm for mark in excluded) > 0


def test_a_scan_in_two_subsets_is_refused(one_scan):
    shutil.copytree(one_scan.root / "subset3", one_scan.root / "subset5")
    with pytest.raises(InputError, match=r"subset5/1.2.mhd: the same scan as .*subset3/1.2.mhd"):
        one_scan("1.2,105,-42,-1,5\n")


def test_a_missing_test_subset_is_noticed_before_the_work(one_scan):
    with pytest.raises(InputError, match="no folder subset9"):
        one_scan("1.2,105,-42,-1,5\n", test_subset=9)
    assert not (one_scan.root / "volumes").exists()
