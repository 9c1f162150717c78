"""What a table of a paper consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["FPR", "Labels", "Row", "Table", "against", "remedied"]


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
        line: Which curve it is a point of, where the table has several.
        schedule: Part of the name of the paper-size config.
        weights_of: Key of the row of the same table that this one tests the weights of, instead of training its own.
        trained_as: Key of a row of the same table whose training of the same seed is the same to the last weight that
            both have: one training with two ways to test it, each of which does it anew.
        calibrated: The weights are calibrated first, with ``mmpluld calibrate``.
        options: Changes to the config for this row, as ``--cfg-options`` takes them.
        labels: Mined labels that it is trained on; None takes the dataset's own.
        fpr: False-positive reduction of what it finds; None for none.
        fold: Fold of the patients of the first training dataset that it is not trained on, and how many folds there
            are; None trains on all.
        recipe: What it is trained by if not by the config's own values, see `mmpluld.engine.recipes`.
    """

    key: str
    label: str
    config: str
    paper: tuple[float | None, ...] = ()
    x: float | None = None
    line: str = ""
    schedule: str = "20e"
    weights_of: str = ""
    trained_as: str = ""
    calibrated: bool = False
    options: tuple[str, ...] = ()
    labels: Labels | None = None
    fpr: FPR | None = None
    fold: tuple[int, int] | None = None
    recipe: str = ""

    @property
    def training(self) -> str:
        """Key of the row whose training it tests."""
        return self.weights_of or self.trained_as or self.key

    def config_name(self, twin: bool) -> str:
        """Name of the config in the zoo."""
        stem, _, slices = self.config.rpartition("_")
        config = f"{stem}_{self.recipe}_{slices}" if self.recipe else self.config
        return f"{config}_phantom" if twin else f"{config}_{self.schedule}_deeplesion"

    def run_name(self, twin: bool, split: str = "test") -> str:
        """Name of the folder of its runs; rows of one config share it unless their options or their patients differ."""
        own = self.options or self.labels or self.fpr or self.fold
        name = self.config_name(twin) + (f"+{self.key}" if own else "")
        return name if split == "test" else f"{name}-{split}"


@dataclass(frozen=True)
class Labels:
    """Mined labels of the first training dataset of a config.

    Attributes:
        key: Their name, unique in the package.
        detector: Whose proposals they are mined from.
        strategies: As ``mmpluld mine --strategies`` takes them.
        oracles: As ``mmpluld mine --oracle`` takes them: strategies without fault, from the complete truth.
        rules: Further arguments of ``mmpluld mine``.
        twin_rules: Those of the miniature instead.
        after: What is mined already, where it is a second round.
        views: Sizes of the images, as factors, at which the detector looks at them once more; the boxes of all looks
            are averaged (data distillation).
    """

    key: str
    detector: Row
    strategies: tuple[str, ...] = ()
    oracles: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    twin_rules: tuple[str, ...] = ()
    after: Labels | None = None
    views: tuple[float, ...] = ()


@dataclass(frozen=True)
class FPR:
    """False-positive reduction of a row's detections.

    Attributes:
        mode: ``average`` of both scores, or that of the classifier ``alone``.
        detector: Whose proposals the classifier learns from: one is trained for each fold of the patients, and proposes
            on the others.
        config: Name of the classifier's config without the dataset.
        folds: How many.
    """

    mode: Literal["average", "alone"]
    detector: Row
    config: str = "fpr_resnet18"
    folds: int = 2

    def config_name(self, twin: bool) -> str:
        """Name of the classifier's config in the zoo."""
        return f"{self.config}_{'phantom' if twin else 'deeplesion'}"


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
        phantom: What the twins train and test on: the layout of ``deeplesion`` alone, the four of ``lens``, or of those
            four that of DeepLesion.
        split: Whose patients the rows are tested on. What is still to be chosen is chosen on ``val``.
        seeds: Trainings per row unless the user says.
        twins_only: It needs labels that only phantoms have, or chooses what the papers' size takes from the papers.
        margin: Largest difference of averages that does not matter, in points: what "equivalent" means in the report.
        specialties: Names of groups of lesion types on which rows are compared too, at the operating points of the
            whole evaluation.
        note: What must be known to read it, in whole sentences.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    x_label: str = ""
    protocol: str = "deeplesion-2d"
    phantom: Literal["deeplesion", "lens", "lens-deeplesion"] = "deeplesion"
    split: Literal["val", "test"] = "test"
    seeds: int = 3
    twins_only: bool = False
    note: str = ""
    margin: float = 2.0
    specialties: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def row(self, key: str) -> Row:
        """The row with this key."""
        return next(row for row in self.rows if row.key == key)


def remedied(key: str, label: str, config: str, tail: str = "_7s", schedule: str = "20e") -> tuple[Row, Row]:
    """A detector that recalibrates hard negatives, and one that ignores them."""
    return (
        Row(f"{key}-recalibrate", f"{label} + recalibration", f"{config}_recalibrate{tail}", schedule=schedule),
        Row(f"{key}-ignore-hard", f"{label}, hard negatives ignored", f"{config}_ignore-hard{tail}", schedule=schedule),
    )


def against(rows: tuple[Row, ...]) -> tuple[tuple[str, str], ...]:
    """Each row compared with the first."""
    return tuple((row.key, rows[0].key) for row in rows[1:])
