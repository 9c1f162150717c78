"""The one way to read records that people or other programs wrote: JSON, tables and plain text.

Whatever is wrong with such a file becomes one line. Text is UTF-8, or UTF-16 or UTF-32 that says so in its first bytes.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mmpluld.errors import InputError, counted, nearest
from mmpluld.inputs import read_bytes
from mmpluld.typing import StrPath

__all__ = [
    "Table",
    "check_columns",
    "parse_json",
    "parse_number",
    "parse_rows",
    "read_json",
    "read_object",
    "read_rows",
    "read_table",
    "read_text",
    "refuse_faults",
]

_Parsed = TypeVar("_Parsed")

# The longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DELIMITERS = ",;\t"
_MOST_FAULTS = 5
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)


class _Unfit(ValueError):
    """JSON of a form that records do not have; ``token`` is how it is written there."""

    def __init__(self, message: str, token: str) -> None:
        super().__init__(message)
        self.token = token


@dataclass(frozen=True)
class Table:
    """A table with a header.

    Attributes:
        columns: Names as written, without surrounding blanks, each once.
        rows: Last line of each row, from 1, and its cells as written; blank lines are left out.
    """

    columns: list[str]
    rows: list[tuple[int, list[str]]]

    def named(self, cells: list[str]) -> dict[str, str]:
        """The cells of a row by column, without surrounding blanks.

        Raises:
            ValueError: There are more or fewer cells than columns; the message says so.
        """
        if len(cells) != len(self.columns):
            hint = "; a decimal comma? write a point" if len(cells) > len(self.columns) else ""
            raise ValueError(f"{len(cells)} cells under {len(self.columns)} columns{hint}")
        return {name: cell.strip() for name, cell in zip(self.columns, cells, strict=True)}


def read_text(path: StrPath, wanted: str) -> str:
    """Return the text of a file, without the mark of its encoding.

    Args:
        path: The file.
        wanted: What to give instead, for the message.

    Raises:
        InputError: It cannot be read, or is not text.
    """
    content = read_bytes(path, wanted)
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); give {wanted}, saved in UTF-8"
        ) from None
    if "\0" in text:
        where = text.index("\0")
        hint = "is it UTF-16 without its mark? " if text.count("\0") > len(text) // 4 else ""
        raise InputError(
            f"{path}: not text (a zero byte after {where} characters); {hint}Give {wanted}, saved in UTF-8"
        )
    return text


def read_json(path: StrPath, wanted: str) -> Any:
    """Parse a JSON file.

    Stricter than Python's own reader, which takes NaN, Infinity, 1e999 (as infinity), whole numbers of any length and
    the last of several equal keys.

    Args:
        path: The file.
        wanted: What to give instead, for the message.

    Raises:
        InputError: It cannot be read or is not JSON, or holds one of the above, nesting too deep to follow, or half
            characters.
    """
    return parse_json(read_text(path, wanted), path, wanted)


def read_object(path: StrPath, wanted: str, keys: Sequence[str]) -> dict[str, Any]:
    """Parse a JSON file that holds one object with certain keys.

    Args:
        path: The file.
        wanted: What to give instead, for the message.
        keys: Keys that must be there.

    Raises:
        InputError: As :func:`read_json`, or it is no object, or lacks a key.
    """
    data = read_json(path, wanted)
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds a {type(data).__name__}, not an object; give {wanted}")
    for key in keys:
        if key not in data:
            raise InputError(f"{path}: lacks {key!r}; give {wanted}")
    return data


def parse_json(text: str, path: StrPath, wanted: str) -> Any:
    """Parse JSON as :func:`read_json` does; ``path`` is its name for messages.

    Raises:
        InputError: As there.
    """
    try:
        data = json.loads(
            text, parse_constant=_constant, parse_float=_real, parse_int=_whole, object_pairs_hook=_object
        )
        if _SURROGATE.search(text):
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        raise InputError(f"{path}: not valid JSON (nested too deep); give {wanted}") from None
    except UnicodeEncodeError:
        raise InputError(f"{path}: not valid JSON (half a surrogate pair in a text); give {wanted}") from None
    except _Unfit as error:
        found = re.search(rf"[\[,:\s]{re.escape(error.token)}", text)
        line = text.count("\n", 0, found.start() + 1) + 1 if found else 1
        raise InputError(f"{path}: not valid JSON ({error}: line {line}); give {wanted}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); it may be cut off, give {wanted}") from None
    return data


def read_rows(path: StrPath, wanted: str) -> list[tuple[int, list[str]]]:
    """Last line, from 1, and cells of every row of a CSV file that is not blank.

    Cells are separated by comma, semicolon or tab, whichever the first line has most of.

    Args:
        path: The file.
        wanted: What to give instead, for the message.

    Raises:
        InputError: It cannot be read, is not text, or quotes are open at its end.
    """
    text = read_text(path, wanted)
    header = text.lstrip().partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=header.count), strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(
            f"{path}: not a CSV text file ({error} at line {reader.line_num}); give {wanted}, saved as CSV"
        ) from None


def read_table(path: StrPath, wanted: str, needed: Sequence[str] = ()) -> Table:
    """Read a CSV file with a header.

    Args:
        path: The file.
        wanted: What to give instead, for the message.
        needed: Columns that must be there.

    Raises:
        InputError: As :func:`read_rows`, or a column is missing, or a name stands twice in the header.
    """
    rows = read_rows(path, wanted)
    columns = [name.strip() for name in rows[0][1]] if rows else []
    check_columns(path, columns, needed)
    return Table(columns, rows[1:])


def check_columns(path: StrPath, columns: Sequence[str], needed: Sequence[str] = ()) -> None:
    """Refuse a header that lacks a column or has a name twice.

    Raises:
        InputError: If it does.
    """
    for name in needed:
        if name not in columns:
            close = nearest(name, columns)
            hint = f"; is it the one called {close!r}?" if close else ""
            raise InputError(f"{path}: no column {name!r} in the header{hint}; needed: {', '.join(needed)}")
    for name in columns:
        if name and columns.count(name) > 1:
            raise InputError(f"{path}: two columns {name!r} in the header; keep one")


def parse_rows(path: StrPath, table: Table, parse: Callable[[int, int, dict[str, str]], _Parsed]) -> list[_Parsed]:
    """Parse every row of a table.

    Args:
        path: The table's file, for messages.
        table: Its content.
        parse: Makes something of a row from its number, from 0, its line in the file, and its cells by column. A
            ``ValueError`` says what is wrong with the row.

    Raises:
        InputError: Rows are faulty; the first five are named.
    """
    parsed, faults = [], []
    for row, (line, cells) in enumerate(table.rows):
        try:
            parsed.append(parse(row, line, table.named(cells)))
        except ValueError as error:
            faults.append(f"line {line}: {error}")
    refuse_faults(path, faults)
    return parsed


def refuse_faults(path: StrPath, faults: Sequence[str]) -> None:
    """Refuse a table with faulty rows.

    Raises:
        InputError: There are faults; the first five are named.
    """
    if faults:
        more = f"; and {len(faults) - _MOST_FAULTS} more" if len(faults) > _MOST_FAULTS else ""
        rows = counted(len(faults), "faulty row")
        raise InputError(f"{path}: {rows}: {'; '.join(faults[:_MOST_FAULTS])}{more}; mend the file")


def parse_number(name: str, text: str) -> float:
    """The finite number that a cell of column ``name`` holds.

    Stricter than ``float``, which takes 1_000 and digits of other scripts.

    Raises:
        ValueError: It holds something else; the message says what.
    """
    plain = text.strip()
    value = float(plain) if _NUMBER.fullmatch(plain) else math.nan
    if not math.isfinite(value):
        hint = ", with a decimal point, not a comma" if _DECIMAL_COMMA.fullmatch(plain) else ""
        raise ValueError(f"{name} is {text[:60]!r}; needed is a finite number{hint}")
    return value


def _constant(name: str) -> float:
    raise _Unfit(f"{name} is no JSON number", name)


def _real(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Unfit(f"the number {text[:30]} is too large", text)
    return value


def _whole(text: str) -> int:
    value = int(text) if len(text) <= 20 else 2**63
    if not -(2**63) <= value < 2**63:
        raise _Unfit(f"the whole number {text[:30]} has more than 64 bits", text)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unfit(f"the key {twice[:60]!r} stands twice in one object", json.dumps(twice))
    return made
