from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmpluld.structures import RECIST, CTVolume, Finding
from mmpluld.visualization import render_report, write_report
from mmpluld.visualization.drawings import key_drawings, overview
from mmpluld.visualization.labels import Rect, overlap, place_labels
from mmpluld.visualization.pictures import (
    LUNG,
    SOFT_TISSUE,
    choose_window,
    jpeg_data_uri,
    project,
    window_slice,
)
from mmpluld.visualization.report import _json
from mmpluld.visualization.stack import KNOTS, hu_codes, neighbourhood, plan_stack

SPACING = (4.0, 2.0, 1.5)  # z, y, x
BOX = [20, 10, 3, 30, 18, 6]
KEY_BOX = [21, 10, 30, 18]


@pytest.fixture
def volume():
    """A soft-tissue block in air with one bright lesion, stored against k."""
    array = np.full((9, 48, 64), -1000, dtype=np.int16)
    array[:, 4:44, 6:58] = 40
    array[3:6, 10:18, 20:30] = 200
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])  # file k runs upwards
    return CTVolume.from_file_array(array.transpose(2, 1, 0)[:, :, ::-1].copy(), affine, "scans/case 7.nii.gz")


def find(volume, box=BOX, score=0.9, key=4, key_box=KEY_BOX):
    return Finding.from_canonical(volume, box, score, key, key_box)


