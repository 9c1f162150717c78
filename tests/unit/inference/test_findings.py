"""Findings as people see them: printed, in a notebook, plotted, and as a pandas frame and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmpluld import CTVolume, Findings
from mmpluld.errors import InputError
from mmpluld.inference import Detector
from mmpluld.io.scans import scan_title
from mmpluld.structures import RECIST, Finding


@pytest.fixture(scope="module")
def volume():
    """File axes: i to Posterior, j to Superior, k to Right; 40 x 20 x 50 voxels of 1 x 2 x 3 mm."""
    affine = np.array([[0, 0, -3, 0], [1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 1.0]])
    array = np.random.default_rng(0).integers(-200, 200, (40, 20, 50)).astype(np.int16)
    return CTVolume.from_file_array(array, affine, "<b>scan</b>.mhd")


@pytest.fixture(scope="module")
def findings(volume):
    recist = RECIST(12.0, 6.5, (1.0, 2.0, 5.0, 2.0, 3.0, 1.0, 3.0, 3.25))
    made = (
        Finding.from_canonical(volume, (10, 11, 2, 14, 16, 5), 0.75, 3, (10, 11, 14, 16), recist, (("<i>", 0.9),)),
        Finding.from_canonical(volume, (8.25, 1, 3, 12.5, 7, 4), 0.5, 3, (8, 1, 12, 7)),
    )
    return Findings("<b>scan</b>", volume, made, {"Model": "toy", "Score threshold": "0.3", "Weights": "toy.zip"})


def test_printed(findings):
    title, header, first, second = str(findings).splitlines()
    assert title == "<b>scan</b>: 2 findings; model toy; score threshold 0.3"
    assert header.split()[:2] == ["score", "size"]
    assert "0.75  12 x 5 x 6" in first
    assert "12 x 6" in first and "<i> 0.90" in first
    assert "0.50" in second
    assert len({len(line.rstrip()) for line in (header, first)}) <= 2
    assert repr(findings) == "<Findings in '<b>scan</b>': 2, best score 0.75>"
    assert repr(findings[0]) == "<Finding: score 0.75, 12 x 5 x 6 mm at (-112, 13, 32) LPS mm, slice 16>"
    assert repr(findings.volume) == (
        "<CTVolume '<b>scan</b>.mhd': 20 x 40 x 50 voxels of 2 x 1 x 3 mm (z, y, x), int16 HU>"
    )


def test_a_part_is_findings_again(findings):
    last = findings[1:]
    assert isinstance(last, Findings)
    assert last.findings == findings.findings[1:]
    assert (last.name, last.volume, last.details) == (findings.name, findings.volume, findings.details)
    assert repr(findings[::-1]) == repr(findings)  # the best score wherever it stands


def test_nothing_found(volume):
    none = Findings("a", volume, (), {})
    assert str(none) == "a: 0 findings"
    assert repr(none) == "<Findings in 'a': 0>"
    assert none.plot().axes[0].get_title() == "no findings"
    assert len(none.to_pandas()) == 0
    assert len(Findings.from_pandas(none.to_pandas(), none)) == 0


def test_a_link_does_not_tell_what_is_behind_it(findings, volume, tmp_path):
    scan, link = tmp_path / "DOE_JOHN.nii.gz", tmp_path / "p001.nii.gz"
    scan.touch()
    link.symlink_to(scan)
    linked = replace(findings, name=scan_title(link), volume=replace(volume, source=str(link)))
    files = linked.save(tmp_path / "out", ["json", "html", "coco", "luna16"])
    texts = [path.read_text(encoding="utf-8") for path in files]
    assert "<title>Lesion findings: p001</title>" in texts[1]  # called as its result
    assert scan_title(link) == "p001"
    assert all("p001" in text and "DOE_JOHN" not in text and str(tmp_path) not in text for text in texts)


def test_many_are_cut_and_counted(findings, volume):
    many = Findings("a", volume, findings.findings * 50, {})
    assert len(str(many).splitlines()) == 33
    assert str(many).endswith("... and 70 more")
    assert many._repr_html_().count("<tr>") == 31


def test_notebook_escapes_what_files_say(findings):
    page = findings._repr_html_()
    assert "&lt;b&gt;scan&lt;/b&gt;" in page
    assert "&lt;i&gt;" in page
    assert "<b>" not in page and "<i>" not in page


def test_plot_has_a_slice_for_each_with_all_boxes_there(findings, volume):
    figure = findings.plot()
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(drawn) == 2
    assert [len(axes.patches) for axes in drawn] == [2, 2]
    box = next(patch for patch in drawn[0].patches if patch.get_xy() == (10, 11))
    assert (box.get_width(), box.get_height()) == (4, 5)
    assert drawn[0].images[0].get_array().shape == volume.shape[1:]
    assert len([axes for axes in findings.plot(most=1).axes if axes.images]) == 1
    with pytest.raises(InputError, match="0 findings to draw; allowed is 1 or more"):
        findings.plot(most=0)


def test_frame_and_back(findings, volume):
    frame = findings.to_pandas()
    assert len(frame) == 2
    assert tuple(frame.loc[0, ["i1", "j1", "k1", "i2", "j2", "k2"]]) == findings[0].box_source
    back = Findings.from_pandas(frame.iloc[::-1], findings)
    assert back.findings == findings.findings
    assert (back.name, back.volume, back.details) == (findings.name, volume, findings.details)
    best = findings.only(lambda finding: finding.score > 0.6)
    assert best.findings == Findings.from_pandas(frame[frame.score > 0.6], findings).findings == findings.findings[:1]
    assert str(best) == "\n".join(str(findings).replace("2 findings", "1 finding").splitlines()[:3])
    few = frame[["score", "x1", "y1", "z1", "x2", "y2", "z2", "key_slice", "key_x1", "key_y1", "key_x2", "key_y2"]]
    plain = Findings.from_pandas(few, findings)
    assert [item.box_world_lps for item in plain] == [item.box_world_lps for item in findings]
    assert plain[0].recist is None and plain[0].tags == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 1.5}, "row 0 of the frame: score is 1.5; allowed is 0 to 1"),
        ({"score": np.nan}, "row 0 of the frame: score is nan; needed is a finite number"),
        ({"x1": "a"}, "row 0 of the frame: x1 is 'a'; needed is a finite number"),
        ({"x1": 40.0}, "row 0 of the frame: "),
        ({"key_slice": 20}, "key_slice is 20; allowed are whole numbers from 0 to 19"),
        ({"x1": 4000.0, "x2": 4010.0}, "x1 to x2 are 4000 to 4010, outside the scan; needed is .* its voxels, 0 to 50"),
        ({"y1": -9.0, "y2": 0.0}, "y1 to y2 are -9 to 0, outside the scan"),
        ({"z1": 20.0, "z2": 22.0}, "z1 to z2 are 20 to 22, outside the scan"),
        ({"key_y1": 40.0, "key_y2": 41.0}, "key_y1 to key_y2 are 40 to 41, outside the scan; .* 0 to 40"),
        ({"key_slice": 5}, "key_slice is 5, outside its box; needed is a slice from z1 2 to z2 5"),
        ({"i1": 3.0}, "i1 is 3, but by x1 to z2 and key_slice it is 11; change these, and drop the column 'i1'"),
        ({"z1": 1.0}, "j2 is 18, but by x1 to z2 and key_slice it is 19"),
        ({"tags": "liver"}, "tags is 'liver'; needed is a dict"),
        ({"long_mm": np.nan}, "long_mm is nan; needed is a finite number"),
    ],
)
def test_frame_that_does_not_fit(findings, volume, change, message):
    frame = findings.to_pandas().astype(object)
    for name, value in change.items():
        frame.at[0, name] = value
    with pytest.raises(InputError, match=message):
        Findings.from_pandas(frame, findings)
    with pytest.raises(InputError, match="the frame has no column 'key_x2'; needed are score"):
        Findings.from_pandas(frame.drop(columns="key_x2"), findings)


def test_without_pandas(findings, monkeypatch):
    monkeypatch.setattr("mmpluld.compat.extras.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs pandas, which the extra \[pandas\] brings .*'pandas>=2.0'"):
        findings.to_pandas()


@pytest.mark.parametrize("units", [None, "hu"])
def test_volume_that_is_not_finite_is_refused(units):
    array = np.random.default_rng(0).normal(0, 300, (9, 64, 64)).astype(np.float32)
    array[3, 2, 1], array[5] = np.inf, np.nan
    with pytest.raises(InputError, match=r"memory: 4097 of 36864 voxels are NaN or inf, the first at index \(3, 2, 1"):
        Detector()(CTVolume.from_canonical(array, (2, 1, 1)), units=units)


def test_volume_that_is_not_hu_is_refused():
    grey = CTVolume.from_canonical(np.random.default_rng(0).integers(0, 255, (9, 64, 64)).astype(np.int16), (2, 1, 1))
    detector = Detector()
    with pytest.raises(InputError, match="memory: values are not HU"):
        detector(grey)
    with pytest.raises(InputError, match="memory: series '1.2' chooses among DICOM files"):
        detector(grey, series="1.2")
