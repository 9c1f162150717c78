"""``mmpluld convert``: options that only some datasets know, and examples that are what they say."""

from __future__ import annotations

import re

import pytest

from mmpluld.cli.convert import EXAMPLE
from mmpluld.cli.main import main
from mmpluld.datasets.converters.box_coco import read_box_coco
from mmpluld.datasets.converters.box_rows import Convention, read_box_csv


def test_examples_of_the_help_can_be_read(tmp_path):
    lines = [line.strip() for line in EXAMPLE.splitlines()]
    start = lines.index("volume,x1,y1,z1,x2,y2,z2,patient,split,type,key_slice,ignore")
    side_by_side = [re.split(r"\s{4,}", line) for line in lines[start + 4 :] if re.search(r",\S+\s{4,}\S+,", line)]
    tables = [lines[start : start + 3], *map(list, zip(*side_by_side, strict=True))]
    assert [len(table) for table in tables] == [3, 2, 2]
    for table in tables:
        (tmp_path / "boxes.csv").write_text("\n".join(table))
        assert read_box_csv(tmp_path / "boxes.csv", Convention())[0].empty is False
    (tmp_path / "boxes.json").write_text(EXAMPLE[EXAMPLE.index('{"images"') :])
    assert [row.flat for row in read_box_coco(tmp_path / "boxes.json", Convention())] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["boxes", "data"], "boxes: no boxes given; name the CSV or COCO file with --boxes FILE"),
        (["deeplesion-3d", "data"], "deeplesion-3d: no boxes given; name the published file with --boxes FILE"),
        (["lits", "data", "--inclusive"], "--inclusive: is no option of lits, only of boxes; leave it out"),
        (["boxes", "data", "--boxes", "b.csv", "--min-voxels", "3"], "--min-voxels: is no option of boxes"),
        (["boxes", "data", "--boxes", "b.csv"], "b.csv: cannot be read (no such file)"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed and len(printed.strip().splitlines()) == 1
