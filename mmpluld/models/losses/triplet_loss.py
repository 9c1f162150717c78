"""Which lesions should lie close together in an embedding, and the loss that asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

__all__ = ["LesionTripletLoss", "same_lesion", "tag_similarity"]


def tag_similarity(tags: Tensor) -> Tensor:
    """Similarity (N, N) of lesions by their ``tags`` (N, T): common tags, times their share of all tags of the two.

    NaN, as in losses of tags, counts as absent; a lesion without any known tag has similarity NaN with all.

    Source: LesaNet, 2019.
    """
    present = (tags == 1).float()
    common = present @ present.T
    counts = present.sum(dim=1)
    union = counts[:, None] + counts[None] - common
    similarity = common * common / union.clamp(min=1)
    unknown = tags.isnan().all(dim=1)
    return similarity.masked_fill(unknown[:, None] | unknown[None], float("nan"))


def same_lesion(lesion_ids: Tensor, identities: Tensor, patients: Sequence[str], volumes: Sequence[str]) -> Tensor:
    """Whether lesions of a batch are one: (N, N), 1 yes, 0 no, NaN where nobody knows.

    Two views of one mark are one lesion. Lesions of two patients, and two marks in one volume whose numbers are not
    the same, are two. Marks in two volumes of a patient are what their numbers say, if both have one.

    Args:
        lesion_ids: (N,) numbers of the marks, unique within an annotation file, of which a batch may have several.
        identities: (N,) number of the lesion within its patient, -1 where it is not known.
        patients, volumes: N names each.
    """
    one_patient, one_volume = (_equal(names).to(lesion_ids.device) for names in (patients, volumes))
    known = (identities[:, None] >= 0) & (identities[None] >= 0)
    same = one_patient & known & (identities[:, None] == identities[None])
    same = same | (one_patient & one_volume & (lesion_ids[:, None] == lesion_ids[None]))
    unknown = one_patient & ~known & ~one_volume & ~same
    return same.float().masked_fill(unknown, float("nan"))


@MODELS.register_module()
class LesionTripletLoss(nn.Module):
    """Mean of ``max(0, margin + d(anchor, positive) - d(anchor, negative))`` over random triplets, d squared distances.

    The mean is over the triplets above 0: most of them soon are not, and would hide the others.

    Triplets are of two kinds. By tags: a positive has at least similarity 1 with the anchor
    (:func:`tag_similarity`), a negative less than the positive. By identity: a positive is the same lesion, on another
    view or in another volume, a negative is another lesion for certain (:func:`same_lesion`). Anchor and positive are
    drawn evenly from the pairs that have a negative.

    Args:
        margin: Margin.
        num_triplets: Triplets of a batch.
        identity_share: Share of the triplets by identity, where the batch has some; 0 is LesaNet.
        hard_share: Share of these whose negative is of the anchor's patient, where there is one.
        loss_weight: Factor on the loss.

    Raises:
        InputError: A setting is out of range.

    Source: LesaNet, 2019; constants from its code. Which distance and which mean it takes is not said;
    identities are ours.
    """

    def __init__(
        self,
        margin: float = 0.1,
        num_triplets: int = 5000,
        identity_share: float = 0.0,
        hard_share: float = 0.5,
        loss_weight: float = 5.0,
    ) -> None:
        super().__init__()
        for name, value in (("identity_share", identity_share), ("hard_share", hard_share)):
            if not 0 <= value <= 1:
                raise InputError(f"LesionTripletLoss: {name} is {value}; allowed is 0 to 1")
        if num_triplets < 1:
            raise InputError(f"LesionTripletLoss: num_triplets is {num_triplets}; allowed are whole numbers from 1")
        self.margin = margin
        self.num_triplets = num_triplets
        self.identity_share = identity_share
        self.hard_share = hard_share
        self.loss_weight = loss_weight

    def forward(self, embeddings: Tensor, tags: Tensor, same: Tensor, patients: Sequence[str]) -> Tensor:
        """Loss of ``embeddings`` (N, C), of length 1.

        Args:
            embeddings: One for each lesion of the batch.
            tags: (N, T), NaN where unknown.
            same: (N, N) as from :func:`same_lesion`.
            patients: N names.
        """
        by_identity = round(self.num_triplets * self.identity_share)
        triplets = torch.cat(
            [
                self._by_identity(same, patients, by_identity),
                self._by_tags(tag_similarity(tags), self.num_triplets - by_identity),
            ]
        )
        if not len(triplets):
            return embeddings.sum() * 0
        # Of vectors of length 1, |a - b|^2 = 2 - 2 ab; all pairs at once: a batch has fewer of them than triplets.
        with torch.autocast(embeddings.device.type, enabled=False):
            squared = 2 - 2 * embeddings.float() @ embeddings.float().T
        anchor, positive, negative = triplets.T
        loss = (self.margin + squared[anchor, positive] - squared[anchor, negative]).clamp(min=0)
        return self.loss_weight * loss.sum() / (loss > 0).sum().clamp(min=1)

    def _by_tags(self, similarity: Tensor, count: int) -> Tensor:
        """(count, 3) anchors, positives and negatives; none where there are none."""
        lower = similarity[:, None] < similarity[:, :, None]  # (anchor, positive, negative); false for NaN
        alike = (similarity >= 1).fill_diagonal_(False) & lower.any(dim=2)
        pairs = _drawn_rows(alike, count)
        anchor, positive = pairs.T
        return torch.cat([pairs, _draw(lower[anchor, positive].float())], dim=1)

    def _by_identity(self, same: Tensor, patients: Sequence[str], count: int) -> Tensor:
        other = same == 0
        near = other & _equal(patients).to(same.device)
        far = other & ~near
        # Where an anchor has negatives of one kind alone, they are drawn, whatever the share.
        share = torch.where(near.any(1), self.hard_share, 0.0)
        share = torch.where(far.any(1), share, 1.0)[:, None]
        chances = share * near / near.sum(1, keepdim=True).clamp(min=1)
        chances = chances + (1 - share) * far / far.sum(1, keepdim=True).clamp(min=1)
        one = (same == 1).fill_diagonal_(False) & (chances.sum(1) > 0)[:, None]
        pairs = _drawn_rows(one, count)
        return torch.cat([pairs, _draw(chances[pairs[:, 0]])], dim=1)


def _equal(names: Sequence[str]) -> Tensor:
    """(N, N), which of N names are the same."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    values = torch.tensor([numbers[name] for name in names], dtype=torch.long)
    return values[:, None] == values[None]


def _drawn_rows(mask: Tensor, count: int) -> Tensor:
    """(count, 2) places of a mask (N, N) that are true, drawn evenly with replacement; none if none is."""
    places = mask.nonzero()
    if not len(places):
        return places
    return places[torch.randint(len(places), (count,), device=mask.device)]


def _draw(chances: Tensor) -> Tensor:
    """(R, 1) column of each row of ``chances`` (R, N), drawn in proportion."""
    if not len(chances):
        return chances.new_zeros((0, 1), dtype=torch.long)
    return torch.multinomial(chances, 1)
