"""The rules by which 2D boxes become findings, in one place for tests, commands and Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeGuard, get_args

from mmpluld.datasets.steps import type_name
from mmpluld.errors import InputError, did_you_mean
from mmpluld.postprocess.grid import GridRule
from mmpluld.postprocess.linking import LinkOrder, ScoreRule
from mmpluld.structures.model_line import LinkingLine

if TYPE_CHECKING:
    from mmengine.config import Config

__all__ = ["DetectionSettings", "is_number", "reduction_of_test"]

_CHOICES = {"link_order": LinkOrder, "score_rule": ScoreRule, "grid_rule": GridRule}
_LEAST = {"max_gap": 0, "min_slices": 1, "max_boxes": 1}


@dataclass(frozen=True)
class DetectionSettings:
    """How 2D boxes of a volume's slices are made into 3D boxes, and which of these are findings.

    What changes the time and not the rules (device, precision, batch size) is no part of it.

    Attributes:
        link_score_thr: 2D boxes are linked from this score on, in [0, 1]. Where a lesion ends, its boxes score less
            than in its middle, so this is what decides how long findings are along z. Not above ``score_thr``, but
            with false-positive reduction: this is of the detector's scores then, and ``score_thr`` of the new ones.
        score_thr: 3D boxes are findings from this score on, in [0, 1].
        iou_thr: See :func:`mmpluld.postprocess.link_slices`, as for the next two.
        max_gap: Grid slices without a partner that a chain of 2D boxes may bridge.
        link_order: ``iou`` or ``score``, which pair of boxes comes first.
        score_rule: ``max`` or ``mean``, see :func:`mmpluld.postprocess.tracklet_to_box3d`.
        grid_rule: ``covered`` or ``nearest``, see :class:`mmpluld.postprocess.GridMap`.
        min_slices: Chains with 2D boxes on fewer grid slices are dropped.
        max_boxes: Findings to keep of a volume, those with the best scores; None keeps all.
        tag_thr: Tags of a finding below this score are left out, in [0, 1].

    Raises:
        InputError: If a value is not allowed.
    """

    link_score_thr: float = 0.05
    score_thr: float = 0.3
    iou_thr: float = 0.5
    max_gap: int = 0
    link_order: LinkOrder = "iou"
    score_rule: ScoreRule = "max"
    grid_rule: GridRule = "covered"
    min_slices: int = 1
    max_boxes: int | None = None
    tag_thr: float = 0.5

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in get_args(choices):
                raise InputError(f"{name} is {getattr(self, name)!r}; allowed are {', '.join(get_args(choices))}")
        for name in ("link_score_thr", "score_thr", "iou_thr", "tag_thr"):
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value <= 1):
                raise InputError(f"{name} is {value}; allowed is 0 to 1")
        if self.iou_thr == 1:
            raise InputError(f"iou_thr is {self.iou_thr}; allowed is 0 to below 1")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole and value >= least) and (name, value) != ("max_boxes", None):
                raise InputError(f"{name} is {value}; allowed is {least} or more, in whole numbers")

    def checked(self, rescored: bool) -> DetectionSettings:
        """The settings themselves, refused where their two thresholds contradict each other.

        Args:
            rescored: Findings get new scores from false-positive reduction, so the two are of different scales.

        Raises:
            InputError: If they do.
        """
        if not rescored and self.link_score_thr > self.score_thr:
            raise InputError(
                f"link_score_thr is {self.link_score_thr:g}, above score_thr {self.score_thr:g}: findings between the "
                "two would be missing; lower link_score_thr or raise score_thr"
            )
        return self

    @classmethod
    def check_changes(cls, changes: Mapping[str, Any], rescored: bool = False) -> None:
        """Refuse changes that no config could take; ``rescored`` if findings may get new scores.

        Raises:
            InputError: A name is no rule's, or a value is not allowed.
        """
        names = [field.name for field in fields(cls)]
        for name in changes:
            if name not in names:
                raise InputError(f"{name}: no such rule{did_you_mean(name, names, 'there are ' + ', '.join(names))}")
        cls(**{"link_score_thr": 0.0, "score_thr": 1.0, **changes}).checked(rescored)

    @classmethod
    def of_test(cls, given: Mapping[str, Any], rescored: bool = False) -> DetectionSettings:
        """Settings of a test, from those given; where no ``score_thr`` is, every 3D box is a finding.

        Args:
            given: Those of ``test_cfg``.
            rescored: See :meth:`checked`.

        Raises:
            InputError: If a value is not allowed.
        """
        link = given.get("link_score_thr", _link_below(given, cls.link_score_thr, rescored))
        every = 0.0 if rescored else link
        return cls(**{"score_thr": every, **given, "link_score_thr": link}).checked(rescored)

    @classmethod
    def from_config(cls, config: Config, rescored: bool = False, **changes: Any) -> DetectionSettings:
        """Settings that a config is tested with, and changes to them.

        A config carries them in ``test_cfg`` if that is a ``VolumeTestLoop``; one that is tested on single slices has
        no rules of 3D boxes and takes the defaults. A ``score_thr`` below ``link_score_thr`` lowers that too, unless
        it is given at the same place, or findings get new scores.

        Args:
            config: A loaded config of the zoo.
            rescored: See :meth:`checked`.
            **changes: Attributes of the settings.

        Raises:
            InputError: If a value is not allowed.
        """
        test: Mapping[str, Any] = config.get("test_cfg") or {}
        carried = {}
        if type_name(test) == "VolumeTestLoop":
            carried = {field.name: test[field.name] for field in fields(cls) if field.name in test}
        link = carried.get("link_score_thr", _link_below(carried, cls.link_score_thr, rescored))
        link = changes.get("link_score_thr", _link_below(changes, link, rescored))
        # A test that links from above the usual threshold of findings says that there are none below.
        least = None if rescored else carried.get("link_score_thr")
        usual = {"score_thr": max(cls.score_thr, least)} if is_number(least) else {}
        return cls(**{**usual, **carried, **changes, "link_score_thr": link}).checked(rescored)

    def linking(self) -> str:
        """The rules in words of which the scores and numbers of 3D boxes depend, whichever threshold is chosen."""
        apart = ("link_score_thr", "score_thr", "iou_thr", "tag_thr")
        others = [(field, getattr(self, field.name)) for field in fields(self) if field.name not in apart]
        changed = "".join(f", {field.name} {value}" for field, value in others if value != field.default)
        return f"{self.link_score_thr:g} or more, linked at IoU above {self.iou_thr:g}{changed}"

    @classmethod
    def linking_of(cls, config: Config, **changes: Any) -> str:
        """:meth:`linking` of a config's rules with changes to them, whatever threshold of findings is among these."""
        return cls.from_config(config, rescored=True, **{**changes, "score_thr": 1.0}).linking()

    def describe(self) -> str:
        """The rules in words, for records: the thresholds and the overlap, and what is not as by default."""
        tags = "" if self.tag_thr == type(self).tag_thr else f", their tags {self.tag_thr:g} or more"
        return str(LinkingLine(self.linking(), f"{self.score_thr:g} or more{tags}"))


def reduction_of_test(config: Config) -> dict[str, Any]:
    """False-positive reduction that a config is tested with, ``checkpoint`` and others; empty if there is none."""
    return dict((config.get("test_cfg") or {}).get("fpr") or {})


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _link_below(given: Mapping[str, Any], link_score_thr: float, rescored: bool) -> float:
    """``link_score_thr``, or the ``score_thr`` given where that is lower and of the same scale."""
    score_thr = given.get("score_thr")
    return score_thr if not rescored and is_number(score_thr) and score_thr < link_score_thr else link_score_thr
