"""JSON records in which one value is of another kind: each is read, or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks._fuzz_records import RECORDS
from mmpluld.errors import InputError

FILES = {
    "annotations": "train.json",
    "detections": "d.json",
    "boxes coco": "b.json",
    "overrides json": "o.json",
    "tags": "tags.json",
}
VALUES = (None, True, -1, 2.5, 10**9, 2**62, 2**64, 1e300, "", "x\ny\0", "\ud800", [], [[]], [1, "a"], {}, {"a": {}})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("name", FILES)
def test_values_of_another_kind(name, tmp_path):
    make, read = RECORDS[name]
    make(tmp_path)
    file = tmp_path / FILES[name]
    good = json.loads(file.read_text())
    refused = tried = 0
    for place in places(good):
        for value in VALUES:
            file.write_text(json.dumps(replaced(good, place, value)))
            tried += 1
            try:
                read(tmp_path)
            except InputError as error:
                assert "\n" not in str(error), (place, value)
                assert str(error).startswith(str(tmp_path)), (place, value, str(error))
                refused += 1
            except Exception as error:
                pytest.fail(f"{name} with {value!r} at {place}: {type(error).__name__}: {error}")
    assert refused > tried / 2