class Page(HTMLParser):
    """Tags with their attributes, and the texts of script and style elements: (attributes, text)."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.raw = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in self.CDATA_CONTENT_ELEMENTS:
            self.raw.append((dict(attrs), ""))

    def handle_data(self, data):
        if self.cdata_elem:
            attributes, text = self.raw.pop()
            self.raw.append((attributes, text + data))

    @property
    def data(self):
        return json.loads(next(text for attributes, text in self.raw if attributes.get("id") == "data"))

    def marks(self, *classes):
        return [attributes for attributes in self.all("g") if attributes.get("class", "").split() == ["mark", *classes]]

    handle_startendtag = handle_starttag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL))


def decode(uri):
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def test_boxes_are_drawn_in_millimetres(volume):
    page = Page(render_report(volume, [find(volume)], {"Model": "m"}))
    drawn = [tuple(float(r[k]) for k in ("x", "y", "width", "height")) for r in page.all("rect")]
    axial = (21 * 1.5, 10 * 2.0, 9 * 1.5, 8 * 2.0)
    coronal = (20 * 1.5, 3 * 4.0, 10 * 1.5, 3 * 4.0)
    sagittal = (10 * 2.0, 3 * 4.0, 8 * 2.0, 3 * 4.0)
    assert drawn == [coronal, sagittal, axial, axial]
    views = [svg["viewbox"] for svg in page.all("svg") if svg.get("class") == "picture"]
    assert views == ["0 0 96 36", "0 0 96 36", "0 0 96 96", "1.5 0 70.5 70"]  # 70 mm around the finding


def test_picture_shows_the_key_slice_upright(volume):
    page = Page(render_report(volume, [find(volume)], {}))
    image = next(i for i in page.all("image") if i["id"] == "slice-4-soft-tissue")
    assert (image["width"], image["height"]) == ("96", "96")
    grey = decode(image["href"])
    expected = window_slice(volume.array[4], SOFT_TISSUE)
    assert grey.shape == expected.shape
    assert np.abs(grey.astype(int) - expected).mean() < 3
    assert grey[11:17, 22:29].min() > 200 > grey[30:40, 20:30].max()


def test_table_has_world_position_size_and_file_slice(volume):
    finding = find(volume)
    text = text_of(render_report(volume, [finding], {}))
    centre = (np.array(finding.box_world_lps[:3]) + finding.box_world_lps[3:]) / 2
    # Canonical z 4 is k = 4 of 0 to 8 from the other end; z1..z2 = 3..6 has its centre at slice 4.
    np.testing.assert_allclose(centre, [24.5 * 1.5, 13.5 * 2, 4 * 4.0])
    assert "36.8, 27.0, 16.0" in text
    assert "15.0 × 16.0 × 12.0" in text
    assert "k = 4 of 0 to 8" in text
    assert "64 × 48 × 9 voxels" in text
    assert "1.5 × 2 × 4 mm" in text


def test_diameters_are_listed_and_drawn_where_the_model_has_masks(volume):
    recist = RECIST(15.04, 8.0, (21, 10, 30, 14, 26, 11, 25, 17))
    page = render_report(volume, [replace(find(volume), recist=recist), find(volume, score=0.5)], {})
    assert "Long (mm) Short (mm)" in text_of(page) and " 15.0 8.0 12.0 " in text_of(page)
    assert text_of(page).count("15.0 × 8.0") == 1  # beside the picture
    drawn = [line for line in Page(page).all("line") if line["class"] == "diameter"]
    lines = [{key: line[key] for key in ("x1", "y1", "x2", "y2")} for line in drawn]
    assert lines == [
        {"x1": "31.5", "y1": "20", "x2": "45", "y2": "28"},
        {"x1": "39", "y1": "22", "x2": "37.5", "y2": "34"},
    ]
    assert Page(page).data["findings"][0]["lines"] == [[31.5, 20, 45, 28], [39, 22, 37.5, 34]]
    bare = render_report(volume, [find(volume)], {})
    assert "iameters" not in text_of(bare) and not Page(bare).all("line")


def test_tags_stand_beside_the_pictures(volume):
    tagged = replace(find(volume), tags=(("liver <left>", 0.934), ("mass", 0.5)))
    page = render_report(volume, [tagged, find(volume, score=0.4)], {})
    assert "liver &lt;left&gt; <b>0.93</b>" in page
    assert page.count('class="tags"') == 1


def test_no_finding_says_so_and_still_warns(volume):
    page = render_report(volume, [], {})
    assert "No findings." in text_of(page)
    assert "Research use only, not for diagnosis" in text_of(page)
    assert not Page(page).all("rect")


def test_page_is_self_contained(volume):
    page = render_report(volume, [find(volume)], {"Model": "m"})
    assert "://" not in page
    tags = Page(page).tags
    references = [attributes[k] for _, attributes in tags for k in ("src", "href") if k in attributes]
    assert references
    assert all(r.startswith(("#", "data:image/jpeg;base64,")) for r in references)
    targets = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert {r[1:] for r in references if r.startswith("#")} <= targets


def test_policy_allows_only_the_pages_own_script_and_style(volume):
    page = Page(render_report(volume, [find(volume)], {}))
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    allowed = dict(rule.split(" ", 1) for rule in policy.split("; "))
    style, script = (text for attributes, text in page.raw if not attributes)  # no type: obeyed, not data
    for rule, text in (("style-src", style), ("script-src", script)):
        assert allowed[rule] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert allowed["default-src"] == "'none'" and allowed["img-src"] == "data:"
    assert not any("style" in attributes or any(k.startswith("on") for k in attributes) for _, attributes in page.tags)


def test_names_are_escaped(volume):
    bad = '</script><script>alert(1)</script>\u2028<b>&"x"'
    evil = replace(volume, source=f"a/{bad.replace('/', '')}.nii", history=("<i>note</i>",))
    tagged = replace(find(evil), tags=((bad, 0.9),))
    page = render_report(evil, [tagged], {f"<Model>{bad}": bad})
    assert len(Page(page).all("script")) == 2 + len(range(9))  # data, program, one for each slice
    assert "<b>&" not in page and "alert(1)</script" not in page and "<i>note" not in page
    assert "&lt;b&gt;&amp;&#34;x&#34;" in page
    row = next(attributes for attributes in Page(page).all("tr") if "data-rank" in attributes)
    assert bad in row["data-facts"]


def test_data_in_a_script_element_cannot_end_it():
    text = "</script><!--<script>&\u2028\u2029"
    written = _json({"name": text})
    assert written.isascii() and not set("<>&") & set(written)
    assert json.loads(written) == {"name": text}


def test_shared_slice_is_stored_once_and_other_findings_are_dashed(volume):
    second = find(volume, [40, 20, 4, 50, 30, 5], 0.5, 4, [40, 20, 50, 30])
    page = Page(render_report(volume, [find(volume), second], {}))
    assert [i["id"] for i in page.all("image")] == ["coronal", "sagittal", "slice-4-soft-tissue"]
    assert len(page.marks("other")) == 4
    assert len(page.marks()) == 2 * 2 + 4


def test_pictures_are_limited_but_the_table_is_not(volume):
    many = [find(volume, score=0.9 - i / 100) for i in range(33)]
    page = render_report(volume, many, {})
    assert "3 more findings without pictures" in text_of(page)
    assert page.count("<tr data-rank=") == 33
    assert [i for i in range(1, 34) if f'id="finding-{i}"' in page] == list(range(1, 31))
    assert len(Page(page).data["findings"]) == 33


def test_oblique_scan_is_announced(volume):
    angle = np.radians(12)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilted = replace(volume, affine_lps=turn @ volume.affine_lps)
    assert "tilted by 12°" in text_of(render_report(tilted, [], {}))
    assert "tilted" not in text_of(render_report(volume, [], {}))


def hu_of(codes):
    return np.interp(codes, *np.array(KNOTS).T)


def test_stored_slices_give_hu_back(volume):
    page = Page(render_report(volume, [find(volume)], {}))
    stored = {a["id"]: text for a, text in page.raw if a.get("type") == "text/plain"}
    data = page.data
    assert list(stored) == [f"z{z}" for z in range(9)]
    codes = decode(stored["z4"])
    assert list(codes.shape[::-1]) == data["size"][:2]
    x1, y1 = (round(data["origin"][axis] / data["axes"][axis]["mm"]) for axis in (0, 1))
    expected = volume.array[4, y1 : y1 + codes.shape[0], x1 : x1 + codes.shape[1]].astype(float)
    error = np.abs(hu_of(codes) - expected)[expected > 0]
    assert np.median(error) < 5 and np.percentile(error, 95) < 30


def test_codes_are_finest_in_soft_tissue():
    hu = np.arange(-1100, 1600, dtype=np.int16)[None]
    error = np.abs(hu_of(hu_codes(hu)) - hu)[0]
    soft = (hu[0] > -200) & (hu[0] < 232)
    assert error[soft].max() <= 1.5
    assert error[(hu[0] >= -1024) & (hu[0] <= 1500)].max() <= 16.3
    floats = np.array([[np.nan, -4000.0, 40.4, 9000.0]], dtype=np.float32)
    assert hu_codes(floats).tolist() == hu_codes(np.array([[-1024, -1024, 40, 3000]], dtype=np.int16)).tolist()


def test_slices_near_findings_are_stored_once_and_fit_the_limit(volume):
    low, high = find(volume), find(volume, [40, 20, 0, 50, 30, 1], 0.5, 0, [40, 20, 50, 30])
    tall = CTVolume.from_canonical(np.full((90, 48, 64), 40, dtype=np.int16), SPACING)
    near = [neighbourhood(tall, find(tall, [20, 10, z, 30, 18, z + 3], key=z)) for z in (3, 60)]
    assert [n[2] for n in near] == [(0, 18), (52, 70)]
    stack = plan_stack(tall, [find(tall, [20, 10, z, 30, 18, z + 3], key=z) for z in (3, 60)])
    assert stack.slices == (*range(18), *range(52, 70))
    assert plan_stack(volume, [low, high]).slices == tuple(range(9))
    small = plan_stack(volume, [low], max_pixels=9 * 500)
    assert np.prod(small.size) == pytest.approx(500, rel=0.1)
    assert [decode(jpeg).shape[::-1] for _, jpeg in small.pictures(volume)] == [small.size] * 9


def test_stored_part_holds_the_body_and_what_is_near_findings():
    array = np.full((3, 400, 400), -1000, dtype=np.int16)
    array[:, 100:200, 120:180] = 40
    volume = CTVolume.from_canonical(array, (1, 1, 1))
    stack = plan_stack(volume, [])
    assert stack.x[0] <= 120 and stack.x[1] >= 180 and stack.y[0] <= 100 and stack.y[1] >= 200
    assert (stack.x[1] - stack.x[0]) * (stack.y[1] - stack.y[0]) < 10_000
    corner = Finding.from_canonical(volume, [380, 380, 0, 400, 400, 2], 0.5, 1, [380, 380, 400, 400])
    assert plan_stack(volume, [corner]).x[1] == plan_stack(volume, [corner]).y[1] == 400


def test_labels_never_overlap():
    generator = np.random.default_rng(0)
    boxes = [Rect(*generator.uniform(0, 90, 2), *generator.uniform(2, 10, 2)) for _ in range(100)]
    taken, view = [Rect(0, 90, 40, 10)], Rect(0, 0, 100, 100)
    for reach in (0, 6):
        labels = place_labels(boxes, [str(i) for i in range(100)], view, 4, taken, reach)
        rooms = [label.room for label in labels if label] + taken
        assert not any(overlap(a, b) for i, a in enumerate(rooms) for b in rooms[:i])
        assert labels[0] is not None and len(rooms) > 30
    assert any(label and label.leader for label in labels)


def test_overview_of_many_findings_numbers_the_first(volume):
    many = [find(volume, score=0.9)] * 300
    for drawing in overview(volume, many, {}):
        numbered = [mark.rank for mark in drawing.marks if mark.label]
        assert len(drawing.marks) == 300
        assert 1 in numbered and 3 < len(numbered) <= 40 and max(numbered) <= 40
    assert "Where boxes crowd" in text_of(render_report(volume, many[:60], {}))


@pytest.mark.parametrize("shape", [(1, 48, 64), (40, 9, 200), (3, 1, 1)])
def test_odd_shapes_have_a_page(shape):
    flat = CTVolume.from_canonical(np.zeros(shape, dtype=np.float32), (5, 0.5, 0.7))
    z, y, x = shape
    finding = find(flat, [0, 0, 0, x, y, z], key=z - 1, key_box=[0, 0, x, y])
    assert neighbourhood(flat, finding) == ((0, x), (0, y), (0, z))
    assert all(drawing.marks for drawing in key_drawings(1, flat, [finding], plan_stack(flat, [finding]), {}))
    assert Page(render_report(flat, [finding], {})).data["size"] == [x, y, z]


def test_same_input_same_file(volume, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, volume, [find(volume)], {})
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_lung_window_for_a_box_full_of_air(volume):
    assert choose_window(volume, find(volume)) == SOFT_TISSUE
    assert choose_window(volume, find(volume, key_box=[0, 0, 5, 4])) == LUNG
    assert choose_window(volume, find(volume, key_box=[64, 48, 64, 48])) == LUNG  # empty box at the very corner


def test_window_slice_ends():
    grey = window_slice(np.array([[-2000, -160, 40, 240, 3000]], dtype=np.int16), SOFT_TISSUE)
    assert grey.tolist() == [[0, 0, 128, 255, 255]]


def test_projections_show_where_density_is(volume):
    coronal, sagittal = project(volume)
    assert coronal.shape == (9, 64)
    assert sagittal.shape == (9, 48)
    assert coronal[4, 25] > coronal[8, 25] > coronal[4, 2]
    assert sagittal[4, 14] > sagittal[8, 14] > sagittal[4, 1]


def test_uniform_volume_has_projections():
    empty = CTVolume.from_canonical(np.full((3, 4, 5), -1000, dtype=np.int16), (1, 1, 1))
    coronal, sagittal = project(empty)
    assert not coronal.any()
    assert not sagittal.any()


def test_jpeg_round_trip():
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    assert np.abs(decode(jpeg_data_uri(ramp)).astype(int) - ramp).max() < 8


@pytest.mark.skipif("MMPLULD_TEST_DATA" not in os.environ, reason="needs MMPLULD_TEST_DATA, a folder with CT scans")
def test_box_of_a_real_tumour_lies_on_the_tumour():
    import SimpleITK

    from mmpluld.io import read_volume

    folder = Path(os.environ["MMPLULD_TEST_DATA"]) / "volumes"
    scan = read_volume(folder / "nsclc_lung1_001_image.nii.gz")
    mask = read_volume(folder / "nsclc_lung1_001_mask.nii.gz", labels=True).array > 0
    z, y, x = np.nonzero(mask)
    key = int(mask.sum(axis=(1, 2)).argmax())
    key_y, key_x = np.nonzero(mask[key])
    box = [x.min(), y.min(), z.min(), x.max() + 1, y.max() + 1, z.max() + 1]
    key_box = [key_x.min(), key_y.min(), key_x.max() + 1, key_y.max() + 1]
    finding = Finding.from_canonical(scan, box, 0.9, key, key_box)

    image = SimpleITK.ReadImage(str(folder / "nsclc_lung1_001_mask.nii.gz"))
    stored = np.nonzero(SimpleITK.GetArrayViewFromImage(image))
    middle = [float(axis.min() + axis.max()) / 2 for axis in stored[::-1]]
    expected = image.TransformContinuousIndexToPhysicalPoint(middle)
    world = np.array(finding.box_world_lps)
    np.testing.assert_allclose((world[:3] + world[3:]) / 2, expected, atol=1e-3)

    page = Page(render_report(scan, [finding], {}))
    image = next(i for i in page.all("image") if i["id"].startswith(f"slice-{key}-"))
    picture = np.zeros(scan.shape[1:], dtype=np.uint8)
    part, corner = decode(image["href"]), [round(float(image[axis]) / scan.spacing_mm[2]) for axis in ("x", "y")]
    picture[corner[1] : corner[1] + part.shape[0], corner[0] : corner[0] + part.shape[1]] = part
    rect = page.all("rect")[2]
    pixel = scan.spacing_mm[2]
    left, top = round(float(rect["x"]) / pixel), round(float(rect["y"]) / pixel)
    right, bottom = left + round(float(rect["width"]) / pixel), top + round(float(rect["height"]) / pixel)
    assert [left, top, right, bottom] == key_box
    inside = mask[key, top:bottom, left:right]
    assert inside.sum() == mask[key].sum()
    assert picture[top:bottom, left:right][inside].mean() > 2 * picture[top:bottom, left:right][~inside].mean()
