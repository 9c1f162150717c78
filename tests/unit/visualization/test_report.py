from __future__ import annotations

import base64
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
from mmpluld.visualization.pictures import (
    LUNG,
    SOFT_TISSUE,
    choose_window,
    jpeg_data_uri,
    project,
    window_slice,
)

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
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL))


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
    views = [svg["viewbox"] for svg in page.all("svg") if "viewbox" in svg]
    assert views[:3] == ["0 0 96 36", "0 0 96 36", "0 0 96 96"]


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
    assert "Diameters, long × short" in text_of(page)
    assert text_of(page).count("15.0 × 8.0") == 2  # table and picture
    lines = [{key: line[key] for key in ("x1", "y1", "x2", "y2")} for line in Page(page).all("line")]
    assert lines == [
        {"x1": "31.5", "y1": "20", "x2": "45", "y2": "28"},
        {"x1": "39", "y1": "22", "x2": "37.5", "y2": "34"},
    ]
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


def test_page_is_self_contained_and_has_no_script(volume):
    page = render_report(volume, [find(volume)], {"Model": "m"})
    assert "http" not in page
    assert "<script" not in page
    tags = Page(page).tags
    references = [attributes[k] for _, attributes in tags for k in ("src", "href") if k in attributes]
    assert references
    assert all(r.startswith(("#", "data:image/jpeg;base64,")) for r in references)
    targets = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert {r[1:] for r in references if r.startswith("#")} <= targets


def test_names_are_escaped(volume):
    evil = replace(volume, source='a/<b>&"x".nii', history=("<i>note</i>",))
    page = render_report(evil, [], {"<Model>": "<script>alert(1)</script>"})
    assert "<script" not in page
    assert "<b>" not in page
    assert "<i>note" not in page
    assert "&lt;b&gt;&amp;&#34;x&#34;.nii" in page


def test_shared_slice_is_stored_once_and_other_findings_are_dashed(volume):
    second = find(volume, [40, 20, 4, 50, 30, 5], 0.5, 4, [40, 20, 50, 30])
    page = Page(render_report(volume, [find(volume), second], {}))
    assert [i["id"] for i in page.all("image")] == ["coronal", "sagittal", "slice-4-soft-tissue"]
    assert sum("other" in r["class"] for r in page.all("rect")) == 4


def test_pictures_are_limited_but_the_table_is_not(volume):
    many = [find(volume, score=0.9 - i / 100) for i in range(5)]
    page = render_report(volume, many, {}, max_pictures=2)
    assert "3 more findings without pictures" in text_of(page)
    assert page.count("<tr><td>") == 5
    assert [i for i in range(1, 6) if f'id="finding-{i}"' in page] == [1, 2]


def test_oblique_scan_is_announced(volume):
    angle = np.radians(12)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilted = replace(volume, affine_lps=turn @ volume.affine_lps)
    assert "tilted by 12°" in text_of(render_report(tilted, [], {}))
    assert "tilted" not in text_of(render_report(volume, [], {}))


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
    picture = decode(next(i["href"] for i in page.all("image") if i["id"].startswith(f"slice-{key}-")))
    rect = page.all("rect")[2]
    pixel = scan.spacing_mm[2]
    left, top = round(float(rect["x"]) / pixel), round(float(rect["y"]) / pixel)
    right, bottom = left + round(float(rect["width"]) / pixel), top + round(float(rect["height"]) / pixel)
    assert [left, top, right, bottom] == key_box
    inside = mask[key, top:bottom, left:right]
    assert inside.sum() == mask[key].sum()
    assert picture[top:bottom, left:right][inside].mean() > 2 * picture[top:bottom, left:right][~inside].mean()
