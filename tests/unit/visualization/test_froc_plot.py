from __future__ import annotations

import cv2
import numpy as np
import pytest

from mmpluld.errors import InputError
from mmpluld.visualization import plot_froc

LEVELS = [0.5, 1.0, 2.0, 4.0]


def result(protocol="deeplesion-2d", **extra):
    return {
        "protocol": protocol,
        "per": "image",
        "levels": LEVELS,
        "sensitivity": [0.5, 0.6, 0.7, 0.8],
        "average": 0.65,
        "num_lesions": 12,
        **extra,
    }


def test_picture_is_written(tmp_path):
    plot_froc({"ours": result()}, tmp_path / "froc.png")
    picture = cv2.imread(str(tmp_path / "froc.png"))
    assert picture.shape == (660, 960, 3)
    colours = np.unique(picture.reshape(-1, 3), axis=0)
    assert [178, 114, 0] in colours.tolist()  # the first line's blue, BGR
    assert [path.name for path in tmp_path.iterdir()] == ["froc.png"]


def test_labels_ticks_and_interval_are_in_the_picture(tmp_path):
    interval = {"sensitivity": [[0.4, 0.6], [0.5, 0.7], [0.6, 0.8], [None, None]]}
    plot_froc({"ours": result(interval=interval), "theirs": result()}, tmp_path / "froc.svg")
    text = (tmp_path / "froc.svg").read_text()
    for words in ("ours (average 65.0)", "theirs (average 65.0)", "deeplesion-2d, 12 lesions", "1/2"):
        assert f"<!-- {words} -->" in text
    assert "PolyCollection" in text


def test_equal_plots_are_equal_files(tmp_path):
    for suffix in ("svg", "pdf", "png"):
        for name in ("a", "b"):
            plot_froc({"ours": result()}, tmp_path / f"{name}.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("results", "name", "message"),
    [
        ({"ours": result()}, "froc.bmp", "cannot plot to '.bmp'; allowed are .png, .svg, .pdf"),
        ({}, "froc.png", r"protocols \(none\) cannot share a plot"),
        ({"a": result(), "b": result("lens-3d")}, "froc.png", "protocols deeplesion-2d, lens-3d cannot share"),
    ],
)
def test_refusals(tmp_path, results, name, message):
    with pytest.raises(InputError, match=message):
        plot_froc(results, tmp_path / name)
    assert not list(tmp_path.iterdir())
