"""Tables to choose with: settings that the papers leave open, or that a miniature needs, on validation patients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mmpluld.reproduce.rows import Row, Table

__all__ = ["choices"]

_LINK = "test_cfg.link_score_thr={}"
_FUSION = "model.test_cfg.rcnn.fusion.iou_threshold={}"
_IGNORE = "model.train_cfg.rcnn.assigner.ignore_iou_thr={}"
# The paper leaves open what its centre loss is divided by, and in which unit its size loss compares distances.
_AFP = ("model.rpn_head.head.loss_cls.loss_weight={}", "model.rpn_head.head.loss_bbox.loss_weight={tenth}")
_RATE = "optim_wrapper.optimizer.lr={}"
_EPOCHS = ("train_cfg.max_epochs={}", "param_scheduler.1.T_max={}", "param_scheduler.1.end={}")
_3D = {"protocol": "lens-3d", "phantom": "lens"}
_TWINS = {"twins_only": True}  # at the papers' size, rates and epochs are the papers'


def choices(
    a3d: Row, single: Row, mulan: Row, lens: Row, calibrated: Row, mined: Row, propagated: tuple[Row, ...]
) -> tuple[Table, ...]:
    """The tables, all tested on validation patients.

    Args:
        a3d: Whose rate and number of steps the rows of the partial-label paper share.
        single, mulan: Those of LENS and MULAN, which share theirs.
        lens, calibrated: Whose rules of joining boxes are chosen; the second tests the weights of the first.
        mined: Whose regions may be left out round uncertain boxes, too.
        propagated: Rows on labels propagated across slices by several rules, the first as configured.
    """
    own = replace(lens, label="as configured", paper=())
    tested = replace(lens, weights_of=lens.key)
    rates, epochs = (2.5e-4, 5e-4, 1e-3, 2e-3), (8, 15, 22)
    return (
        _table(
            "choose-threshold",
            "score from which LENS links 2D boxes",
            (own, *_varied(tested, "link_score_thr", (0.01, 0.02, 0.05, 0.1, 0.2), _LINK)),
            **_3D,
        ),
        _table(
            "choose-threshold-calibrated",
            "score from which LENS with calibrated experts links 2D boxes",
            (own, *_varied(calibrated, "link_score_thr", (0.001, 0.002, 0.005, 0.01, 0.02, 0.05), _LINK)),
            **_3D,
        ),
        _table(
            "choose-fusion",
            "overlap from which LENS takes boxes of two experts for one",
            (own, *_varied(tested, "iou_threshold", (0.3, 0.4, 0.5, 0.6, 0.7), _FUSION)),
            **_3D,
        ),
        _table(
            "choose-afp",
            "weight of the proposal network's losses in LENS",
            _varied(lens, "weight", (0.01, 0.02, 0.05, 0.1, 0.2, 1), *_AFP),
            **_3D,
        ),
        _table(
            "choose-ignore",
            "overlap from which regions round uncertain boxes are left out",
            (
                replace(mined, label="off, as configured", paper=()),
                *_varied(mined, "ignore_iou_thr", (0.2, 0.3, 0.5), _IGNORE),
            ),
            **_3D,
        ),
        _table(
            "choose-propagation",
            "rules of propagation across slices",
            propagated,
            pairs=tuple((row.key, propagated[0].key) for row in propagated[1:]),
            x_label="",
            **_3D,
            **_TWINS,
        ),
        _table("choose-rate", "rate of A3D", _varied(a3d, "lr", (5e-4, 1e-3, 2e-3, 4e-3), _RATE), **_TWINS),
        _table("choose-epochs", "epochs of A3D", _varied(a3d, "epochs", (11, 22, 33), *_EPOCHS), **_TWINS),
        _table("choose-rate-lens", "rate of LENS", _varied(single, "lr", rates, _RATE), **_3D, **_TWINS),
        _table("choose-rate-mulan", "rate of MULAN", _varied(mulan, "lr", rates, _RATE), **_3D, **_TWINS),
        _table("choose-epochs-lens", "epochs of LENS", _varied(single, "epochs", epochs, *_EPOCHS), **_3D, **_TWINS),
    )


def _varied(row: Row, what: str, values: Iterable[float], *options: str) -> tuple[Row, ...]:
    """A row with one setting at several values: in its options ``{}`` stands for them, ``{tenth}`` for their tenth."""
    return tuple(
        replace(
            row,
            key=f"{row.key}-{what.replace('_', '-')}-{value:g}",
            label=f"{what} {value:g}",
            paper=(),
            x=value,
            options=tuple(option.format(f"{value:g}", tenth=f"{value / 10:g}") for option in options),
        )
        for value in values
    )


def _table(name: str, what: str, rows: tuple[Row, ...], **settings: Any) -> Table:
    settings = {"x_label": rows[-1].label.partition(" ")[0], **settings}
    return Table(name, f"To choose on validation patients: {what}", rows, split="val", **settings)
