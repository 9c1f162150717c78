"""The papers' tables as data: a new table is one entry of ``TABLES``."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

from mmpluld.errors import InputError, did_you_mean
from mmpluld.reproduce.choices import choices
from mmpluld.reproduce.rows import Row, Table

__all__ = ["GROUPS", "TABLES", "Row", "Table", "get_tables", "with_recipe"]


# Partial-label paper, Table 1: sensitivity at 0.5, 1, 2, 4, 8, 16 false positives per image; average of the first four.
_A3D = Row("a3d", "A3D", "a3d_densenet121-fpn_7s", (78.52, 83.43, 89.39, 92.96, 94.06, 96.72, 86.08))
_PLULD_A3D = Row(
    "pluld-a3d",
    "A3D + partial-label loss",
    "pluld-a3d_densenet121-fpn_7s",
    (79.74, 84.08, 90.46, 93.34, 94.65, 97.13, 86.90),
)
_ALIGNSHIFT = Row(
    "alignshift", "AlignShift", "alignshift_densenet121-fpn_7s", (76.88, 83.24, 89.15, 92.74, 93.17, 95.68, 85.50)
)
_PLULD_ALIGNSHIFT = Row(
    "pluld-alignshift",
    "AlignShift + partial-label loss",
    "pluld-alignshift_densenet121-fpn_7s",
    (77.18, 83.98, 89.69, 93.21, 93.33, 96.31, 86.02),
)
_FASTER_RCNN = Row(
    "faster-rcnn", "Faster R-CNN", "faster-rcnn_r50-fpn_3s", (56.83, 67.66, 73.92, 82.15, 90.23, 92.26, 70.14)
)
_PLULD_FASTER_RCNN = Row(
    "pluld-faster-rcnn",
    "Faster R-CNN + partial-label loss",
    "pluld-faster-rcnn_r50-fpn_3s",
    (60.44, 70.60, 75.83, 85.32, 91.55, 93.94, 73.05),
)
# Table 2: sensitivity at 0.5 and 1 only. The factor of the second row is that of both.
_MASK_ONLY = Row(
    "mask-only", "mask only", "pluld-a3d_densenet121-fpn_mask-only_7s", (80.06, 83.93, None, None, None, None, None)
)
_FACTOR_ONLY = Row(
    "factor-only",
    "factor only (0.6)",
    "pluld-a3d_densenet121-fpn_factor-only_7s",
    (78.73, 83.76, None, None, None, None, None),
)
# Not in the paper: with the loss, anchors are positive from an IoU of 0.5, in A3D from 0.7. This tells the two apart.
_POS_IOU = Row("pos-iou-0.5", "none, positives from IoU 0.5, control", "a3d_densenet121-fpn_pos-iou-0.5_7s")
# Not in the paper: the same average weight of a negative as both together, without the mask's randomness.
_CONTROL = Row("factor-control", "factor only (0.3), control", "pluld-a3d_densenet121-fpn_neg-weight-0.3-nomask_7s")

# Not in the paper: one-stage heads, where the loss acts on the score that is tested, and other remedies for missing
# labels than a factor.
_RETINANET = Row("retinanet", "RetinaNet", "retinanet-a3d_densenet121-fpn_7s")
_PLULD_RETINANET = Row("pluld-retinanet", "RetinaNet + partial-label loss", "pluld-retinanet-a3d_densenet121-fpn_7s")
_FCOS = Row("fcos", "FCOS", "fcos-a3d_densenet121-fpn_7s")
_PLULD_FCOS = Row("pluld-fcos", "FCOS + partial-label loss", "pluld-fcos-a3d_densenet121-fpn_7s")


def _remedied(key: str, label: str, config: str, tail: str = "_7s", schedule: str = "20e") -> tuple[Row, Row]:
    """A detector that recalibrates hard negatives, and one that ignores them."""
    return (
        Row(f"{key}-recalibrate", f"{label} + recalibration", f"{config}_recalibrate{tail}", schedule=schedule),
        Row(f"{key}-ignore-hard", f"{label}, hard negatives ignored", f"{config}_ignore-hard{tail}", schedule=schedule),
    )


def _against(rows: tuple[Row, ...]) -> tuple[tuple[str, str], ...]:
    """Each row compared with the first."""
    return tuple((row.key, rows[0].key) for row in rows[1:])


_RETINANET_ROWS = (_RETINANET, _PLULD_RETINANET, *_remedied("retinanet", "RetinaNet", "retinanet-a3d_densenet121-fpn"))
_A3D_ROWS = tuple(replace(row, paper=()) for row in (_A3D, _PLULD_A3D, *_remedied("a3d", "A3D", "a3d_densenet121-fpn")))


_RATES = ("0.02", "0.002", "0.0002")
_FIGURE4 = (
    "The paper does not say whether its sweep has the mask: `figure4` has it, `figure4-nomask` has not. Without the "
    "mask and with factor 1 the loss is the usual one; what is left is that anchors are positive from an IoU of 0.5."
)


def _of_weight(tenths: int, mask: bool = True) -> Row:
    """Row of Figure 4 with this factor on negatives; a mask on negatives without weight changes nothing."""
    text, ending = f"{tenths / 10:.1f}", "" if mask or tenths == 0 else "-nomask"
    shared = {6: _PLULD_A3D, 10: _MASK_ONLY} if mask else {3: _CONTROL, 6: _FACTOR_ONLY, 10: _POS_IOU}
    row = shared.get(tenths) or Row(
        f"neg-weight-{text}{ending}", "", f"pluld-a3d_densenet121-fpn_neg-weight-{text}{ending}_7s"
    )
    return replace(row, label=f"neg_weight {text}", x=tenths / 10)


_ENTRIES = (
    Table(
        "table1",
        "Partial-label paper, Table 1: detectors with and without the partial-label loss",
        (_FASTER_RCNN, _PLULD_FASTER_RCNN, _ALIGNSHIFT, _PLULD_ALIGNSHIFT, _A3D, _PLULD_A3D),
        (("pluld-faster-rcnn", "faster-rcnn"), ("pluld-alignshift", "alignshift"), ("pluld-a3d", "a3d")),
    ),
    Table(
        "table2",
        "Partial-label paper, Table 2: parts of the partial-label loss on A3D",
        (_A3D, _MASK_ONLY, _FACTOR_ONLY, _PLULD_A3D, _POS_IOU, _CONTROL),
        (
            ("mask-only", "a3d"),
            ("factor-only", "a3d"),
            ("pluld-a3d", "a3d"),
            ("pos-iou-0.5", "a3d"),
            ("mask-only", "pos-iou-0.5"),
            ("factor-only", "pos-iou-0.5"),
            ("pluld-a3d", "pos-iou-0.5"),
            ("factor-control", "a3d"),
            ("pluld-a3d", "factor-control"),
        ),
        note="With the loss, or a part of it, anchors are positive from an IoU of 0.5, in A3D from 0.7.",
    ),
    Table(
        "figure4",
        "Partial-label paper, Figure 4: factor on negatives, with the mask, on A3D",
        (_A3D, *map(_of_weight, range(11))),
        tuple((_of_weight(tenths).key, "a3d") for tenths in range(11)),
        x_label="neg_weight (factor on negatives), with the mask",
        note=_FIGURE4,
    ),
    Table(
        "figure4-nomask",
        "Partial-label paper, Figure 4: factor on negatives, without the mask, on A3D",
        (_A3D, *(_of_weight(tenths, mask=False) for tenths in range(11))),
        tuple((_of_weight(tenths, mask=False).key, "a3d") for tenths in range(11)),
        x_label="neg_weight (factor on negatives), without the mask",
        note=_FIGURE4,
    ),
    Table(
        "learning-rate",
        "Partial-label paper, learning-rate study: A3D with the partial-label loss, SGD",
        tuple(Row(f"lr-{rate}", f"learning rate {rate}", f"pluld-a3d_densenet121-fpn_lr-{rate}_7s") for rate in _RATES),
        (("lr-0.002", "lr-0.02"), ("lr-0.0002", "lr-0.02"), ("lr-0.002", "lr-0.0002")),
        note="The paper keeps 0.002: at 0.02 its loss diverged, at 0.0002 it learned too slowly.",
    ),
    Table(
        "one-stage",
        "One-stage detectors with and without the partial-label loss",
        (_RETINANET, _PLULD_RETINANET, _FCOS, _PLULD_FCOS),
        (("pluld-retinanet", "retinanet"), ("pluld-fcos", "fcos")),
        note="Not in the paper, which has the loss in the proposal network of two-stage detectors.",
    ),
    Table(
        "remedies",
        "Remedies for missing labels: a factor on all negatives, or a look at each negative's score",
        (*_RETINANET_ROWS, *_A3D_ROWS),
        (*_against(_RETINANET_ROWS), *_against(_A3D_ROWS)),
        note="Not in the paper. With the partial-label loss A3D's anchors are positive from an IoU of 0.5, else 0.7.",
    ),
    # MULAN, logs published with its code: sensitivity at 0.5, 1, 2, 4, 8, 16; average of the first four.
    Table(
        "mulan",
        "MULAN: its heads, and what its refining layer sees",
        (
            Row("mulan-detection-only", "detection only", "mulan_densenet121_detection-only_9s", schedule="8e"),
            Row(
                "mulan-tags",
                "with masks, tags and refinement",
                "mulan_densenet121_9s",
                (73.47, 82.08, 87.56, 91.41, 94.14, 95.07, 83.63),
                schedule="8e",
            ),
            Row(
                "mulan-features",
                "and refinement by box, position, sex and age",
                "mulan_densenet121_refine-features_9s",
                (77.32, 84.39, 88.99, 92.22, 94.52, 95.24, 85.73),
                schedule="8e",
            ),
        ),
        (("mulan-tags", "mulan-detection-only"), ("mulan-features", "mulan-tags")),
        note="The figures called the paper's are those of the logs that were published with its code.",
    ),
)


def _lens(key: str, label: str, config: str, paper: tuple[float | None, ...] | float = (), **more: Any) -> Row:
    """A row of LENS; ``paper`` may be the average alone, all that Tables III and V print."""
    full = (*[None] * 7, paper) if isinstance(paper, float) else paper
    return Row(key, label, f"{config}_9s", full, schedule="8e", **more)


# LENS, Table II: sensitivity at 1/8, 1/4, 1/2, 1, 2, 4, 8 false positives per volume and their average.
_MULAN = _lens("mulan", "MULAN", "mulan_densenet121_volumes", (11.2, 16.3, 24.3, 32.8, 41.6, 50.9, 60.1, 33.9))
_SINGLE = _lens(
    "lens-single",
    "DeepLesion alone, equal DeepLesion steps",
    "lens-afp_densenet121",
    (15.8, 21.4, 27.9, 35.9, 43.4, 52.0, 60.9, 36.8),
)
# Not in the paper: with as many epochs for all, four datasets mean more steps. This tells steps and data apart.
_LONGER = _lens("lens-longer", "DeepLesion alone, equal total steps", "lens-afp_densenet121_longer")
_NO_FUSION = _lens(
    "lens-no-fusion",
    "four datasets, DeepLesion's expert",
    "lens-afp_densenet121_4datasets-no-fusion",
    (14.3, 21.5, 28.2, 35.1, 44.4, 53.9, 63.4, 37.3),
    weights_of="lens",
)
_LENS = _lens(
    "lens",
    "four datasets, all experts",
    "lens-afp_densenet121_4datasets",
    (15.9, 22.8, 30.1, 37.7, 46.7, 56.6, 66.1, 39.4),
)
_LENS_REMEDIED = (
    _SINGLE,
    _lens("lens-partial-label", "DeepLesion alone + partial-label loss", "lens-afp_densenet121_partial-label"),
    *_remedied("lens", "DeepLesion alone", "lens-afp_densenet121", "_9s", "8e"),
)
# Lesion types that the single-type datasets label; nodes lie in two of DeepLesion's.
_SPECIALTIES = {"lung": ("lung",), "liver": ("liver",), "lymph nodes": ("mediastinum", "abdomen")}
_STEPS = (
    "Of the rows on DeepLesion alone, one has as many epochs as the four datasets, so as many steps on DeepLesion, as "
    "in the paper; the other has as many steps in all."
)
_MINED = "The paper's figures for {rows} are with mined labels, which none of our rows has."


_SINGLE_TYPE = {"luna16": "LUNA16", "lits": "LiTS", "nih-ln": "NIH-LN"}
_FRACTIONS = (25, 50, 75, 100)


def _of_fraction(dataset: str, way: str, percent: int) -> Row:
    """Row of Figure 7: trained on this share of the single-type datasets, tested on one of them.

    One joint detector of each share is trained, beside its test on LUNA16.
    """
    first = next(iter(_SINGLE_TYPE))
    key = f"lens-{{}}-{way}-{percent}"
    share = tuple(f"train_dataloader.dataset.datasets.{name}.fraction={percent / 100:g}" for name in _SINGLE_TYPE)
    return _lens(
        key.format(dataset),
        f"{_SINGLE_TYPE[dataset]}, {percent} %, {way}",
        f"lens-afp_densenet121_{'4datasets-' if way == 'joint' else ''}{dataset}",
        (),
        x=percent,
        line=f"{_SINGLE_TYPE[dataset]}, {way}",
        weights_of=key.format(first) if way == "joint" and dataset != first else "",
        options=share if percent < 100 else (),
    )


_LENS_ENTRIES = (
    Table(
        "lens-remedies",
        "Remedies for missing labels in LENS on DeepLesion alone",
        tuple(replace(row, paper=()) for row in _LENS_REMEDIED),
        _against(_LENS_REMEDIED),
        protocol="lens-3d",
        phantom="lens",
        note="Not in the paper.",
    ),
    Table(
        "lens-table2",
        "LENS, Table II, rows without mining and without false-positive reduction",
        (_MULAN, _SINGLE, _LONGER, _NO_FUSION, _LENS),
        (
            ("lens-single", "mulan"),
            ("lens-no-fusion", "lens-single"),
            ("lens", "lens-single"),
            ("lens-no-fusion", "lens-longer"),
            ("lens", "lens-longer"),
            ("lens", "lens-no-fusion"),
        ),
        protocol="lens-3d",
        phantom="lens",
        note=_STEPS,
        specialties=_SPECIALTIES,
    ),
    Table(
        "lens-table3",
        "LENS, Table III: proposal networks",
        (
            _lens("lens-rpn", "RPN", "lens-rpn_densenet121_4datasets", 42.5),
            _lens("lens-centernet", "CenterNet", "lens-centernet_densenet121_4datasets", 45.3),
            _lens("lens-fcos-1stage", "FCOS, 1 stage", "lens-fcos-1stage_densenet121_4datasets", 41.7),
            _lens("lens-fcos", "FCOS, 2 stages", "lens-fcos_densenet121_4datasets", 45.7),
            replace(_LENS, label="AFP", paper=(*[None] * 7, 47.6)),
        ),
        (
            ("lens", "lens-rpn"),
            ("lens", "lens-centernet"),
            ("lens", "lens-fcos"),
            ("lens-fcos", "lens-fcos-1stage"),
        ),
        protocol="lens-3d",
        phantom="lens",
        note=_MINED.format(rows="all rows")
        + " Boxes of all rows are linked from one score on, also those of one stage, "
        "whose scores are on another scale.",
    ),
    Table(
        "lens-table5",
        "LENS, Table V: ways to learn from several datasets",
        (
            replace(_SINGLE, label="single dataset, equal DeepLesion steps"),
            replace(_LONGER, label="single dataset, equal total steps"),
            _lens("lens-pooled", "data pooling", "lens-afp_densenet121_pooled", 39.4),
            _lens("lens-positive-pooled", "positive data pooling", "lens-afp_densenet121_positive-pooled", 32.8),
            _lens("lens-separate", "separate models", "lens-afp_densenet121_separate", 39.6),
            replace(_LENS, label="proposed", paper=(*[None] * 7, 47.6)),
            _lens(
                "lens-ignored-as-truth",
                "proposed, uncertain lesions as truth",
                "lens-afp_densenet121_4datasets-ignored-as-truth",
                44.9,
            ),
            _lens(
                "lens-attention",
                "proposed + domain adaptation",
                "lens-afp_densenet121_4datasets-attention",
                47.1,
            ),
        ),
        tuple(
            ("lens", other)
            for other in (
                "lens-single",
                "lens-longer",
                "lens-pooled",
                "lens-positive-pooled",
                "lens-separate",
                "lens-ignored-as-truth",
                "lens-attention",
            )
        ),
        protocol="lens-3d",
        phantom="lens",
        note=_MINED.format(rows="the last three rows") + " Without, its proposed detector has 39.4 (Table II)."
        " All rows have the same steps on DeepLesion but the single dataset with equal total steps. All have the same "
        "total steps but the other single dataset, positive pooling, which draws no slices without lesions, and data "
        "pooling, whose mixed batches are up to three fewer in an epoch.",
        specialties=_SPECIALTIES,
    ),
    Table(
        "lens-figure7",
        "LENS, Figure 7: the datasets that label one kind of lesion, each tested on its own held-out part",
        tuple(_of_fraction(*place) for place in product(_SINGLE_TYPE, ("joint", "alone"), _FRACTIONS)),
        tuple(
            (_of_fraction(dataset, "joint", percent).key, _of_fraction(dataset, "alone", percent).key)
            for dataset, percent in product(_SINGLE_TYPE, _FRACTIONS)
        ),
        x_label="% of the training patients of LUNA16, LiTS and NIH-LN",
        protocol="centre-3d",
        phantom="lens",
        note="The share is of the training patients of all three datasets, DeepLesion's stay. *alone* takes as many "
        "steps as *joint* of the same share, all on the one dataset. The dataset's own expert answers. A finding of "
        "another kind of lesion, which the dataset does not label, is a false positive.",
    ),
    Table(
        "lens-beyond",
        "LENS with experts whose scores are weighted or calibrated",
        (
            replace(_LENS, label="as in the paper"),
            _lens("lens-gate", "with a gate", "lens-afp_densenet121_4datasets-gate"),
            _lens(
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


# The gate: whether complete labels teach a detector more than partial ones, on validation patients of the phantoms.
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


_GATE_ENTRIES = (
    _gate(
        "gate-lens",
        "Gate, LENS: do complete labels help, and do four datasets?",
        _labelled(
            replace(_LONGER, label="DeepLesion alone"),
            "train_dataloader.dataset.datasets.deeplesion.ann_file=deeplesion/truth",
            "train_dataloader.dataset.datasets.deeplesion.name=deeplesion",  # the truth is the phantom's
        ),
        replace(_LENS, label="four datasets, all experts", paper=()),
        specialties=_SPECIALTIES,
        protocol="lens-3d",
        phantom="lens",
    ),
    _gate(
        "gate-one-stage",
        "Gate, one-stage detector: do complete labels help?",
        _labelled(_RETINANET, "train_dataloader.dataset.ann_file=truth"),
        phantom="lens-deeplesion",
    ),
)
_CALIBRATED = next(row for table in _LENS_ENTRIES for row in table.rows if row.calibrated)
_CHOICES = choices(_A3D, _SINGLE, _MULAN, _LENS, _CALIBRATED)
TABLES = {table.name: table for table in (*_ENTRIES, *_LENS_ENTRIES, *_GATE_ENTRIES, *_CHOICES)}
GROUPS = {"gate": tuple(table.name for table in _GATE_ENTRIES)}
"""Tables that one command makes, one after the other."""


def get_tables(name: str) -> tuple[Table, ...]:
    """Return the tables that the command line calls so, usually one.

    Raises:
        InputError: If there is none.
    """
    if name in GROUPS:
        return tuple(TABLES[part] for part in GROUPS[name])
    if name not in TABLES:
        known = [*TABLES, *GROUPS]
        raise InputError(f"table {name!r} is not known" + did_you_mean(name, known, f"one of {', '.join(known)}"))
    return (TABLES[name],)


def with_recipe(table: Table, recipe: str) -> Table:
    """The table with all rows trained by another recipe.

    Args:
        table: Which table.
        recipe: Name of a recipe for the schedule of its rows, see `mmpluld.engine.recipes`.
    """
    rows = tuple(replace(row, recipe=recipe) for row in table.rows)
    return replace(table, name=f"{table.name}-{recipe}", title=f"{table.title} (recipe: {recipe})", rows=rows)
