"""Classification loss that distrusts the negatives of partially labelled images."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.losses import FocalLoss, GaussianFocalLoss, QualityFocalLoss, VarifocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from torch import Tensor, nn

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

__all__ = ["PartialLabelLoss"]

# Heads divide these by the number of positives, not by the number of samples.
_DIVIDED_BY_POSITIVES = (FocalLoss, GaussianFocalLoss, QualityFocalLoss, VarifocalLoss)


@MODELS.register_module()
class PartialLabelLoss(nn.Module):
    """Weakens the negatives of any elementwise sigmoid classification loss.

    An unlabelled lesion looks like background. Two independent switches weaken that signal: a random mask
    drops negatives, and the kept ones are scaled. With target y in {0, 1} (1 = lesion) and the wrapped loss l
    of one element,

        l' = (pos_weight * y + neg_weight * m * (1 - y)) * l,    m ~ Bernoulli(keep_prob), drawn anew for each
        call.

    An element is one logit: with several classes, an anchor is a positive of its own class and a negative of
    every other. What makes it a negative depends on the target of the wrapped loss:

    - class index, background = number of classes (CrossEntropyLoss, FocalLoss): any other class;
    - pair of class index and quality (QualityFocalLoss): the same; a positive of quality 0 stays a positive;
    - soft scores of the logits' own shape (VarifocalLoss, any loss with one-hot targets): score 0;
    - heat map (GaussianFocalLoss): below 1, so also around a centre, where the wrapped loss is weak by itself.

    The draws are independent, so whether they cover all negatives or the sampled ones makes no difference. On
    average mask and factor together act like the factor ``neg_weight * keep_prob`` alone.

    Args:
        loss: Config of the wrapped loss, or the module. It must know ``reduction_override='none'`` and then
            return one value per logit; ``QualityFocalLoss``, which adds up the classes, is taken apart.
        neg_weight: Factor on negatives, lambda in the paper; in [0, 1], 1 leaves them unchanged.
        keep_prob: Probability that a negative is kept; in [0, 1]. At 1 no random number is drawn.
        pos_weight: Factor on positives, >= 0.
        renorm_by_kept: Divide by the number of samples that the mask left, not by all samples. The peer code
            and the default keep the full number, so that masking also lowers the weight of the negatives.
            For heads with a sampler; refused with losses that heads divide by the number of positives.
            Samples are those of a call: in a pyramid, of each level, as mmdet's anchor heads call once a level.
        use_sigmoid: That of the wrapped loss, said once more: mmdet's heads read it beside ``type`` to decide
            on a background channel. True for all but ``GaussianFocalLoss``.

    Raises:
        InputError: If a factor is out of range, the wrapped loss is not a sigmoid loss or averages over a
            count that only it knows, ``use_sigmoid`` differs from it, or ``renorm_by_kept`` does not fit it.

    Note:
        Computed in float32 also under autocast; a sum over elements with weight 0 gets exact zeros from them.
        No mask in evaluation mode. With both factors and ``keep_prob`` at 1 the result is that of the wrapped
        loss, bit for bit.

    Source: partial-label loss of the PLuld paper (mask and lambda on the negative term of the RPN's cross
    entropy). The released code thresholds a standard normal draw at 0, which is ``keep_prob=0.5``, and has
    lambda without the mask.
    """

    def __init__(
        self,
        loss: dict[str, Any] | nn.Module,
        neg_weight: float = 0.6,
        keep_prob: float = 0.5,
        pos_weight: float = 1.0,
        renorm_by_kept: bool = False,
        use_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (("neg_weight", neg_weight), ("keep_prob", keep_prob)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise InputError(f"PartialLabelLoss: {name} is {value}; it must be between 0 and 1")
        if not 0 <= pos_weight < float("inf"):
            raise InputError(f"PartialLabelLoss: pos_weight is {pos_weight}; it must be at least 0 and finite")
        self.loss = MODELS.build(loss) if isinstance(loss, dict) else loss
        self.neg_weight = float(neg_weight)
        self.keep_prob = float(keep_prob)
        self.pos_weight = float(pos_weight)
        self.renorm_by_kept = renorm_by_kept
        self.use_sigmoid = use_sigmoid
        self._check_wrapped()

    def _check_wrapped(self) -> None:
        kind = type(self.loss).__name__
        sigmoid = getattr(self.loss, "use_sigmoid", False)
        if not sigmoid and not isinstance(self.loss, GaussianFocalLoss):
            raise InputError(f"PartialLabelLoss: the wrapped {kind} must be a sigmoid loss; set use_sigmoid=True in it")
        if self.use_sigmoid != sigmoid:
            raise InputError(
                f"PartialLabelLoss: use_sigmoid is {self.use_sigmoid}, but that of the wrapped {kind} is {sigmoid}; "
                f"write use_sigmoid={sigmoid} beside type='PartialLabelLoss', where the head looks for it"
            )
        if getattr(self.loss, "avg_non_ignore", False):
            raise InputError(f"PartialLabelLoss: the wrapped {kind} must not set avg_non_ignore")
        if self.renorm_by_kept and isinstance(self.loss, _DIVIDED_BY_POSITIVES):
            raise InputError(
                f"PartialLabelLoss: renorm_by_kept has no meaning for the wrapped {kind}, which heads divide by the "
                "number of positives; leave it False"
            )

    def extra_repr(self) -> str:
        return (
            f"neg_weight={self.neg_weight}, keep_prob={self.keep_prob}, pos_weight={self.pos_weight}, "
            f"renorm_by_kept={self.renorm_by_kept}"
        )

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor | tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the loss, reduced as the wrapped loss would reduce it.

        Args:
            cls_score: Logits (N, C), or (N,) for one class; for ``GaussianFocalLoss`` probabilities (B, C, H, W).
            label: What the wrapped loss expects. Class indices (N,) with C for background (the foreground of
                an RPN is 0, its background 1), a pair of those and qualities (N,), or targets in [0, 1] of the
                logits' own shape.
            weight: Per anchor (N,) or per logit; 0 for anchors that were not sampled.
            avg_factor: Divisor for the 'mean' reduction: the number of sampled anchors, or of positives.
            reduction_override: 'none', 'mean', 'sum', or None for the wrapped loss's own.
            generator: Source of the mask, on the logits' device; torch's default generator if None.
        """
        reduction = reduction_override or getattr(self.loss, "reduction", "mean")
        masked = self.training and self.keep_prob < 1
        if not cls_score.dtype.is_floating_point or cls_score.dtype.itemsize < 4:
            cls_score = cls_score.float()
        with torch.autocast(cls_score.device.type, enabled=False):
            if self.neg_weight == 1 and self.pos_weight == 1 and not masked:
                return self.loss(cls_score, label, weight=weight, avg_factor=avg_factor, reduction_override=reduction)
            positive = self._positives(cls_score, label)
            values = self._values(cls_score, label, weight, positive)
            factor = torch.where(positive, self.pos_weight, self.neg_weight).to(values.dtype)
            scale: float | Tensor = 1.0
            if masked:
                draw = torch.rand(values.shape, device=values.device, generator=generator)
                kept = positive | (draw < self.keep_prob)
                factor = factor * kept
                if self.renorm_by_kept and reduction == "mean":
                    scale = self._kept_fraction(kept, weight)
            values = values * factor
            if isinstance(self.loss, QualityFocalLoss):
                values = values.sum(dim=-1)  # its 'none' and its plain mean are per anchor
            return weight_reduce_loss(values, None, reduction, avg_factor) / scale

    def _positives(self, cls_score: Tensor, label: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Boolean, of the shape of ``cls_score``: True where the target is a lesion."""
        target = label[0] if isinstance(label, tuple) else label
        if target.dim() < cls_score.dim():
            return target.unsqueeze(-1) == torch.arange(cls_score.size(-1), device=target.device)
        return target == 1 if isinstance(self.loss, GaussianFocalLoss) else target > 0

    def _values(
        self, cls_score: Tensor, label: Tensor | tuple[Tensor, Tensor], weight: Tensor | None, positive: Tensor
    ) -> Tensor:
        """The wrapped loss of every logit, in the shape of ``cls_score``, times ``weight``."""
        if not isinstance(self.loss, QualityFocalLoss):
            values = self.loss(cls_score, label, weight=weight, reduction_override="none")
            if values.shape != positive.shape:
                raise InputError(
                    f"PartialLabelLoss: the wrapped {type(self.loss).__name__} returned shape {tuple(values.shape)} "
                    f"for targets of shape {tuple(positive.shape)}; it must return one value per logit"
                )
            return values
        # Every logit as an anchor of its own with a single class.
        quality = label[1].unsqueeze(-1) if isinstance(label, tuple) else label
        target = (torch.where(positive, 0, 1).flatten(), quality.expand_as(cls_score).flatten())
        if weight is not None:
            weight = weight.view(len(cls_score), -1).expand_as(cls_score).flatten()
        values = self.loss(cls_score.reshape(-1, 1), target, weight=weight, reduction_override="none")
        return values.view_as(cls_score)

    @staticmethod
    def _kept_fraction(kept: Tensor, weight: Tensor | None) -> Tensor:
        """Share of the sampled elements that the mask left, at least one of them."""
        if weight is None:
            sampled = torch.ones_like(kept)
        else:
            sampled = (weight > 0).view(len(kept), *[1] * (kept.dim() - 1)) if weight.dim() < kept.dim() else weight > 0
        sampled = sampled.expand_as(kept)
        return (kept & sampled).sum().clamp(min=1) / sampled.sum().clamp(min=1)
