"""Reading CSV tables of boxes: layouts, counting, faults."""

from __future__ import annotations

import pytest

from mmpluld.datasets.converters.box_rows import BoxRow, Convention, read_box_csv
from mmpluld.errors import InputError

HEAD = "volume,x1,y1,z1,x2,y2,z2"


@pytest.fixture
def read(tmp_path):
    def run(text, encoding="utf-8", **convention):
        path = tmp_path / "boxes.csv"
        path.write_bytes(text.encode(encoding))
        return read_box_csv(path, Convention(**convention))

    return run


def test_a_plain_table(read):
    rows = read(
        f"{HEAD},patient,split,type,ignore,key_slice,lesion\ns,1,2,3,4,5.5,6,007,val,lung,1,4,n\n\ns,,,,,,,,,,,,\n"
    )
    assert rows[0] == BoxRow(
        "line 2", "s", (1.0, 2.0, 3.0, 4.0, 5.5, 6.0), key_slice=4, lesion="n", type="lung", ignore=True, patient="007",
        split="val",
    )  # fmt: skip
    assert rows[1] == BoxRow("line 4", "s") and rows[1].empty


@pytest.mark.parametrize("text", [
    "File;X1;Y1;Z1;X2;Y2;Z2\r\ns;1;2;3;4;5;6\r\n;;;;;;\r\n",
    "\ufeff seriesuid\tx1\ty1\tz1\tx2\ty2\tz2\ns\t1\t2\t3\t4\t5\t6",
    'Z2,z1,y2,y1,x2,x1,volume\n6,3,5,2,4,1,"s"\n',
])  # fmt: skip
def test_what_spreadsheets_write(read, text):
    assert read(text)[0].box == (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def test_slices_count_from_one_like_voxels(read):
    (row,) = read("volume,x1,y1,x2,y2,slice\ns,1,1,4,5,9\n", one_based=True, inclusive=True)
    assert (row.box, row.key_slice, row.flat) == ((0.0, 0.0, 8.0, 4.0, 5.0, 9.0), 8, True)
    (row,) = read(f"{HEAD},key_slice\ns,1,1,1,4,5,6,3\n", one_based=True)
    assert (row.box, row.key_slice) == ((0.0, 0.0, 0.0, 3.0, 4.0, 5.0), 2)


def test_worlds(read):
    (row,) = read("volume,x_ras,y_ras,z_ras,diameter_x_mm,diameter_y_mm,diameter_z_mm\ns,1,-2,3,4,5,6\n")
    assert (row.centre_lps, row.sizes_mm) == ((-1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    (row,) = read("seriesuid,coordX,coordY,coordZ,diameter_mm\ns,1,-2,3,4\n", world="ras")
    assert (row.centre_lps, row.sizes_mm) == ((-1.0, 2.0, 3.0), (4.0,))


@pytest.mark.parametrize(
    ("text", "convention", "message"),
    [
        (f"{HEAD},cofidence\n", {}, r"unknown column 'cofidence'.*rename or remove it"),
        ("volume,x1,y1,z1,x2,y2,zz2\n", {}, r"unknown column 'zz2'; did you mean 'z2'\?"),
        ("volume,x1,y1,x2,y2\n", {}, r"columns volume, x1, y1, x2, y2 give no box, or two; allowed is one of: x1, y1"),
        (f"{HEAD},slice\n", {}, r"give no box, or two"),
        (f"{HEAD},x_lps,y_lps,z_lps,diameter_mm\n", {}, r"give no box, or two"),
        ("volume,x_lps,y_lps,z_lps\n", {}, r"give no box, or two"),
        ("x1,y1,z1,x2,y2,z2\n", {}, r"columns none name the scan"),
        ("volume,file,x1,y1,z1,x2,y2,z2\n", {}, r"columns volume, file name the scan"),
        (f"{HEAD},X1\n", {}, r"two columns 'x1'"),
        ("volume,x1,y1,x2,y2,slice,key_slice\n", {}, r"keep slice"),
        ("", {}, r"columns none name the scan"),
        ("volume,coordX,coordY,coordZ,diameter_mm\n", {}, r"do not say in which world; pass --world lps"),
        ("volume,x_lps,y_lps,z_lps,diameter_mm\n", {"world": "ras"}, r"--world ras, but the columns are x_lps"),
        ("volume,x_lps,y_lps,z_lps,diameter_mm\n", {"inclusive": True}, r"centres are in mm; leave out --inclusive"),
        (f"{HEAD}\n", {"world": "ras"}, r"--world ras, but its boxes are in voxels"),
        (f"{HEAD}\ns,1,2,3,1,5,6\n", {}, r"1 faulty row: line 2: x2 is 1 and x1 1; needed is x2 above x1, or pass --"),
        (f"{HEAD}\ns,1,2,3,0,5,6\n", {"inclusive": True}, r"line 2: x2 is 0 and x1 1; needed is x2 above x1;"),
        (f"{HEAD}\ns,1,2,3,4,5,nan\n", {}, r"line 2: z2 is 'nan'; needed is a finite number"),
        (f"{HEAD}\ns,1,2,3,4,5,\n", {}, r"line 2: z2 is ''; needed is a finite number"),
        (f"{HEAD}\n,1,2,3,4,5,6\n", {}, r"line 2: volume is empty"),
        (f"{HEAD}\ns,1,5,2,3,4,5,6\n", {}, r"line 2: 8 cells under 7 columns; a decimal comma\? write a point"),
        (f"{HEAD}\ns,1,2\n", {}, r"line 2: 3 cells under 7 columns;"),
        (f"{HEAD},ignore\ns,1,2,3,4,5,6,perhaps\n", {}, r"ignore is 'perhaps'; allowed are 0, 1, true"),
        (f"{HEAD},key_slice\ns,1,2,3,4,5,6,3.5\n", {}, r"key_slice is '3.5'; needed is a whole number"),
        ("volume,x_lps,y_lps,z_lps,diameter_mm\ns,1,2,3,0\n", {}, r"diameter_mm is 0; needed are mm above 0"),
        ("volume,x_lps,y_lps,z_lps,diameter_mm\ns,1,2,3,8000\n", {}, r"diameter_mm is 8000; .* above 0, up to 500;"),
        ("volume,x1,y1,z1,x2,y2,z2,type\ns,,,,,,,liver\n", {}, r"type is liver, but the row has no box; give one"),
        ("volume,x1,y1,z1,x2,y2,z2,ignore\ns,,,,,,,1\n", {}, r"ignore is 1, but the row has no box"),
        ("volume,x1,y1,z1,x2,y2,z2,key_slice\ns,,,,,,,7\n", {}, r"key_slice is 7, but the row has no box"),
        (f"{HEAD}\n" + "s,1,1,1,1,2,2\n" * 7, {}, r"7 faulty rows: line 2: .*line 6: .*; and 2 more; mend the file"),
    ],
)  # fmt: skip
def test_faults_are_one_clear_line(read, text, convention, message):
    with pytest.raises(InputError, match=message) as caught:
        read(text, **convention)
    assert "boxes.csv: " in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_no_table(read, tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: cannot be read \(no such file"):
        read_box_csv(tmp_path / "none.csv", Convention())
    with pytest.raises(InputError, match=r"not UTF-8 text.*CSV.*saved in UTF-8"):
        read(f"{HEAD}\nMünchen,1,1,1,2,2,2\n", encoding="latin-1")
