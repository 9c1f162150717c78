"""Tables and figures of LENS with mined labels and false-positive reduction.

Labels are mined from the proposals of the detector of four datasets (row (c) of Table II), seed by seed. In the
miniature every row on mined labels sees as many samples with lesions of DeepLesion in an epoch as its row without;
slices without lesions, where a row draws them, come on top. At the papers' size each takes the papers' epochs, longer
with more labels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Literal

from mmpluld.mining.options import MiningOptions
from mmpluld.mining.strategy_table import find_strategy
from mmpluld.reproduce.rows import FPR, Labels, Row, Table
from mmpluld.reproduce.tables_lens import LENS, LONGER, MULAN, NO_FUSION, SINGLE, SPECIALTIES, lens_row

__all__ = ["MINED_ALONE", "PROPAGATED", "TABLES_MINED"]

_ORDER = ("cross-slice", "intra-patient", "cross-dataset", "unlabeled")
# Chosen on validation patients; delta is a distance in the space of the miniature's own embedder.
_TWIN_RULES = ("--box-score", "0.2", "--depth", "0.25", "--centre-iou", "0.5", "--delta", "0.4", "--max-pairs", "1")

_labels = partial(Labels, detector=LENS, twin_rules=_TWIN_RULES)


def _until(strategy: str) -> tuple[str, ...]:
    """A strategy and those before it."""
    return _ORDER[: _ORDER.index(strategy) + 1]


def _up_to(strategy: str) -> Labels:
    """Labels of a strategy and those before it."""
    return _labels(strategy, strategies=_until(strategy))


def _alone(key: str, label: str, labels: Labels, paper: float | None = None) -> Row:
    """A row on DeepLesion alone."""
    everywhere = any(find_strategy(name).every_slice for name in (*labels.strategies, *labels.oracles))
    config = f"lens-afp_densenet121_mined{'-unlabeled' if everywhere else ''}"
    return lens_row(key, label, config, () if paper is None else paper, labels=labels)


_PAPER = {"cross-slice": 37.7, "intra-patient": 40.7, "cross-dataset": 44.6, "unlabeled": 46.8}
_STEPS_OF_TABLE4 = tuple(
    _alone(f"lens-{strategy}", f"+ {strategy}", _up_to(strategy), _PAPER[strategy]) for strategy in _ORDER
)
# What a perfect expert of a single-type dataset could find: lesions of the kinds that such datasets label.
_KNOWN_TYPES = ("--oracle-types", *chain.from_iterable(SPECIALTIES.values()))


def _without_fault(strategy: str) -> Row:
    oracles = _until(strategy)
    rules = _KNOWN_TYPES if any(find_strategy(name).uncertain for name in oracles) else ()
    labels = Labels(f"oracle-{strategy}", LENS, oracles=oracles, twin_rules=rules)
    return _alone(f"lens-oracle-{strategy}", f"+ {strategy}, without fault", labels)


_ORACLES = tuple(map(_without_fault, _ORDER))
_ALL = _up_to("unlabeled")
_MINED = lens_row(
    "lens-mined",
    "four datasets, all experts, mined labels",
    "lens-afp_densenet121_4datasets-mined",
    (21.6, 29.9, 37.6, 46.7, 56.7, 65.8, 75.3, 47.6),
    labels=_ALL,
)
_SECOND = Labels("second-round", _MINED, _ORDER, twin_rules=_TWIN_RULES, after=_ALL)
# Uncertain are then also boxes of DeepLesion's own expert, which alone knows the kinds that no other dataset labels.
_EVERY_EXPERT = ("--single-types", "deeplesion", "luna16", "lits", "nih-ln")
_EVERY = _labels("every-expert", strategies=_ORDER, rules=_EVERY_EXPERT, twin_rules=(*_TWIN_RULES, *_EVERY_EXPERT))
_OTHERS = (
    _alone("lens-every-expert", "+ uncertain boxes of DeepLesion's expert, too", _EVERY),
    _alone("lens-second-round", "+ a second round", _SECOND),
    _alone(
        "lens-adjacent", "adjacent slices (Wang et al.)", _labels("adjacent", strategies=("adjacent-slices",)), 38.0
    ),
    _alone(
        "lens-distillation",
        "data distillation",
        Labels("distillation", LENS, strategies=("distillation",), views=(0.8, 1.25)),
        43.7,
    ),
    lens_row("lens-mean-teacher", "mining while training (mean teacher)", "lens-afp_densenet121_mean-teacher"),
)
MINED_ALONE = replace(
    _STEPS_OF_TABLE4[-1],
    label="DeepLesion alone, mined labels",
    paper=(22.0, 28.4, 36.6, 45.2, 55.0, 65.5, 75.0, 46.8),
)


def _propagated(box_score: float, depth: float, centre_iou: float) -> Row:
    """Propagation across slices alone, by some rules."""
    values = {"--box-score": f"{box_score:g}", "--depth": f"{depth:g}", "--centre-iou": f"{centre_iou:g}"}
    labels = _labels(
        "propagated-" + "-".join(values.values()),
        strategies=_until("cross-slice"),
        twin_rules=(*chain(*values.items()),),
    )
    return _alone(f"lens-{labels.key}", ", ".join(f"{rule[2:]} {value}" for rule, value in values.items()), labels)


PROPAGATED = (
    replace(_STEPS_OF_TABLE4[0], label="as configured", paper=()),
    *(_propagated(*values) for values in ((0.2, 0.25, 0.0), (0.2, 0.2, 0.6), (0.05, 0.25, 0.5))),
)


def _reduced(mode: Literal["average", "alone"], label: str, paper: tuple[float, ...] | float) -> Row:
    fpr = FPR(mode, _MINED)
    config = "lens-afp_densenet121_4datasets-mined"
    return lens_row(f"lens-fpr-{mode}", label, config, paper, weights_of="lens-mined", fpr=fpr)


_TABLE2 = (
    MULAN,
    SINGLE,
    LONGER,
    NO_FUSION,
    LENS,
    lens_row(
        "lens-fcos-mined",
        "FCOS, four datasets, mined labels",
        "lens-fcos_densenet121_4datasets-mined",
        (18.3, 26.3, 34.1, 44.8, 55.5, 65.4, 75.4, 45.7),
        labels=_ALL,
    ),
    MINED_ALONE,
    lens_row(
        "lens-mined-no-fusion",
        "four datasets, DeepLesion's expert, mined labels",
        "lens-afp_densenet121_4datasets-mined-no-fusion",
        (21.3, 28.3, 37.1, 46.7, 55.5, 66.2, 75.9, 47.3),
        weights_of="lens-mined",
    ),
    _MINED,
    _reduced("average", "the same + false-positive reduction", (23.7, 31.6, 40.3, 50.0, 59.6, 69.5, 78.0, 50.4)),
    _reduced("alone", "the same, score of the false-positive reduction alone", 32.0),
)
_ON_TOP = (
    "In the miniature rows on mined labels that draw slices without lesions take more steps than those without mining, "
    "all of them on such slices: half as many again on DeepLesion alone, 22 % more on four datasets. At the papers' "
    "size each takes the paper's epochs."
)
_ALONE = (
    "Of the rows on DeepLesion alone, the first has as many epochs as four datasets, so as many steps on DeepLesion, "
    "as in the paper; the second has as many steps in all as four datasets without mining. " + _ON_TOP
)
_TABLE5 = (
    replace(SINGLE, label="single dataset, equal DeepLesion steps"),
    replace(LONGER, label="single dataset, equal total steps"),
    lens_row("lens-pooled", "data pooling", "lens-afp_densenet121_pooled", 39.4),
    lens_row("lens-positive-pooled", "positive data pooling", "lens-afp_densenet121_positive-pooled", 32.8),
    lens_row("lens-separate", "separate models", "lens-afp_densenet121_separate", 39.6),
    replace(LENS, label="proposed, without mining", paper=(*[None] * 7, 39.4)),
    replace(_MINED, label="proposed, mined labels", paper=(*[None] * 7, 47.6)),
    lens_row(
        "lens-ignored-as-truth",
        "proposed, mined labels, uncertain lesions as truth",
        "lens-afp_densenet121_4datasets-mined-ignored-as-truth",
        44.9,
        labels=_ALL,
    ),
    lens_row(
        "lens-attention",
        "proposed, mined labels + domain adaptation",
        "lens-afp_densenet121_4datasets-mined-attention",
        47.1,
        labels=_ALL,
    ),
)


def _figure5(rule: str, what: str, strategy: str, values: tuple[float, ...], twin_unit: float = 1.0) -> Table:
    """Labels of a strategy, and of those before it, with one rule at several values; Table IV's row where it has it.

    Args:
        rule: Its option, without dashes.
        what: It in words.
        strategy: The last one.
        values: At the papers' size.
        twin_unit: What 1 is in the miniature.
    """
    without = replace(LONGER, label="without mining", paper=())
    usual = _up_to(strategy)
    default = f"{getattr(MiningOptions(), rule):g}"
    as_usual = (default, dict(zip(_TWIN_RULES[::2], _TWIN_RULES[1::2], strict=True)).get(f"--{rule}", default))
    rows = []
    for value in values:
        paper, twin = f"{value:g}", f"{value * twin_unit:.3g}"
        labels = replace(
            usual,
            key=f"{rule}-{paper}",
            rules=(f"--{rule}", paper),
            twin_rules=(*_TWIN_RULES, f"--{rule}", twin),
        )
        if (paper, twin) == as_usual:
            labels = usual
        name = f"{rule} {paper}" + ("" if twin_unit == 1 else f" (miniature: {twin})")
        rows.append(replace(_alone(f"lens-{labels.key}", name, labels), x=value))
    note = "The values are those of the papers' size. " if twin_unit != 1 else ""
    if find_strategy(strategy).every_slice:
        note += "In the miniature rows on mined labels take half as many steps again, on slices without lesions."
    return Table(
        f"lens-figure5-{rule}",
        f"LENS, Figure 5: {what}, on validation patients",
        (without, *rows),
        tuple((row.key, without.key) for row in rows),
        x_label=rule,
        protocol="lens-3d",
        phantom="lens",
        split="val",
        note=note.strip(),
    )


TABLES_MINED = (
    Table(
        "lens-table2",
        "LENS, Table II: datasets, experts, mined labels, false-positive reduction",
        _TABLE2,
        (
            ("lens-single", "mulan"),
            ("lens-no-fusion", "lens-single"),
            ("lens", "lens-single"),
            ("lens-no-fusion", "lens-longer"),
            ("lens", "lens-longer"),
            ("lens", "lens-no-fusion"),
            (MINED_ALONE.key, "lens-single"),
            (MINED_ALONE.key, "lens-longer"),
            ("lens-mined", "lens"),
            ("lens-mined", "lens-fcos-mined"),
            ("lens-mined", MINED_ALONE.key),
            ("lens-mined", "lens-mined-no-fusion"),
            ("lens-fpr-average", "lens-mined"),
            ("lens-fpr-alone", "lens-mined"),
        ),
        protocol="lens-3d",
        phantom="lens",
        note=_ALONE,
        specialties=SPECIALTIES,
    ),
    Table(
        "lens-table4",
        "LENS, Table IV: ways to mine missing labels, on DeepLesion alone",
        (
            replace(SINGLE, label="none, equal DeepLesion steps"),
            replace(LONGER, label="none, equal total steps"),
            *_STEPS_OF_TABLE4,
            *_ORACLES,
            *_OTHERS,
        ),
        (
            (_STEPS_OF_TABLE4[-1].key, "lens-single"),
            *((row.key, "lens-longer") for row in _STEPS_OF_TABLE4),
            *((row.key, "lens-longer") for row in _ORACLES),
            *((a.key, b.key) for a, b in zip(_ORACLES, _STEPS_OF_TABLE4, strict=True)),
            *((row.key, "lens-longer") for row in _OTHERS),
            ("lens-every-expert", _STEPS_OF_TABLE4[-1].key),
            ("lens-second-round", _STEPS_OF_TABLE4[-1].key),
            (_STEPS_OF_TABLE4[-1].key, "lens-distillation"),
        ),
        protocol="lens-3d",
        phantom="lens",
        note="*Without fault*: the same strategies, by the complete truth instead of by proposals; uncertain are then "
        "all unmarked lesions of the kinds that the three other datasets label. The paper's row is the first; at the "
        "papers' size rows on mined labels, too, have its epochs. In the miniature they see as many samples with "
        "lesions as the second; *unlabeled*, with and without fault and with DeepLesion's expert, the second round and "
        "data distillation draw half as many slices without lesions on top, and take half as many steps again.",
        specialties=SPECIALTIES,
    ),
    Table(
        "lens-table5",
        "LENS, Table V: ways to learn from several datasets",
        _TABLE5,
        (
            *(("lens", row.key) for row in _TABLE5[:5]),
            *(("lens-mined", row.key) for row in _TABLE5[5:] if row.key != "lens-mined"),
        ),
        protocol="lens-3d",
        phantom="lens",
        note="Rows without mined labels have the same steps on DeepLesion but the single dataset with equal total "
        "steps, and the same total steps but the other single dataset, positive pooling, which draws no slices "
        "without lesions, and data pooling, whose mixed batches are up to three fewer in an epoch. " + _ON_TOP,
        specialties=SPECIALTIES,
    ),
    _figure5("delta", "distance of matched lesions", "intra-patient", (0.1, 0.15, 0.2, 0.25), twin_unit=8 / 3),
    _figure5("sigma", "score of uncertain boxes", "unlabeled", (0.3, 0.5, 0.7, 0.9)),
)
