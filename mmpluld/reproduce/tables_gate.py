"""The gate: whether complete labels teach a detector more than partial ones, on validation patients of the phantoms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmpluld.reproduce.rows import Row, Table
from mmpluld.reproduce.tables_lens import LENS, LONGER, SPECIALTIES
from mmpluld.reproduce.tables_pluld import RETINANET

__all__ = ["TABLES_GATE"]


def _labelled(row: Row, place: str, *more: str) -> tuple[Row, Row, Row]:
    """The same images with complete labels, with the marked lesions alone, and with the others ignored."""
    complete, oracle = (
        replace(row, key=f"{row.key}-{key}", label=f"{row.label}, {label}", options=(f"{place}/{file}.json", *more))
        for key, label, file in (
            ("complete", "complete labels", "train_key_slices"),
            ("oracle", "unmarked ignored", "train_unmarked_ignored"),
        )
    )
    return complete, replace(row, label=f"{row.label}, marked only"), oracle


def _gate(name: str, title: str, rows: tuple[Row, Row, Row], more: Row | None = None, **settings: Any) -> Table:
    """A part of the gate; of its pairs the first three are those of the labels."""
    complete, marked, oracle = (row.key for row in rows)
    return Table(
        name,
        title,
        (*rows, *([more] if more else [])),
        (
            (complete, marked),
            (oracle, marked),
            (complete, oracle),
            *([(more.key, marked)] if more else []),
        ),
        split="val",
        seeds=5,
        twins_only=True,
        note="Tested on the validation patients. All rows take the same number of steps. Crops are drawn around "
        "labelled lesions, so with complete labels they are elsewhere, too.",
        **settings,
    )


TABLES_GATE = (
    _gate(
        "gate-lens",
        "Gate, LENS: do complete labels help, and do four datasets?",
        _labelled(
            replace(LONGER, label="DeepLesion alone"),
            "train_dataloader.dataset.datasets.deeplesion.ann_file=deeplesion/truth",
            "train_dataloader.dataset.datasets.deeplesion.name=deeplesion",  # the truth is the phantom's
        ),
        replace(LENS, label="four datasets, all experts", paper=()),
        specialties=SPECIALTIES,
        protocol="lens-3d",
        phantom="lens",
    ),
    _gate(
        "gate-one-stage",
        "Gate, one-stage detector: do complete labels help?",
        _labelled(RETINANET, "train_dataloader.dataset.ann_file=truth"),
        phantom="lens-deeplesion",
    ),
)
