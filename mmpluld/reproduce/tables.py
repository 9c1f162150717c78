"""The papers' tables as data: a new table is one entry of ``TABLES``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mmpluld.errors import InputError, nearest

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
    """

    key: str
    label: str
    config: str
    paper: tuple[float | None, ...] = ()
    x: float | None = None
    schedule: str = "20e"

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
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    x_label: str = ""
    protocol: str = "deeplesion-2d"

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
)
TABLES = {table.name: table for table in _ENTRIES}


def get_table(name: str) -> Table:
    """Return the table of this name.

    Raises:
        InputError: If there is none.
    """
    if name not in TABLES:
        hint = nearest(name, TABLES)
        raise InputError(
            f"table {name!r} is not known" + (f"; did you mean {hint!r}?" if hint else f"; one of {', '.join(TABLES)}")
        )
    return TABLES[name]
