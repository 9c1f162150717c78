"""Tables and figures of the partial-label paper, and rows beside them."""

from __future__ import annotations

from dataclasses import replace

from mmpluld.reproduce.rows import Row, Table, against, remedied

__all__ = ["A3D", "RETINANET", "TABLES_PLULD"]


# Partial-label paper, Table 1: sensitivity at 0.5, 1, 2, 4, 8, 16 false positives per image; average of the first four.
A3D = Row("a3d", "A3D", "a3d_densenet121-fpn_7s", (78.52, 83.43, 89.39, 92.96, 94.06, 96.72, 86.08))
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
RETINANET = Row("retinanet", "RetinaNet", "retinanet-a3d_densenet121-fpn_7s")
_PLULD_RETINANET = Row("pluld-retinanet", "RetinaNet + partial-label loss", "pluld-retinanet-a3d_densenet121-fpn_7s")
_FCOS = Row("fcos", "FCOS", "fcos-a3d_densenet121-fpn_7s")
_PLULD_FCOS = Row("pluld-fcos", "FCOS + partial-label loss", "pluld-fcos-a3d_densenet121-fpn_7s")


_RETINANET_ROWS = (RETINANET, _PLULD_RETINANET, *remedied("retinanet", "RetinaNet", "retinanet-a3d_densenet121-fpn"))
_A3D_ROWS = tuple(replace(row, paper=()) for row in (A3D, _PLULD_A3D, *remedied("a3d", "A3D", "a3d_densenet121-fpn")))


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


TABLES_PLULD = (
    Table(
        "table1",
        "Partial-label paper, Table 1: detectors with and without the partial-label loss",
        (_FASTER_RCNN, _PLULD_FASTER_RCNN, _ALIGNSHIFT, _PLULD_ALIGNSHIFT, A3D, _PLULD_A3D),
        (("pluld-faster-rcnn", "faster-rcnn"), ("pluld-alignshift", "alignshift"), ("pluld-a3d", "a3d")),
    ),
    Table(
        "table2",
        "Partial-label paper, Table 2: parts of the partial-label loss on A3D",
        (A3D, _MASK_ONLY, _FACTOR_ONLY, _PLULD_A3D, _POS_IOU, _CONTROL),
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
        (A3D, *map(_of_weight, range(11))),
        tuple((_of_weight(tenths).key, "a3d") for tenths in range(11)),
        x_label="neg_weight (factor on negatives), with the mask",
        note=_FIGURE4,
    ),
    Table(
        "figure4-nomask",
        "Partial-label paper, Figure 4: factor on negatives, without the mask, on A3D",
        (A3D, *(_of_weight(tenths, mask=False) for tenths in range(11))),
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
        (RETINANET, _PLULD_RETINANET, _FCOS, _PLULD_FCOS),
        (("pluld-retinanet", "retinanet"), ("pluld-fcos", "fcos")),
        note="Not in the paper, which has the loss in the proposal network of two-stage detectors.",
    ),
    Table(
        "remedies",
        "Remedies for missing labels: a factor on all negatives, or a look at each negative's score",
        (*_RETINANET_ROWS, *_A3D_ROWS),
        (*against(_RETINANET_ROWS), *against(_A3D_ROWS)),
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
