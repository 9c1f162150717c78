"""Reading of JSON, tables and text: what is wrong with a file is one line, and nothing is guessed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mmpluld.errors import InputError
from mmpluld.structures.text_files import parse_number, read_json, read_rows, read_table, read_text


@pytest.fixture
def refused(tmp_path):
    """``refused(content, message)`` on JSON; the message is one line that begins with the file."""

    def check(content, message, read=read_json):
        path = tmp_path / "a.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match=message) as caught:
            read(path, "a record")
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
        assert "give a record" in str(caught.value).lower()

    return check


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_that_says_its_encoding(tmp_path, encoding):
    (tmp_path / "a.json").write_text('{"ä": 1}', encoding=encoding)
    assert read_json(tmp_path / "a.json", "a record") == {"ä": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xe4", "not UTF-8 text .unexpected end of data at byte 0"),
        ("[1]".encode("utf-16-le"), "not text .a zero byte after 1 characters.; is it UTF-16 without its mark"),
        ('["a\0"]', "not text .a zero byte after 3 characters"),
        ("", "not valid JSON"),
        ('{"a": [1,', "not valid JSON .*it may be cut off"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": ' * 100_000, "nested too deep"),
        ('[1,\n NaN]', "NaN is no JSON number: line 2"),
        ("[-Infinity]", "-Infinity is no JSON number: line 1"),
        ("[1,\n\n1e999]", "the number 1e999 is too large: line 3"),
        ("[9223372036854775808]", "the whole number 9223372036854775808 has more than 64 bits: line 1"),
        ("[1" + "0" * 5000 + "]", "the whole number 10{29} has more than 64 bits"),
        ('{"b": 1,\n"a": 1, "a": 2}', "the key 'a' stands twice in one object: line 2"),
        (r'["\ud800"]', "half a surrogate pair"),
    ],
)  # fmt: skip
def test_json_that_is_none(refused, content, message):
    refused(content, message)


def test_numbers_of_64_bits(tmp_path):
    (tmp_path / "a.json").write_text("[9223372036854775807, -9223372036854775808, 1e308]")
    assert read_json(tmp_path / "a.json", "x") == [2**63 - 1, -(2**63), 1e308]


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "folder").mkdir()
    previous = signal.alarm(20)  # a pipe would wait for ever
    for name, message in (
        ("pipe", "is a named pipe; give a record, as a file"),
        ("loop", "a link that leads to itself"),
        ("dangling", "dangling is a link to gone, which does not exist"),
        ("folder", "is a folder; give a record"),
        ("none", r"cannot be read \(no such file\); give a record"),
        ("folder/x/y", "no such file"),
        ("a" * 300, "File name too long"),
        ("a\0b", "null byte"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_text(tmp_path / name, "a record")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="is a device"):
        read_text("/dev/zero", "a record")
    signal.alarm(previous)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and does not read")
def test_a_file_that_does_not_read():
    with pytest.raises(InputError, match=r"/proc/self/mem: cannot be read \(Input/output error\)"):
        read_text("/proc/self/mem", "a record")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_any_delimiter(tmp_path, delimiter):
    lines = ["a,b", '1,"x', 'y"', ",", "2,z"]
    (tmp_path / "t.csv").write_text("\n".join(lines).replace(",", delimiter))
    table = read_table(tmp_path / "t.csv", "a table", ("a", "b"))
    assert (table.columns, table.rows) == (["a", "b"], [(3, ["1", "x\ny"]), (5, ["2", "z"])])
    with pytest.raises(ValueError, match=r"3 cells under 2 columns; a decimal comma\?"):
        table.named(["1", "5", "z"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('a,b\n1,"open', "not a CSV text file .unexpected end of data at line"),
        (f"a,b\n{'x' * 140_000},1", "not a CSV text file .field larger than field limit"),
        ("a,b\n\0,1", "not text"),
        (b"a,b\n\xfc,1", "not UTF-8 text"),
    ],
)
def test_tables_that_are_none(refused, content, message):
    refused(content, message, read_rows)


def test_headers(tmp_path):
    path = tmp_path / "t.csv"
    for content, message in (
        ("", "no column 'a'"),
        ("aa,b\n", "is it the one called 'aa'"),
        ("a,b,b\n", "two columns 'b'"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            read_table(path, "a table", ("a",))


@pytest.mark.parametrize("text", ["1_000", "nan", "inf", "1e999", "", "x", "1 2", "\u0661", "0x1", "1,5"])
def test_cells_that_are_no_number(text):
    with pytest.raises(ValueError, match="x1 is .*; needed is a finite number"):
        parse_number("x1", text)


def test_a_decimal_comma_is_named():
    with pytest.raises(ValueError, match="with a decimal point, not a comma"):
        parse_number("x1", "1,5")
    assert [parse_number("x1", text) for text in (" 1.5 ", "-.5", "+2e-1", "7.")] == [1.5, -0.5, 0.2, 7.0]
