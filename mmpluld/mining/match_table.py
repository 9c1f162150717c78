"""The table of ``mmpluld match``: embeddings beside position alone, on the same pairs of lesions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mmpluld.atomic import atomic_write_text
from mmpluld.errors import InputError, counted, name_some
from mmpluld.inputs import sha256_of
from mmpluld.io.embeddings import EmbeddingStore
from mmpluld.io.proposals import ProposalStore
from mmpluld.mining.lesion_pairs import (
    LesionPairs,
    MillimetrePlaces,
    evaluate_pairs,
    lesion_pairs,
    nearest_accuracy,
)
from mmpluld.mining.lesions import patients_of
from mmpluld.mining.places import EmbeddedPlaces, LesionPlaces
from mmpluld.mining.pool import ProposalPool
from mmpluld.mining.rounds import mined_from
from mmpluld.mining.truth import load_complete_truth
from mmpluld.progress import note
from mmpluld.structures import AnnotationSet
from mmpluld.text_table import text_table
from mmpluld.typing import StrPath

__all__ = ["MatchingRow", "format_rows", "match_files"]


@dataclass(frozen=True)
class MatchingRow:
    """Figures of one space of distances on one part of the pairs.

    Attributes:
        space: ``embedding``, ``position`` (shares of the volume) or ``position mm``.
        pairs: ``all``, ``one study`` or ``two studies``.
        num_pairs, num_same: Pairs, and those of them that are one lesion.
        average_precision: Area below precision over recall.
        delta: Limit of the largest recall whose precision is at least that asked for, on all pairs; None if there is
            none. The next three are at this limit.
        precision, recall, f1: NaN without it.
        nearest: Share of the lesions whose nearest candidate in the other volume is it, where it is there.
    """

    space: str
    pairs: str
    num_pairs: int
    num_same: int
    average_precision: float
    delta: float | None
    precision: float
    recall: float
    f1: float
    nearest: float


def match_files(
    annotations: StrPath,
    embeddings: StrPath | None = None,
    truth: StrPath | None = None,
    proposals: StrPath | None = None,
    least_precision: float = 0.9,
    max_pairs: int | None = None,
    box_score: float = 0.0,
    out: StrPath | None = None,
) -> list[MatchingRow]:
    """Evaluate embeddings and positions, and choose delta.

    Args:
        annotations: Annotation file.
        embeddings: What ``mmpluld embed`` made of it; None evaluates positions alone.
        truth: Annotation file of all lesions with their numbers within the patient; None takes the annotations' own.
        proposals: Match with the tracklets of this proposal store; None with the annotated lesions.
        least_precision: Delta is the limit of the largest recall at which the precision is at least this.
        max_pairs: Of each lesion only so many of the nearest candidates in another volume are taken, as with the option
            of `mmpluld mine`; None: all.
        box_score: As the option of `mmpluld mine`: tracklets begin and end with a box that scores at least this.
        out: JSON file of the rows.

    Returns:
        Rows of embeddings first.

    Raises:
        InputError: A file is missing, damaged or of something else, or no two lesions are one.
    """
    content = AnnotationSet.load(annotations)
    full = None if truth is None else load_complete_truth(truth, content)
    pool = None if proposals is None else ProposalPool([ProposalStore(proposals)])
    if pool is not None:
        pool.check(content, mined_from(content, annotations), str(annotations))
    spaces: dict[str, LesionPlaces] = {}
    if embeddings is not None:
        store = EmbeddingStore(embeddings)
        if pool is not None and store.header.proposals not in pool.digests.values():
            raise InputError(
                f"{embeddings}: embeddings of other proposals than {proposals}; run `mmpluld embed` on these"
            )
        spaces["embedding"] = EmbeddedPlaces([store], [sha256_of(annotations)], box_score)
    spaces["position"] = LesionPlaces()
    together = [volume for volumes in patients_of(content).values() if len(volumes) > 1 for volume in volumes]
    if unknown := sorted(volume.id for volume in together if not np.isfinite(volume.spacing_mm).all()):
        count = counted(len(unknown), "volume")
        note(f"position mm is left out: the voxel size is unknown of {count} ({name_some(unknown)})")
    else:
        spaces["position mm"] = MillimetrePlaces()
    rows = []
    for name, places in spaces.items():
        rows += _rows(name, lesion_pairs(content, places, full, pool, box_score).limited(max_pairs), least_precision)
    if out is not None:
        atomic_write_text(Path(out), json.dumps({"rows": [_plain(row) for row in rows]}, indent=1) + "\n")
    return rows


def format_rows(rows: list[MatchingRow]) -> str:
    """The rows as a table."""
    cells = [["space", "pairs", "number", "same", "AP", "delta", "prec.", "recall", "F1", "nearest"]]
    for row in rows:
        delta = "-" if row.delta is None else f"{row.delta:.4g}"
        numbers = [str(row.num_pairs), str(row.num_same), f"{row.average_precision:.3f}", delta]
        scores = [f"{score:.3f}" for score in (row.precision, row.recall, row.f1, row.nearest)]
        cells.append([row.space, row.pairs, *numbers, *scores])
    return text_table(cells, left=2)


def _rows(space: str, pairs: LesionPairs, least_precision: float) -> list[MatchingRow]:
    curve = evaluate_pairs(pairs)
    point = curve.at_precision(least_precision)
    delta = None if point is None else float(curve.deltas[point])
    rows = []
    for name, rows_of in (
        ("all", np.ones_like(pairs.same)),
        ("one study", pairs.one_study),
        ("two studies", ~pairs.one_study),
    ):
        part = pairs.part(rows_of)
        if part.same.any():
            rows.append(_row(space, name, part, delta))
    return rows


def _row(space: str, name: str, pairs: LesionPairs, delta: float | None) -> MatchingRow:
    curve = evaluate_pairs(pairs)
    precision = recall = f1 = float("nan")
    if delta is not None:
        taken = pairs.distances < delta
        right = int(pairs.same[taken].sum())
        precision = right / max(int(taken.sum()), 1)
        recall = right / int(pairs.same.sum())
        f1 = 2 * right / (int(taken.sum()) + int(pairs.same.sum()))
    return MatchingRow(
        space, name, curve.num_pairs, curve.num_same, curve.average_precision, delta, precision, recall, f1,
        nearest_accuracy(pairs),
    )  # fmt: skip


def _plain(row: MatchingRow) -> dict[str, object]:
    """As JSON has it: NaN is null."""
    return {key: None if value != value else value for key, value in asdict(row).items()}
