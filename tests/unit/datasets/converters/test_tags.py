"""LesaNet's files of tags: which lesion gets which, what excludes what, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from mmpluld.cli.main import main
from mmpluld.datasets.converters.deeplesion import convert_deeplesion
from mmpluld.datasets.converters.tags import read_tags
from mmpluld.errors import InputError
from mmpluld.structures import AnnotationSet

TERMS = ["chest", "abdomen", "lung", "left lung", "liver", "nodule"]


def labels(**changes: Any) -> dict[str, Any]:
    return {
        "term_list": TERMS,
        "train_lesion_idxs": [3, 0],
        "train_relevant_labels": [[3, 2, 0, 2], []],
        "train_uncertain_labels": [[5, 5], []],
        "val_lesion_idxs": [1],
        "val_relevant_labels": [[1]],
        "val_uncertain_labels": [[4]],
        "test_lesion_idxs": [],
        "test_relevant_labels": [],
        "test_uncertain_labels": [],
    } | changes


def write(folder: Path, content: object) -> Path:
    path = folder / "labels.json"
    path.write_text(json.dumps(content))
    return path


def write_ontology(folder: Path, terms: list[str] = TERMS) -> Path:
    """chest and abdomen exclude each other; lung is in the chest, left lung in both, liver in the abdomen."""
    relations = {
        "chest": ("abdomen | arm", ""),
        "abdomen": ("", ""),
        "lung": ("", "chest"),
        "left lung": ("", "lung | chest"),
        "liver": ("", "abdomen"),
        "nodule": ("", ""),
    }
    path = folder / "ontology.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "class", "term", "synonyms", "n", "exclusive", "parents", "children"])
        for term in [*terms, "arm"]:
            exclusive, parents = relations.get(term, ("", ""))
            writer.writerow([1, "bodypart", term, "x | y", 5, exclusive, parents, ""])
    return path


def test_training_has_uncertain_labels_and_the_others_have_not(tmp_path: Path) -> None:
    table = read_tags(write(tmp_path, labels()))
    assert table.terms == TERMS
    assert table.rows == {3: [0, 2, 3, 5], 0: [], 1: [1]}
    assert table.exclusive == [[]] * 6
    assert table.uncertain == {3: [5]}


def test_exclusion_is_mutual_and_reaches_children(tmp_path: Path) -> None:
    exclusive = read_tags(write(tmp_path, labels()), write_ontology(tmp_path)).exclusive
    in_chest, in_abdomen = [0, 2, 3], [1, 4]
    assert exclusive == [in_abdomen, in_chest, in_abdomen, in_abdomen, in_chest, []]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_lesion_idxs": [3]}, "train has 1, 2, 2 lesions, relevant and uncertain labels"),
        ({"val_relevant_labels": [[6]]}, r"labels of lesion 1 are \[6\]; allowed are 0 to 5"),
        ({"val_relevant_labels": [["lung"]]}, r"labels of lesion 1 are \['lung'\]"),
        ({"val_lesion_idxs": [3]}, "val_lesion_idxs has 3; needed are row numbers from 0, each once"),
        ({"val_lesion_idxs": [-1]}, "val_lesion_idxs has -1"),
        ({"val_lesion_idxs": None}, "has no list 'val_lesion_idxs'"),
        ({"val_relevant_labels": [1]}, "val_relevant_labels holds something else than lists"),
        ({"term_list": []}, "term_list is"),
    ],
)
def test_bad_labels_are_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"labels\.json: .*{message}") as error:
        read_tags(write(tmp_path, labels(**changes)))
    assert "\n" not in str(error.value)


def test_other_files_are_one_line(tmp_path: Path) -> None:
    tags = write(tmp_path, labels())
    for content in ("[1]", "{", "\xff"):
        (tmp_path / "bad.json").write_text(content, encoding="latin-1")
        with pytest.raises(InputError, match=r"bad\.json: (has no list|not valid JSON|not UTF-8 text)"):
            read_tags(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_tags(tmp_path / "none.json")
    with pytest.raises(InputError, match="none.csv: cannot be read"):
        read_tags(tags, tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a spreadsheet; save its sheet as CSV"):
        read_tags(tags, tmp_path / "lesion_ontology_181022.xlsx")
    with pytest.raises(InputError, match="has no term 'nodule'"):
        read_tags(tags, write_ontology(tmp_path, TERMS[:-1]))


class TestConvert:
    def rows(self, count: int) -> list[dict[str, str]]:
        splits = ["1", "2", "1", "1", "3"]
        return [
            {
                "File_name": f"00000{i + 1}_01_01_005.png",
                "Train_Val_Test": splits[i],
                "Possibly_noisy": str(int(i == 2)),
            }
            for i in range(count)
        ]

    def test_tags_go_to_their_rows(self, tmp_path: Path, write_csv: Any) -> None:
        write_csv(tmp_path / "DL_info.csv", self.rows(5))
        report = convert_deeplesion(
            tmp_path,
            require_images=False,
            tags=write(tmp_path, labels()),
            tag_ontology=write_ontology(tmp_path),
        )
        found = {
            name: AnnotationSet.load(tmp_path / "annotations" / f"{name}.json") for name in ("train", "val", "test")
        }
        tags = {item.id: item.attributes.get("tags") for annotations in found.values() for item in annotations.lesions}
        assert tags == {0: [], 1: [1], 3: [0, 2, 3, 5], 4: None}
        assert all(item.dataset["tags"]["terms"] == TERMS for item in found.values())
        assert found["train"].dataset["tags"]["exclusive"][0] == [1, 4]
        assert "tags: 3 of 4 lesions have them" in report.summary()

    def test_a_part_of_the_table_is_refused(self, tmp_path: Path, write_csv: Any, capsys: Any) -> None:
        write_csv(tmp_path / "DL_info.csv", self.rows(3))
        tags = write(tmp_path, labels())
        assert main(["convert", "deeplesion", str(tmp_path), "--no-images", "--tags", str(tags)]) == 2
        error = capsys.readouterr().err
        assert "has tags of row 3, but" in error and "has 3 rows" in error
        assert not (tmp_path / "annotations").exists()

    def test_ontology_alone_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="an ontology without tags"):
            convert_deeplesion(tmp_path, tag_ontology=tmp_path / "ontology.csv")
