"""The papers' tables as data: a new table is one entry of ``TABLES``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from mmpluld.errors import InputError, did_you_mean

__all__ = ["TABLES", "Row", "Table", "get_table"]


@dataclass(frozen=True)
class Row:
    """One trained detector of a table.

    Attributes:
        key: Its name in the package, the same in every table that has it; unique within a table.
        label: Its name in reports.
        config: Name of its config without the dataset: ``<config>_<schedule>_deeplesion`` is the paper's size,
            ``<config>_phantom`` the twin.
        paper: Sensitivities in per cent at the protocol's levels and their average as printed in the paper, None where
            it has none; empty for a row that is not in the paper.
        x: Position on the axis of a curve; None for a reference line or where the table is no curve.
        schedule: Part of the name of the paper-size config.
        weights_of: Key of the row of the same table that this one tests the weights of, instead of training its own.
        calibrated: The weights are calibrated first, with ``mmpluld calibrate``.
    """

    key: str
    label: str
    config: str
    paper: tuple[float | None, ...] = ()
    x: float | None = None
    schedule: str = "20e"
    weights_of: str = ""
    calibrated: bool = False

    def config_name(self, twin: bool) -> str:
        """Name of the config in the zoo."""
        return f"{self.config}_phantom" if twin else f"{self.config}_{self.schedule}_deeplesion"


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper.

    Attributes:
        name: How the command line calls it.
        title: Heading of its report.
        rows: Top to bottom.
        pairs: Keys of two rows each; the first is compared with the second.
        x_label: What ``Row.x`` is; not empty means that the plot is a curve.
        protocol: Rules of the evaluation.
        phantom: What the twins train and test on: the layout of ``deeplesion`` alone, or the four of ``lens``.
        note: What must be known to read it, in whole sentences.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    x_label: str = ""
    protocol: str = "deeplesion-2d"
    phantom: Literal["deeplesion", "lens"] = "deeplesion"
    note: str = ""

    def row(self, key: str) -> Row:
        """The row with this key."""
        return next(row for row in self.rows if row.key == key)


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


def _of_weight(tenths: int) -> Row:
    """Row of Figure 4 with this factor on negatives, mask on."""
    shared = {6: _PLULD_A3D, 10: _MASK_ONLY}.get(tenths)
    text = f"{tenths / 10:.1f}"
    return Row(
        key=shared.key if shared else f"neg-weight-{text}",
        label=f"neg_weight {text}",
        config=shared.config if shared else f"pluld-a3d_densenet121-fpn_neg-weight-{text}_7s",
        paper=shared.paper if shared else (),
        x=tenths / 10,
    )


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
            ("pluld-a3d", "pos-iou-0.5"),
            ("factor-control", "a3d"),
            ("pluld-a3d", "factor-control"),
        ),
    ),
    Table(
        "figure4",
        "Partial-label paper, Figure 4: factor on negatives, with the mask, on A3D",
        (_A3D, *map(_of_weight, range(11))),
        tuple((_of_weight(tenths).key, "a3d") for tenths in range(11)),
        x_label="neg_weight (factor on negatives)",
    ),
    Table(
        "learning-rate",
        "Partial-label paper, learning-rate study: A3D with the partial-label loss",
        (
            replace(_PLULD_A3D, label="learning rate 0.02", paper=()),
            Row("lr-0.002", "learning rate 0.002 (a tenth)", "pluld-a3d_densenet121-fpn_lr-0.002_7s"),
            Row("lr-0.0002", "learning rate 0.0002 (a hundredth)", "pluld-a3d_densenet121-fpn_lr-0.0002_7s"),
        ),
        (("lr-0.002", "pluld-a3d"), ("lr-0.0002", "pluld-a3d")),
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
    ),
)


def _lens(key: str, label: str, config: str, paper: tuple[float | None, ...] | float = (), **more: Any) -> Row:
    """A row of LENS; ``paper`` may be the average alone, all that Tables III and V print."""
    full = (*[None] * 7, paper) if isinstance(paper, float) else paper
    return Row(key, label, f"{config}_9s", full, schedule="8e", **more)


# LENS, Table II: sensitivity at 1/8, 1/4, 1/2, 1, 2, 4, 8 false positives per volume and their average.
_MULAN = _lens("mulan", "MULAN", "mulan_densenet121_volumes", (11.2, 16.3, 24.3, 32.8, 41.6, 50.9, 60.1, 33.9))
_SINGLE = _lens(
    "lens-single", "DeepLesion alone", "lens-afp_densenet121", (15.8, 21.4, 27.9, 35.9, 43.4, 52.0, 60.9, 36.8)
)
# Not in the paper: with as many epochs for all, four datasets mean more steps. This tells steps and data apart.
_LONGER = replace(
    _lens("lens-longer", "DeepLesion alone, as many steps, control", "lens-afp_densenet121_longer"), schedule="9e"
)
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
_MINED = "The paper's figures for {rows} are with mined labels, which none of our rows has."


def _of_fraction(percent: int) -> Row:
    """Row of Figure 7 with this share of the three datasets that label one kind of lesion."""
    if percent in (0, 100):
        return replace(_LENS if percent else _SINGLE, x=percent, paper=())
    share = f"{percent / 100:g}"
    name = f"lens-afp_densenet121_4datasets-fraction-{share}"
    return _lens(f"lens-fraction-{share}", f"{percent} % of the single-type data", name, x=percent)


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
            ("lens", "lens-longer"),
            ("lens", "lens-no-fusion"),
        ),
        protocol="lens-3d",
        phantom="lens",
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
        note=_MINED.format(rows="all rows"),
    ),
    Table(
        "lens-table5",
        "LENS, Table V: ways to learn from several datasets",
        (
            replace(_SINGLE, label="single dataset"),
            replace(_LONGER, label="single dataset, as many steps, control"),
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
        note=_MINED.format(rows="the last three rows") + " Without, its proposed detector has 39.4 (Table II).",
    ),
    Table(
        "lens-figure7",
        "LENS, Figure 7: share of the datasets that label one kind of lesion",
        tuple(map(_of_fraction, (0, 25, 50, 75, 100))),
        tuple((_of_fraction(percent).key, "lens-single") for percent in (25, 50, 75, 100)),
        x_label="% of LUNA16's, LiTS' and NIH-LN's patients",
        protocol="lens-3d",
        phantom="lens",
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
TABLES = {table.name: table for table in (*_ENTRIES, *_LENS_ENTRIES)}


def get_table(name: str) -> Table:
    """Return the table of this name.

    Raises:
        InputError: If there is none.
    """
    if name not in TABLES:
        raise InputError(f"table {name!r} is not known" + did_you_mean(name, TABLES, f"one of {', '.join(TABLES)}"))
    return TABLES[name]
