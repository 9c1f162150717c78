"""Tables and figures of LENS without mining, and rows beside them."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

from mmpluld.reproduce.rows import Row, Table, against, remedied

__all__ = ["LENS", "LONGER", "MULAN", "NO_FUSION", "SINGLE", "SPECIALTIES", "TABLES_LENS", "lens_row"]


def lens_row(key: str, label: str, config: str, paper: tuple[float | None, ...] | float = (), **more: Any) -> Row:
    """A row of LENS; ``paper`` may be the average alone, all that Tables III and V print."""
    full = (*[None] * 7, paper) if isinstance(paper, float) else paper
    return Row(key, label, f"{config}_9s", full, schedule="8e", **more)


# LENS, Table II: sensitivity at 1/8, 1/4, 1/2, 1, 2, 4, 8 false positives per volume and their average.
MULAN = lens_row("mulan", "MULAN", "mulan_densenet121_volumes", (11.2, 16.3, 24.3, 32.8, 41.6, 50.9, 60.1, 33.9))
SINGLE = lens_row(
    "lens-single",
    "DeepLesion alone, equal DeepLesion steps",
    "lens-afp_densenet121",
    (15.8, 21.4, 27.9, 35.9, 43.4, 52.0, 60.9, 36.8),
)
# Not in the paper: with as many epochs for all, four datasets mean more steps. This tells steps and data apart.
LONGER = lens_row("lens-longer", "DeepLesion alone, equal total steps", "lens-afp_densenet121_longer")
NO_FUSION = lens_row(
    "lens-no-fusion",
    "four datasets, DeepLesion's expert",
    "lens-afp_densenet121_4datasets-no-fusion",
    (14.3, 21.5, 28.2, 35.1, 44.4, 53.9, 63.4, 37.3),
    weights_of="lens",
)
LENS = lens_row(
    "lens",
    "four datasets, all experts",
    "lens-afp_densenet121_4datasets",
    (15.9, 22.8, 30.1, 37.7, 46.7, 56.6, 66.1, 39.4),
)
_LENS_REMEDIED = (
    SINGLE,
    lens_row("lens-partial-label", "DeepLesion alone + partial-label loss", "lens-afp_densenet121_partial-label"),
    *remedied("lens", "DeepLesion alone", "lens-afp_densenet121", "_9s", "8e"),
)
# Lesion types that the single-type datasets label; nodes lie in two of DeepLesion's.
SPECIALTIES = {"lung": ("lung",), "liver": ("liver",), "lymph nodes": ("mediastinum", "abdomen")}
_MINED = "The paper's figures are with mined labels, which none of our rows has."


_SINGLE_TYPE = {"luna16": "LUNA16", "lits": "LiTS", "nih-ln": "NIH-LN"}
_FRACTIONS = (25, 50, 75, 100)
_WAYS = {"joint": "joint", "alone": "alone, equal total steps", "own": "alone, equal steps on it"}


def _of_fraction(dataset: str, way: str, percent: int) -> Row:
    """Row of Figure 7: trained on this share of the single-type datasets, tested on one of them.

    One joint detector of each share is trained, beside its test on LUNA16.
    """
    first = next(iter(_SINGLE_TYPE))
    key = f"lens-{{}}-{way}-{percent}"
    sources = "train_dataloader.dataset.datasets"
    kept = (dataset,) if way == "own" else ("deeplesion", *_SINGLE_TYPE)  # an epoch is as long as the datasets in it
    options = [
        f"{sources}.{name}.fraction={percent / 100:g}" for name in _SINGLE_TYPE if name in kept and percent < 100
    ]
    options += [f"{sources}.{name}=None" for name in ("deeplesion", *_SINGLE_TYPE) if name not in kept]
    return lens_row(
        key.format(dataset),
        f"{_SINGLE_TYPE[dataset]}, {percent} %, {_WAYS[way]}",
        f"lens-afp_densenet121_{'4datasets-' if way == 'joint' else ''}{dataset}",
        (),
        x=percent,
        line=f"{_SINGLE_TYPE[dataset]}, {_WAYS[way]}",
        weights_of=key.format(first) if way == "joint" and dataset != first else "",
        options=tuple(options),
    )


TABLES_LENS = (
    Table(
        "lens-remedies",
        "Remedies for missing labels in LENS on DeepLesion alone",
        tuple(replace(row, paper=()) for row in _LENS_REMEDIED),
        against(_LENS_REMEDIED),
        protocol="lens-3d",
        phantom="lens",
        note="Not in the paper.",
    ),
    Table(
        "lens-table3",
        "LENS, Table III: proposal networks",
        (
            lens_row("lens-rpn", "RPN", "lens-rpn_densenet121_4datasets", 42.5),
            lens_row("lens-centernet", "CenterNet", "lens-centernet_densenet121_4datasets", 45.3),
            lens_row("lens-fcos-1stage", "FCOS, 1 stage", "lens-fcos-1stage_densenet121_4datasets", 41.7),
            lens_row("lens-fcos", "FCOS, 2 stages", "lens-fcos_densenet121_4datasets", 45.7),
            replace(LENS, label="AFP", paper=(*[None] * 7, 47.6)),
        ),
        (
            ("lens", "lens-rpn"),
            ("lens", "lens-centernet"),
            ("lens", "lens-fcos"),
            ("lens-fcos", "lens-fcos-1stage"),
        ),
        protocol="lens-3d",
        phantom="lens",
        note=_MINED + " Boxes of all rows are linked from one score on, also those of one stage, "
        "whose scores are on another scale.",
    ),
    Table(
        "lens-figure7",
        "LENS, Figure 7: the datasets that label one kind of lesion, each tested on its own held-out part",
        tuple(_of_fraction(*place) for place in product(_SINGLE_TYPE, _WAYS, _FRACTIONS)),
        tuple(
            (_of_fraction(dataset, "joint", percent).key, _of_fraction(dataset, way, percent).key)
            for dataset, way, percent in product(_SINGLE_TYPE, ("own", "alone"), _FRACTIONS)
        ),
        x_label="% of the training patients of LUNA16, LiTS and NIH-LN",
        protocol="centre-3d",
        phantom="lens",
        note="The share is of the training patients of all three datasets, DeepLesion's stay. Alone, a detector takes "
        "as many steps as *joint* of the same share has in all, or as many as that has on this dataset. The dataset's "
        "own expert answers. A finding of another kind of lesion, which the dataset does not label, is a false "
        "positive.",
    ),
    Table(
        "lens-beyond",
        "LENS with experts whose scores are weighted or calibrated",
        (
            replace(LENS, label="as in the paper"),
            lens_row("lens-gate", "with a gate", "lens-afp_densenet121_4datasets-gate", trained_as="lens"),
            lens_row(
                "lens-calibrated",
                "calibrated",
                "lens-afp_densenet121_4datasets-calibrated",
                weights_of="lens",
                calibrated=True,
            ),
        ),
        (("lens-gate", "lens"), ("lens-calibrated", "lens")),
        protocol="lens-3d",
        phantom="lens",
    ),
)
