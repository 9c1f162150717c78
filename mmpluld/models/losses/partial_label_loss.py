"""Classification loss that distrusts the negatives of partially labelled images."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from torch import Tensor, nn

from mmpluld.registry import MODELS

__all__ = ["PartialLabelLoss"]


@MODELS.register_module()
class PartialLabelLoss(nn.Module):
    """Weakens the negatives of any elementwise sigmoid classification loss.

    An unlabelled lesion looks like background. Two independent switches weaken that signal: a random mask
    drops negatives, and the kept ones are scaled. With target y in {0, 1} (1 = lesion) and the wrapped loss l
    of one element,

        l' = (pos_weight * y + neg_weight * m * (1 - y)) * l,    m ~ Bernoulli(keep_prob), drawn anew for each
        call.

    An element is one logit: with several classes, an anchor is a positive of its own class and a negative of
    every other. A wrapped loss that returns one value per anchor is weighted per anchor instead. The draws
    are independent, so whether they cover all negatives or the sampled ones makes no difference. On average
    mask and factor together act like the factor ``neg_weight * keep_prob`` alone.

    Args:
        loss: Config of the wrapped loss, or the module. It must use the sigmoid and know
            ``reduction_override='none'`` (mmdet's CrossEntropyLoss with ``use_sigmoid=True``, FocalLoss,
            QualityFocalLoss, ...).
        neg_weight: Factor on negatives, lambda in the paper; in [0, 1], 1 leaves them unchanged.
        keep_prob: Probability that a negative is kept; in [0, 1]. At 1 no random number is drawn.
        pos_weight: Factor on positives, >= 0.
        renorm_by_kept: Divide by the number of samples that the mask left, not by all samples. The peer code
            and the default keep the full number, so that masking also lowers the weight of the negatives.
        use_sigmoid: mmdet's stock heads read this flag beside ``type`` to decide on a background channel;
            with them write True here. ``mmpluld``'s own heads fill it in. It must agree with the wrapped
            loss.

    Raises:
        ValueError: If a factor is out of range, the wrapped loss is not a sigmoid loss or averages over a
            count that only it knows, or ``use_sigmoid`` contradicts it.

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
        use_sigmoid: bool | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("neg_weight", neg_weight), ("keep_prob", keep_prob)):
            if not 0 <= value <= 1:
                raise ValueError(f"PartialLabelLoss: {name} is {value}; it must be between 0 and 1")
        if not 0 <= pos_weight < float("inf"):
            raise ValueError(f"PartialLabelLoss: pos_weight is {pos_weight}; it must be at least 0 and finite")
        wrapped = MODELS.build(loss) if isinstance(loss, dict) else loss
        kind = type(wrapped).__name__
        if not getattr(wrapped, "use_sigmoid", False):
            raise ValueError(f"PartialLabelLoss: the wrapped {kind} must be a sigmoid loss; set use_sigmoid=True in it")
        if use_sigmoid is False:
            raise ValueError(f"PartialLabelLoss: use_sigmoid is False, but the wrapped {kind} uses the sigmoid")
        if getattr(wrapped, "avg_non_ignore", False):
            raise ValueError(f"PartialLabelLoss: the wrapped {kind} must not set avg_non_ignore")
        self.loss = wrapped
        self.neg_weight = float(neg_weight)
        self.keep_prob = float(keep_prob)
        self.pos_weight = float(pos_weight)
        self.renorm_by_kept = renorm_by_kept
        self.use_sigmoid = True
        self._channels_agreed = use_sigmoid is True

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
        **kwargs: Any,
    ) -> Tensor:
        """Return the loss, reduced as the wrapped loss would reduce it.

        Args:
            cls_score: Logits (N, C), or (N,) for one class.
            label: What the wrapped loss expects. Class indices (N,) with C for background (the foreground of
                an RPN is 0, its background 1), targets of the logits' own shape (positive where > 0), or a
                (classes, quality) pair.
            weight: Per anchor (N,) or per logit; 0 for anchors that were not sampled.
            avg_factor: Divisor for the 'mean' reduction, usually the number of sampled anchors.
            reduction_override: 'none', 'mean', 'sum', or None for the wrapped loss's own.
            generator: Source of the mask, on the logits' device; torch's default generator if None.
            **kwargs: Passed on to the wrapped loss.
        """
        if cls_score.dim() > 1 and cls_score.size(1) > 1 and not self._channels_agreed:
            raise ValueError(
                f"PartialLabelLoss: {cls_score.size(1)} logits per anchor, but the head was not told to leave out the "
                "background channel; write use_sigmoid=True beside type='PartialLabelLoss'"
            )
        reduction = reduction_override or getattr(self.loss, "reduction", "mean")
        masked = self.training and self.keep_prob < 1
        unchanged = self.neg_weight == 1 and self.pos_weight == 1 and not masked
        if not cls_score.dtype.is_floating_point or cls_score.dtype.itemsize < 4:
            cls_score = cls_score.float()
        with torch.autocast(cls_score.device.type, enabled=False):
            values = self.loss(
                cls_score,
                label,
                weight=weight,
                avg_factor=avg_factor,
                reduction_override=reduction if unchanged else "none",
                **kwargs,
            )
            if unchanged:
                return values
            positive = self._positives(cls_score, label, values)
            factor = torch.where(positive, self.pos_weight, self.neg_weight).to(values.dtype)
            scale: float | Tensor = 1.0
            if masked:
                draw = torch.rand(values.shape, device=values.device, generator=generator)
                kept = positive | (draw < self.keep_prob)
                factor = factor * kept
                if self.renorm_by_kept and reduction == "mean":
                    scale = self._kept_fraction(kept, weight)
            return weight_reduce_loss(values, factor, reduction, avg_factor) / scale

    @staticmethod
    def _positives(cls_score: Tensor, label: Tensor | tuple[Tensor, Tensor], values: Tensor) -> Tensor:
        """Boolean, of the shape of the unreduced loss ``values``: True where the target is a lesion."""
        target = label[0] if isinstance(label, tuple) else label
        if target.dim() == cls_score.dim():
            positive = target > 0
        else:
            positive = target.unsqueeze(-1) == torch.arange(cls_score.size(-1), device=target.device)
        if values.dim() == positive.dim() - 1:
            positive = positive.any(dim=-1)
        if values.shape != positive.shape:
            raise ValueError(
                f"PartialLabelLoss: the wrapped loss returned shape {tuple(values.shape)} for targets of shape "
                f"{tuple(positive.shape)}; it must return one value per logit or per anchor"
            )
        return positive

    @staticmethod
    def _kept_fraction(kept: Tensor, weight: Tensor | None) -> Tensor:
        """Share of the sampled elements that the mask left, at least one of them."""
        if weight is None:
            sampled = torch.ones_like(kept)
        else:
            sampled = (weight > 0).view(len(kept), *[1] * (kept.dim() - 1)) if weight.dim() < kept.dim() else weight > 0
        sampled = sampled.expand_as(kept)
        return (kept & sampled).sum().clamp(min=1) / sampled.sum().clamp(min=1)
