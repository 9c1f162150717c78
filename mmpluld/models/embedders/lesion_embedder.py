"""LesaNet: a patch round a lesion becomes a vector of length 1, and tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.errors import InputError
from mmpluld.models.losses.triplet_loss import same_lesion
from mmpluld.registry import MODELS

__all__ = ["LesionEmbedder", "roi_max_pool"]


def roi_max_pool(x: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Maxima in ``size`` x ``size`` bins of one box in each map: (B, C, size, size).

    The bins part all cells that a box touches, at least one; they overlap where they do not come out even, and repeat
    cells where a box has fewer cells than bins.

    Args:
        x: (B, C, H, W).
        boxes: (B, 4), x1, y1, x2, y2 in cells, edges, within the map.
        size: Bins along each axis.
    """
    height, width = x.shape[-2:]
    pooled = []
    for item, (x1, y1, x2, y2) in zip(x, boxes.tolist(), strict=True):
        left, top = min(int(x1), width - 1), min(int(y1), height - 1)
        right, bottom = max(-int(-x2 // 1), left + 1), max(-int(-y2 // 1), top + 1)
        pooled.append(F.adaptive_max_pool2d(item[:, top:bottom, left:right], size))
    return torch.stack(pooled)


@MODELS.register_module()
class LesionEmbedder(BaseModel):
    """VGG-16 with batch norm, features of five depths pooled to one vector, and from it an embedding and tags.

    At the end of each of the five stages (there is a 2 x 2 pooling between two) features are max-pooled, in the first
    three on the lesion's box, then on the whole patch, and a linear layer without activation makes ``stage_channels``
    numbers of them. From all of them together one linear layer makes the embedding, which is scaled to length 1, and
    another the logits of the tags; a third layer, first the identity, refines the logits.

    Args:
        in_channels: Slices of a patch.
        widths: Channels of each stage.
        depths: Convolutions of each stage.
        num_boxed: Stages, from the first, that are pooled on the lesion's box.
        pool_size: Bins along each axis.
        stage_channels: Numbers that each depth gives.
        embed_channels: C, numbers of the embedding.
        num_tags: T.
        norm_cfg: Normalisation.
        loss_tag: Loss over the known tags, of the logits and of the refined ones.
        loss_hard: Loss over the hard ones among the trusted tags, of the logits.
        loss_triplet: Loss of the embedding.
        data_preprocessor, init_cfg: As for mmengine's models; without ``init_cfg`` convolutions are He-normal.

    Shape:
        ``inputs``: list of (N_i, D, S, S), the patches of each sample, see
        :class:`~mmpluld.datasets.transforms.PackLesionPatches`. ``forward`` in mode ``tensor``: embeddings (N, C),
        logits (N, T), refined logits (N, T), for all lesions in the order of their samples. In mode ``predict`` samples
        get ``pred_instances`` with ``embeddings`` and ``tag_scores``, those of the refined logits.

    Source: LesaNet, 2019, with sizes from its code; how boxes are rounded to cells is ours (outwards).
    """

    def __init__(
        self,
        in_channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        depths: Sequence[int] = (2, 2, 3, 3, 3),
        num_boxed: int = 3,
        pool_size: int = 5,
        stage_channels: int = 256,
        embed_channels: int = 256,
        num_tags: int = 171,
        norm_cfg: dict = {"type": "BN"},  # noqa: B006  read only
        loss_tag: dict = {"type": "BalancedTagLoss"},  # noqa: B006  read only
        loss_hard: dict = {"type": "RelationalHardTagLoss"},  # noqa: B006  read only
        loss_triplet: dict = {"type": "LesionTripletLoss"},  # noqa: B006  read only
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if len(widths) != len(depths) or not 0 <= num_boxed <= len(widths):
            raise InputError(
                f"LesionEmbedder: widths {tuple(widths)}, depths {tuple(depths)}, num_boxed {num_boxed}; needed are a "
                "width and a depth for each stage, and no more boxed stages than there are"
            )
        self.num_boxed = num_boxed
        self.pool_size = pool_size
        self.embed_channels = embed_channels
        self.stages = nn.ModuleList(
            _stage(before, after, depth, norm_cfg)
            for before, after, depth in zip((in_channels, *widths), widths, depths, strict=False)
        )
        self.fc_stages = nn.ModuleList(nn.Linear(width * pool_size**2, stage_channels) for width in widths)
        joined = stage_channels * len(widths)
        self.fc_embed = nn.Linear(joined, embed_channels)
        self.fc_tag = nn.Linear(joined, num_tags)
        self.fc_refine = nn.Linear(num_tags, num_tags)
        for layer in (*self.fc_stages, self.fc_embed, self.fc_tag):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.eye_(self.fc_refine.weight)
        nn.init.zeros_(self.fc_refine.bias)
        self.loss_tag = MODELS.build(loss_tag)
        self.loss_hard = MODELS.build(loss_hard)
        self.loss_triplet = MODELS.build(loss_triplet)

    def set_tag_statistics(self, counts: Tensor, num_lesions: int, exclusive: Tensor) -> None:
        """Take what the losses need to know of the training set.

        Args:
            counts: (T,) lesions with each tag.
            num_lesions: Lesions with known tags.
            exclusive: (T, T), bool, which tags exclude each other.

        Raises:
            InputError: There are not T tags.
        """
        if len(counts) != self.fc_tag.out_features:
            raise InputError(
                f"the annotation file has {len(counts)} tags, the embedder {self.fc_tag.out_features}; set num_tags"
            )
        self.loss_tag.set_counts(counts, num_lesions)
        self.loss_hard.set_exclusive(exclusive)

    def forward(self, inputs: list[Tensor], data_samples: list[DetDataSample], mode: str = "tensor") -> Any:
        """Vectors (``tensor``), losses (``loss``), or the samples with ``pred_instances`` (``predict``)."""
        boxes = torch.cat([sample.gt_instances.bboxes for sample in data_samples]).to(inputs[0])
        embeddings, logits, refined = self._vectors(torch.cat(list(inputs)), boxes)
        if mode == "tensor":
            return embeddings, logits, refined
        if mode == "loss":
            return self._losses(embeddings, logits, refined, data_samples)
        counts = [len(sample.gt_instances) for sample in data_samples]
        scores = refined.sigmoid().split(counts)
        for sample, vectors, own in zip(data_samples, embeddings.split(counts), scores, strict=True):
            sample.pred_instances = InstanceData(embeddings=vectors, tag_scores=own)
        return data_samples

    def _vectors(self, x: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = []
        for number, (stage, linear) in enumerate(zip(self.stages, self.fc_stages, strict=True)):
            if number:
                x = F.max_pool2d(x, 2)
            x = stage(x)
            boxed = number < self.num_boxed
            pooled = (
                roi_max_pool(x, boxes / 2**number, self.pool_size)
                if boxed
                else F.adaptive_max_pool2d(x, self.pool_size)
            )
            parts.append(linear(pooled.flatten(1)))
        joined = torch.cat(parts, dim=1)
        logits = self.fc_tag(joined)
        return F.normalize(self.fc_embed(joined).float(), dim=1), logits, self.fc_refine(logits)

    def _losses(
        self, embeddings: Tensor, logits: Tensor, refined: Tensor, data_samples: list[DetDataSample]
    ) -> dict[str, Tensor]:
        lesions = [sample.gt_instances for sample in data_samples]
        tags, ids, identities = (
            torch.cat([getattr(own, name) for own in lesions]).to(logits.device)
            for name in ("tags", "lesion_ids", "identities")
        )
        names = [(sample.patient, sample.volume_id) for sample in data_samples for _ in sample.gt_instances.lesion_ids]
        patients, volumes = ([name[place] for name in names] for place in (0, 1))
        same = same_lesion(ids, identities, patients, volumes)
        return {
            "loss_tag": self.loss_tag(logits, tags),
            "loss_tag_hard": self.loss_hard(logits, tags),
            "loss_refined_tag": self.loss_tag(refined, tags),
            "loss_triplet": self.loss_triplet(embeddings, tags, same, patients),
        }


def _stage(before: int, after: int, depth: int, norm_cfg: dict) -> nn.Sequential:
    """Convolutions of one resolution, each with normalisation and ReLU."""
    widths = (before, *[after] * (depth - 1))
    return nn.Sequential(*(ConvModule(width, after, 3, padding=1, norm_cfg=norm_cfg) for width in widths))
