"""Tags that LesaNet's text mining found for DeepLesion's lesions, and which of them exclude each other.

Two published files. ``text_mined_labels_171_and_split.json``: ``term_list``, and for train, val and test
``*_lesion_idxs`` (row of ``DL_info.csv``, from 0), ``*_relevant_labels`` and ``*_uncertain_labels`` (numbers of terms).
``lesion_ontology_181022.xlsx``, saved as CSV: a heading, then for each term id, class, name, synonyms, count, exclusive
terms, parents, children, the terms of a cell separated by ``|``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmpluld.errors import InputError
from mmpluld.structures import AnnotationSet
from mmpluld.structures.splits import SPLITS
from mmpluld.structures.text_files import read_json, read_rows
from mmpluld.typing import BoolArray, StrPath

__all__ = ["TagTable", "add_tags", "read_tags"]

_NAME, _EXCLUSIVE, _PARENTS = 2, 5, 6  # columns of the ontology


@dataclass(frozen=True)
class TagTable:
    """Tags by lesion.

    Attributes:
        terms: Names of the tags.
        rows: Row of ``DL_info.csv`` from 0 -> numbers of its terms, ascending; a lesion that is not here has no tags.
        exclusive: For each term the numbers of those it excludes; empty lists without an ontology.
        uncertain: Row -> those of its terms that are uncertain; rows without one are left out.
    """

    terms: list[str]
    rows: dict[int, list[int]]
    exclusive: list[list[int]]
    uncertain: dict[int, list[int]] = field(default_factory=dict)


def read_tags(path: StrPath, ontology: StrPath | None = None) -> TagTable:
    """Read the published labels.

    A training lesion has its relevant and its uncertain labels, as in MULAN; the others have the relevant ones.

    Args:
        path: The JSON file.
        ontology: The CSV file.

    Raises:
        InputError: A file is missing or malformed, its lists do not fit together, or a term is not in the ontology.
    """
    data = _read_json(Path(path))
    terms = data["term_list"]
    rows: dict[int, list[int]] = {}
    doubtful: dict[int, list[int]] = {}
    for split in SPLITS:
        lists = [data[f"{split}_{name}"] for name in ("lesion_idxs", "relevant_labels", "uncertain_labels")]
        if len({len(item) for item in lists}) != 1:
            counts = ", ".join(str(len(item)) for item in lists)
            raise InputError(
                f"{path}: {split} has {counts} lesions, relevant and uncertain labels; needed are lists of one length"
            )
        for lesion, relevant, uncertain in zip(*lists, strict=True):
            labels = relevant + uncertain if split == "train" else relevant
            if not isinstance(lesion, int) or lesion < 0 or lesion in rows:
                raise InputError(
                    f"{path}: {split}_lesion_idxs has {lesion!r}; needed are row numbers from 0, each once"
                )
            if any(not isinstance(label, int) or not 0 <= label < len(terms) for label in labels):
                raise InputError(f"{path}: labels of lesion {lesion} are {labels}; allowed are 0 to {len(terms) - 1}")
            rows[lesion] = sorted(set(labels))
            if split == "train" and set(uncertain) - set(relevant):
                doubtful[lesion] = sorted(set(uncertain) - set(relevant))
    exclusive = [[] for _ in terms] if ontology is None else _exclusive(Path(ontology), terms)
    return TagTable(terms, rows, exclusive, doubtful)


def add_tags(annotations: AnnotationSet, table: TagTable) -> int:
    """Give lesions ``attributes["tags"]`` and ``["uncertain_tags"]``, and the file's header the terms.

    Returns how many lesions have tags. Lesion ids are rows of the complete ``DL_info.csv``.
    """
    annotations.dataset["tags"] = {"terms": table.terms, "exclusive": table.exclusive}
    tagged = [lesion for lesion in annotations.lesions if lesion.id in table.rows]
    for lesion in tagged:
        lesion.attributes["tags"] = table.rows[lesion.id]
        if lesion.id in table.uncertain:
            lesion.attributes["uncertain_tags"] = table.uncertain[lesion.id]
    return len(tagged)


def _read_json(path: Path) -> dict[str, Any]:
    data = read_json(path, "LesaNet's JSON of labels")
    lists = ["lesion_idxs", "relevant_labels", "uncertain_labels"]
    for key in ("term_list", *(f"{split}_{name}" for split in SPLITS for name in lists)):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise InputError(f"{path}: has no list {key!r}; give text_mined_labels_171_and_split.json of LesaNet")
        if key.endswith("_labels") and not all(isinstance(item, list) for item in data[key]):
            raise InputError(f"{path}: {key} holds something else than lists of term numbers; fetch it again")
    if not data["term_list"] or not all(isinstance(term, str) for term in data["term_list"]):
        raise InputError(f"{path}: term_list is {str(data['term_list'])[:60]}; needed are names of tags")
    labels: dict[str, Any] = data
    return labels


def _exclusive(path: Path, terms: list[str]) -> list[list[int]]:
    """Numbers of the terms that each term excludes.

    What excludes a term excludes its children, and a term excludes what its parents exclude.
    """
    if path.suffix.lower() in (".xlsx", ".xls"):
        raise InputError(f"{path}: is a spreadsheet; save its sheet as CSV (UTF-8) and give that")
    rows = read_rows(path, "LesaNet's ontology as CSV")
    table = {row[_NAME]: row for _, row in rows[1:] if len(row) > _PARENTS}
    for term in terms:
        if term not in table:
            raise InputError(f"{path}: has no term {term!r}; give the ontology that belongs to the tags, saved as CSV")
    excludes, parents = (_relation(table, terms, column) for column in (_EXCLUSIVE, _PARENTS))
    excludes |= excludes.T
    while True:
        wider = excludes | (excludes @ parents.T) | (parents @ excludes)
        if (wider == excludes).all():
            break
        excludes = wider
    return [np.flatnonzero(row).tolist() for row in excludes]


def _relation(table: dict[str, list[str]], terms: list[str], column: int) -> BoolArray:
    """(T, T), True where the row's term names the column's in that cell of the table."""
    place = {term: index for index, term in enumerate(terms)}
    found = np.zeros((len(terms), len(terms)), bool)
    for term, row in place.items():
        for name in table[term][column].split("|"):
            if name.strip() in place:
                found[row, place[name.strip()]] = True
    return found
