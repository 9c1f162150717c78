"""What each format holds, read with the library that it is for."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pycocotools.coco import COCO

from mmpluld.errors import InputError
from mmpluld.evaluation.luna16 import evaluate_luna16
from mmpluld.inference.findings import Findings
from mmpluld.inference.formats import FORMATS, check_formats, output_names, parse_formats
from mmpluld.io.findings.coco import write_coco
from mmpluld.io.findings.label_map import box_voxels, label_map, write_label_maps
from mmpluld.io.findings.luna16 import write_luna16
from mmpluld.io.findings.markups import write_markups
from mmpluld.io.readers import VOLUME_SUFFIXES


def test_names_of_formats():
    assert parse_formats(["json,csv", "slicer"]) == ["json", "csv", "slicer"]
    assert parse_formats(["csv", "csv"]) == ["csv"]
    with pytest.raises(InputError, match=r"format 'slicr' is unknown; allowed are json.*did you mean 'slicer'\?"):
        parse_formats(["json,slicr"])
    with pytest.raises(InputError, match="no format is given"):
        parse_formats([","])
    names = output_names()
    assert {"boxes.nii.gz", "masks.nii.gz", "findings.mrk.json"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", FORMATS)
def test_the_page_describes_it(name):
    page = Path(__file__).resolve().parents[4] / "docs/how_to/detect.md"
    inputs, _, formats = page.read_text(encoding="utf-8").partition("\n## Formats\n")
    what, patient = re.findall(r"(?:^\|.*\n)+", formats.partition("\n## ")[0], flags=re.MULTILINE)
    for file in (FORMATS[name].file, *FORMATS[name].more):
        assert f"`{file}" in what
        assert not file.endswith(VOLUME_SUFFIXES) or f"`{file}`" in inputs
    for table in (what, patient):
        assert re.search(rf"^\| [^|]*`{name}`", table, flags=re.MULTILINE)


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr("mmpluld.compat.extras.find_spec", lambda name: None)
    monkeypatch.setitem(FORMATS, "csv", replace(FORMATS["csv"], extra="dicom"))
    with pytest.raises(
        InputError, match=r"'csv' needs highdicom, which the extra \[dicom\] brings .* pip install 'highdicom>=0.28'"
    ):
        check_formats(["csv"])


def test_luna16_is_evaluated_by_its_rules(found, tmp_path):
    write_luna16(tmp_path / "marks.csv", replace(found, name="=a,b"), False)
    centres = [np.array(item.box_world_lps).reshape(2, 3).mean(axis=0) for item in found]
    lines = "".join(f"'=a,b,{x},{y},{z},2\n".replace("'=a,b", '"\'=a,b"') for x, y, z in centres[:2])
    header = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"
    (tmp_path / "annotations.csv").write_text(header + lines)
    (tmp_path / "annotations_excluded.csv").write_text(header)
    (tmp_path / "seriesuids.csv").write_text('"\'=a,b"\n')
    near = [replace(item, score=score) for item, score in zip(found, (0.9999999, 0.9999996, 0.3), strict=True)]
    write_luna16(tmp_path / "near.csv", replace(found, findings=tuple(near)), False)
    scores = [float(line.rpartition(",")[2]) for line in (tmp_path / "near.csv").read_text().splitlines()[1:]]
    assert scores == [0.9999999, 0.9999996, 0.3]  # not rounded to one
    result = evaluate_luna16(tmp_path / "marks.csv", tmp_path)
    assert (result["num_found"], result["num_lesions"], result["num_false_positives"]) == (2, 2, 1)


def test_luna16_names_the_series_on_request(found, tmp_path):
    known = replace(found, volume=replace(found.volume, identifiers=("SeriesInstanceUID 1.2.3",)))
    names = []
    for identifiers in (False, True):
        write_luna16(tmp_path / "marks.csv", known, identifiers)
        with (tmp_path / "marks.csv").open() as stream:
            names.append({row["seriesuid"] for row in csv.DictReader(stream)})
    assert names == [{"scan"}, {"1.2.3"}]


@pytest.mark.parametrize("identifiers", [False, True])
def test_formats_tell_what_their_documentation_says_of_the_patient(found, tmp_path, identifiers):
    place, uid = "/Doe^John/scan.nii.gz", "1.2.840.99"
    known = replace(found.volume, source=place, identifiers=(f"SeriesInstanceUID {uid}",))
    scan = Findings("scan", known, found.findings, found.details)
    told = {}
    for path in scan.save(tmp_path / "out", ["json", "html", "luna16", "coco", "csv", "slicer"], False, identifiers):
        text = path.read_text(encoding="utf-8")
        told[path.name] = {name for name, secret in (("path", "Doe"), ("UID", uid), ("name", "scan")) if secret in text}
    named = {"path", "UID", "name"} if identifiers else {"name"}
    assert told["detections.json"] == named
    assert told["report.html"] == named - {"path"}
    assert told["luna16.csv"] == ({"UID"} if identifiers else {"name"})
    assert told["coco.json"] == {"name"}
    assert told["findings.csv"] | told["findings.mrk.json"] <= {"name"}


def test_markups_keep_to_the_schema_of_slicer(found, tmp_path):
    """Required members, types and lengths of the markups schema 1.0.3, and the control point a ROI is made of."""
    write_markups(tmp_path / "findings.mrk.json", found)
    record = json.loads((tmp_path / "findings.mrk.json").read_text())
    assert record["@schema"].endswith("markups-schema-v1.0.3.json#")
    assert [item["name"] for item in record["markups"]] == ["finding 1", "finding 2", "finding 3"]
    for item in record["markups"]:
        assert (item["type"], item["coordinateSystem"], item["coordinateUnits"]) == ("ROI", "LPS", "mm")
        assert item["roiType"] == "Box"
        for name, length in (("center", 3), ("size", 3), ("orientation", 9)):
            assert len(item[name]) == length
            assert all(isinstance(value, float) for value in item[name])
        assert min(item["size"]) > 0
        (point,) = item["controlPoints"]
        assert point["position"] == item["center"]
    first = record["markups"][0]["controlPoints"][0]
    assert first["label"] == "1: 0.90"
    assert first["description"] == "score 0.9000; diameters on the key slice 3.0 x 2.0 mm; liver 0.75"


def test_coco_is_read_by_its_own_tools(found, tmp_path, capsys):
    write_coco(tmp_path / "coco.json", found)
    coco = COCO(str(tmp_path / "coco.json"))
    assert coco.getCatIds(catNms=["lesion"]) == [1]
    assert [image["slice"] for image in coco.loadImgs(coco.getImgIds())] == [2, 3, 5]
    first, second, _ = coco.loadAnns([1, 2, 3])
    assert (first["bbox"], first["score"], first["area"]) == ([1.5, 2, 4.5, 4], 0.9, 4)
    assert coco.imgs[first["image_id"]]["slice"] == found[0].key_slice
    np.testing.assert_array_equal(coco.annToMask(first), found[0].mask.on_slice(found.volume.shape[1:]))
    assert "segmentation" not in second
    results = coco.loadRes([{key: first[key] for key in ("image_id", "category_id", "bbox", "score")}])
    assert results.getAnnIds() == [1]


def test_the_smaller_finding_is_seen_where_two_overlap(found):
    labels = label_map(found.volume, found.findings, "box")
    # The first covers 5 x 4 x 4 voxels, the second 3 x 4 x 2: its centres from 4.6 to 8.4 and from 3.2 to 7.4.
    assert (labels == 2).sum() == 3 * 4 * 2
    assert (labels == 1).sum() == 5 * 4 * 4 - 1 * 3 * 2
    assert (labels == 3).sum() == 1
    twins = label_map(found.volume, [found[0], found[0]], "box")
    assert set(np.unique(twins)) == {0, 1}  # the better ranked


def test_voxels_between_edges():
    assert box_voxels(0.5, 2.5, 9) == slice(0, 2)
    assert box_voxels(3.6, 3.9, 9) == slice(3, 4)
    assert box_voxels(-4, 1, 9) == slice(0, 1)
    assert box_voxels(8.9, 9.4, 9) == slice(8, 9)


def test_no_findings(found, tmp_path):
    none = replace(found, findings=())
    write_luna16(tmp_path / "a.csv", none, False)
    write_markups(tmp_path / "a.json", none)
    write_coco(tmp_path / "b.json", none)
    write_label_maps(tmp_path / "boxes.nii.gz", none)
    assert not np.asarray(nibabel.load(tmp_path / "boxes.nii.gz").dataobj).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json", "b.json", "boxes.nii.gz"]
    assert (tmp_path / "a.csv").read_text() == "seriesuid,coordX,coordY,coordZ,probability\n"
    assert json.loads((tmp_path / "a.json").read_text())["markups"] == []
