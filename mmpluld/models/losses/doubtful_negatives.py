"""Losses that look at the score of a negative: where it is high, the negative may be a lesion that nobody marked."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import torch
from mmdet.models.losses import GaussianFocalLoss, QualityFocalLoss, VarifocalLoss
from torch import Tensor, nn

from mmpluld.errors import InputError
from mmpluld.models.progress import has_begun
from mmpluld.registry import MODELS

__all__ = ["BackgroundRecalibrationLoss", "IgnoreHardNegatives"]

Label: TypeAlias = Tensor | tuple[Tensor, Tensor]


class _DoubtfulNegatives(nn.Module, ABC):
    """Finds the doubtful negatives, changes their target or weight, and leaves the rest to the wrapped loss.

    Doubtful is an anchor, cell or region whose target is background and whose highest score of a class is above
    ``threshold``, once the share ``warmup`` of the training is over; of more than ``limit`` for each positive of the
    call those with the highest scores. Scores are those of the wrapped loss: sigmoids, or the softmax without its last
    column, the background.
    """

    refused: tuple[type[nn.Module], ...] = ()

    def __init__(
        self,
        loss: dict[str, Any] | nn.Module,
        threshold: float,
        warmup: float = 0.0,
        limit: float | None = None,
        use_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not isinstance(loss, (dict, nn.Module)):
            raise InputError(f"{name}: loss is {loss!r}; it is the config of the wrapped loss, or the module")
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < 1:
            raise InputError(f"{name}: threshold is {threshold}; it is a score above 0 and below 1")
        if isinstance(warmup, bool) or not isinstance(warmup, (int, float)) or not 0 <= warmup < 1:
            raise InputError(f"{name}: warmup is {warmup}; it is a share of the training, 0 for none up to below 1")
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit < math.inf
        ):
            raise InputError(f"{name}: limit is {limit}; it is a number above 0 (negatives for each positive), or None")
        self.loss = MODELS.build(loss) if isinstance(loss, dict) else loss
        self.threshold = float(threshold)
        self.warmup = float(warmup)
        self.limit = limit
        self.use_sigmoid = use_sigmoid
        kind = type(self.loss).__name__
        innermost = self.loss
        while isinstance(getattr(innermost, "loss", None), nn.Module):
            innermost = innermost.loss
        if isinstance(innermost, self.refused) or getattr(innermost, "custom_cls_channels", False):
            raise InputError(
                f"{name}: cannot wrap {type(innermost).__name__}; take a loss whose target is a class index, such as "
                "FocalLoss or CrossEntropyLoss, or PartialLabelLoss around it"
            )
        sigmoid = getattr(self.loss, "use_sigmoid", False)
        if use_sigmoid != sigmoid:
            raise InputError(
                f"{name}: use_sigmoid is {use_sigmoid}, but that of the wrapped {kind} is {sigmoid}; "
                f"write use_sigmoid={sigmoid} beside type='{name}', where the head looks for it"
            )

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, warmup={self.warmup}, limit={self.limit}"

    def forward(
        self,
        cls_score: Tensor,
        label: Label,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Return the wrapped loss, reduced as it reduces.

        Args:
            cls_score: Logits (N, C) of a sigmoid loss, (N, C + 1) of a softmax loss.
            label: Class indices (N,) with C for background; for ``QualityFocalLoss`` with qualities (N,).
            weight: Of each anchor (N,); 0 for those that were not sampled.
            avg_factor: Divisor for the 'mean' reduction; it stays what it is.
            reduction_override: 'none', 'mean', 'sum', or None for the wrapped loss's own.

        Raises:
            InputError: The targets are no class indices, or nobody counts the iterations of the warm-up.
        """
        if self.training and has_begun(self.warmup, f"{type(self).__name__}: warmup"):
            label, weight = self._changed(label, weight, *self._doubtful(cls_score, label, weight))
        result: Tensor = self.loss(
            cls_score, label, weight, avg_factor=avg_factor, reduction_override=reduction_override
        )
        return result

    @abstractmethod
    def _changed(
        self, label: Label, weight: Tensor | None, doubtful: Tensor, likely: Tensor
    ) -> tuple[Label, Tensor | None]:
        """New targets and weights, given which anchors (N,) are doubtful, and the class (N,) with the highest score."""

    def _doubtful(self, cls_score: Tensor, label: Label, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        classes = label[0] if isinstance(label, tuple) else label
        if classes.dim() != 1 or classes.is_floating_point():
            raise InputError(
                f"{type(self).__name__}: the head hands over targets of shape {tuple(classes.shape)}, "
                f"{classes.dtype}; it works on class indices, one for each anchor"
            )
        logits = cls_score.detach().float()
        scores = logits.sigmoid() if self.use_sigmoid else logits.softmax(-1)[:, :-1]
        highest, likely = scores.max(-1)
        doubtful = (classes == scores.size(-1)) & (highest > self.threshold)
        if self.limit is not None:
            counted = torch.ones_like(doubtful) if weight is None else weight > 0
            positives = int((counted & (classes >= 0) & (classes < scores.size(-1))).sum())
            ranked = torch.where(doubtful & counted, highest, -1.0).argsort(descending=True, stable=True)
            doubtful[ranked[int(self.limit * positives) :]] = False
        return doubtful, likely


@MODELS.register_module()
class IgnoreHardNegatives(_DoubtfulNegatives):
    """Leaves negatives with a high score out of a classification loss.

    A detector that has seen the marked lesions gives unmarked ones a high score. With target y (1 = lesion), score p
    of the highest class and wrapped loss l,

        l' = 0 where y = 0 and p > threshold, else l.

    Look-alikes with a high score are left out, too: nothing teaches the detector that they are none. Hence the warm-up,
    in which every negative counts. The divisor does not change.

    Args:
        loss: Config of the wrapped loss, or the module: one whose target is a class index, with a sigmoid or a softmax,
            or ``PartialLabelLoss`` around one.
        threshold: Score above which a negative is left out, in (0, 1). What is high depends on the loss; see
            docs/explanation/partial_label_loss.md.
        warmup: Share of the training's iterations, from the first, in which the loss is the wrapped one, in [0, 1).
            mmengine's runner counts them, so a resumed training goes on where it was.
        limit: Most negatives that are left out, for each positive of a call, above 0; None: all. A call has the batch
            of this process; in a pyramid, of each level, as mmdet's anchor heads call once a level.
        use_sigmoid: That of the wrapped loss, said once more: mmdet's dense heads read it beside ``type``.

    Raises:
        InputError: A setting is out of range, ``use_sigmoid`` differs from the wrapped loss's, or that one has soft
            targets.

    Not in the papers; the plainest of the remedies for missing labels that look at the score.
    """

    refused = (GaussianFocalLoss, VarifocalLoss)

    def _changed(
        self, label: Label, weight: Tensor | None, doubtful: Tensor, likely: Tensor
    ) -> tuple[Label, Tensor | None]:
        weight = torch.ones_like(doubtful, dtype=torch.float32) if weight is None else weight
        return label, weight.masked_fill(doubtful, 0.0)


@MODELS.register_module()
class BackgroundRecalibrationLoss(_DoubtfulNegatives):
    """Takes negatives with a high score for lesions in a classification loss.

    With target y (1 = lesion), score p of the highest class and wrapped loss l,

        l'(y, p) = l(1, p) where y = 0 and p > threshold, else l(y, p).

    So the gradient of a negative turns round at the threshold: below, its score falls, above, it rises. Of a focal loss
    this is the source's mirrored branch, with the weight ``alpha`` of a positive. The divisor does not change: in heads
    that divide by the number of positives that is the number of marked ones.

    Args:
        loss: As for ``IgnoreHardNegatives``, except ``QualityFocalLoss``: a likely lesion has no known quality.
        threshold: Score above which a negative is taken for a lesion, in (0, 1); see ``IgnoreHardNegatives``.
        warmup: As for ``IgnoreHardNegatives``. What is mistaken early stays mistaken.
        limit: Most negatives that are taken for lesions, for each positive of a call, see ``IgnoreHardNegatives``;
            None: all. In a dense head take one, such as the number of unmarked lesions for each marked one: without,
            what is mistaken lifts its neighbours' scores above the threshold, until everything is a lesion.
        use_sigmoid: As for ``IgnoreHardNegatives``.

    Raises:
        InputError: As for ``IgnoreHardNegatives``.

    Source: Zhang et al., "Solving Missing-Annotation Object Detection with Background Recalibration Loss", ICASSP 2020,
    for RetinaNet: its confusion threshold t is 1 - ``threshold``, 0.5 in its code. There only anchors that overlap no
    marked object by an IoU of 0.1 are recalibrated, with a smaller weight, and without a warm-up; a loss sees no boxes.
    """

    refused = (GaussianFocalLoss, VarifocalLoss, QualityFocalLoss)

    def _changed(
        self, label: Label, weight: Tensor | None, doubtful: Tensor, likely: Tensor
    ) -> tuple[Label, Tensor | None]:
        assert isinstance(label, Tensor)  # losses with pairs are refused
        return torch.where(doubtful, likely, label), weight
