"""Labels that rows are trained on in place of the dataset's own, and how they are mined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmpluld.reproduce.rows import Row

__all__ = ["FPR", "Labels"]


@dataclass(frozen=True)
class Labels:
    """Mined labels of the first training dataset of a config.

    Attributes:
        key: Their name, unique in the package.
        detector: Whose proposals they are mined from.
        strategies: As ``mmpluld mine --strategies`` takes them.
        oracles: As ``mmpluld mine --oracle`` takes them: strategies without fault, from the complete truth.
        rules: Further arguments of ``mmpluld mine``.
        after: What is mined already, where it is a second round.
        views: Changes to the config of the detector, as ``--cfg-options`` takes them, for each further look at the
            images; the boxes of all looks are averaged (data distillation).
    """

    key: str
    detector: Row
    strategies: tuple[str, ...] = ()
    oracles: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    after: Labels | None = None
    views: tuple[tuple[str, ...], ...] = ()


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
