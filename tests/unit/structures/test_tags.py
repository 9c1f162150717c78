"""Names of tags, of LesaNet's file or of an annotation file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpluld.errors import InputError
from mmpluld.structures import AnnotationSet, read_tag_names

TERMS = ["chest", "abdomen", "lung"]


def write(folder: Path, content: object) -> Path:
    path = folder / "labels.json"
    path.write_text(json.dumps(content))
    return path


def test_names_of_either_file(tmp_path):
    assert read_tag_names(write(tmp_path, {"term_list": TERMS})) == TERMS
    AnnotationSet({"name": "x", "label_scope": "all", "tags": {"terms": TERMS[:2]}}).save(tmp_path / "train.json")
    assert read_tag_names(tmp_path / "train.json") == TERMS[:2]


@pytest.mark.parametrize("content", [{"dataset": {"name": "x"}}, {"term_list": [1, 2]}, [], {"term_list": []}])
def test_files_without_names(tmp_path, content):
    with pytest.raises(InputError, match="has no names of tags"):
        read_tag_names(write(tmp_path, content))


def test_names_from_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_tag_names(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_tag_names(tmp_path / "cut.json")
