"""MULAN's heads: what each sees, what it learns from, and what it does to scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

from mmpluld.errors import InputError
from mmpluld.models.roi_heads import InclusiveRoIExtractor, MulanRoIHead, RefineHead, TagHead
from mmpluld.registry import MODELS

TAGS, SIZE = 3, 64
NAN = float("nan")
REGIONS = {
    "type": "SingleRoIExtractor",
    "roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 2},
    "out_channels": 4,
    "featmap_strides": [4],
}


def build(refine: dict[str, Any] | None = {}, score_thr: float = 0.0) -> MulanRoIHead:  # noqa: B006  read only
    torch.manual_seed(0)
    config = {
        "type": "MulanRoIHead",
        "bbox_roi_extractor": REGIONS,
        "bbox_head": {
            "type": "Shared2FCBBoxHead",
            "in_channels": 4,
            "fc_out_channels": 8,
            "roi_feat_size": 7,
            "num_classes": 1,
            "loss_bbox": {"type": "SmoothL1Loss", "loss_weight": 1.0},
        },
        "tag_roi_extractor": REGIONS,
        "tag_head": {"type": "TagHead", "num_tags": TAGS, "in_channels": 4, "fc_out_channels": 8},
        "refine_head": None if refine is None else {"type": "RefineHead", "num_tags": TAGS, **refine},
        "train_cfg": ConfigDict(
            assigner={"type": "IgnoreAwareMaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.5, "min_pos_iou": 0.5},
            sampler={"type": "RandomSampler", "num": 8, "pos_fraction": 0.5, "neg_pos_ub": -1},
            pos_weight=-1,
            debug=False,
        ),
        "test_cfg": ConfigDict(score_thr=score_thr, nms={"type": "nms", "iou_threshold": 0.5}, max_per_img=50),
    }
    with DefaultScope.overwrite_default_scope("mmpluld"):
        head = MODELS.build(config)
    head.init_weights()
    return head


def samples(tags: list[list[list[float]]]) -> list[DetDataSample]:
    """Images with one lesion for each row of tags, 20 pixels apart."""
    found = []
    for rows in tags:
        sample = DetDataSample(
            metainfo={"img_shape": (SIZE, SIZE), "ori_shape": (128, 128), "scale_factor": (0.5, 0.5)}
        )
        boxes = torch.tensor([[4.0 + 20 * i, 8, 20 + 20 * i, 24] for i in range(len(rows))]).view(-1, 4)
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.zeros(len(rows), dtype=torch.long), tags=torch.tensor(rows).view(-1, TAGS)
        )
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
        found.append(sample)
    return found


def proposals(*counts: int) -> list[InstanceData]:
    """For each image so many boxes, the first two on the places of lesions."""
    places = torch.tensor([[5.0, 8, 20, 24], [24, 9, 40, 24], [40, 40, 60, 60], [2, 40, 20, 60], [30, 30, 44, 50]])
    return [InstanceData(bboxes=places[:count].clone(), scores=torch.ones(count)) for count in counts]


def features(images: int) -> tuple[Tensor]:
    return (torch.randn(images, 4, 16, 16, generator=torch.Generator().manual_seed(1)),)


class TestTraining:
    def test_losses_reach_every_part(self) -> None:
        head = build()
        losses = head.loss(features(2), proposals(5, 5), samples([[[1.0, 0, 0], [0, 1.0, 0]], [[0, 0, 1.0]]]))
        assert set(losses) == {
            "loss_cls", "acc", "loss_bbox", "loss_tag", "loss_tag_hard", "loss_refined_cls", "loss_refined_tag",
        }  # fmt: skip
        sum(value for name, value in losses.items() if "loss" in name).backward()
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any(), name

    def test_tags_are_those_of_the_lesion_a_proposal_is_on(self) -> None:
        head = build()
        truth = samples([[[1.0, 0, 0], [0, 1.0, 0]]])
        found = []
        head.tag_head.loss = lambda logits, targets: found.append((logits, targets)) or {}
        head.loss(features(1), proposals(5), truth)
        ((logits, targets),) = found
        rows = targets[~targets.isnan().any(1)].tolist()
        # On each lesion one proposal, and the lesion's own box, which the sampler adds.
        assert sorted(rows) == [[0, 1, 0]] * 2 + [[1, 0, 0]] * 2
        assert targets.isnan().all(1).sum() == 3
        assert logits.shape == targets.shape == (7, TAGS)

    @pytest.mark.parametrize("tags", [[[[NAN] * TAGS]], [[]]], ids=["lesion without tags", "no lesion"])
    def test_nothing_to_learn_tags_from(self, tags: list) -> None:
        head = build()
        losses = head.loss(features(1), proposals(3), samples(tags))
        for name in ("loss_tag", "loss_tag_hard", "loss_refined_tag"):
            assert float(losses[name].detach()) == 0
        assert float(losses["loss_refined_cls"].detach()) > 0
        sum(value for name, value in losses.items() if "loss" in name).backward()
        assert all(parameter.grad is not None for parameter in head.parameters())  # nothing unused in distributed runs

    def test_no_region_at_all(self) -> None:
        logits, tags = torch.zeros(0, 2, requires_grad=True), torch.zeros(0, TAGS, requires_grad=True)
        losses = build().refine_head.loss(logits, tags, torch.zeros(0, dtype=torch.long), torch.zeros(0, TAGS))
        assert [float(value.detach()) for value in losses.values()] == [0, 0]
        sum(losses.values()).backward()
        assert logits.grad is not None

    def test_samples_without_tags_are_refused(self) -> None:
        truth = samples([[[1.0, 0, 0]]])
        del truth[0].gt_instances.tags
        with pytest.raises(InputError, match="training samples have no tags; use LoadLesionTags"):
            build().loss(features(1), proposals(3), truth)

    def test_statistics_of_other_tags_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"num_tags is 3, but the training set has 4 tags"):
            build().set_tag_statistics(torch.ones(4), 9, torch.zeros(4, 4))

    def test_statistics_change_the_losses(self) -> None:
        truth = [[[1.0, 0, 0], [0, 1.0, 0]]]
        values = []
        for exclusive in (torch.zeros(TAGS, TAGS), 1 - torch.eye(TAGS)):
            head = build()
            head.set_tag_statistics(torch.tensor([1.0, 2.0, 1.0]), 10, exclusive)
            torch.manual_seed(0)
            losses = head.loss(features(1), proposals(5), samples(truth))
            values.append({name: float(value.detach()) for name, value in losses.items()})
        torch.manual_seed(0)
        plain = build().loss(features(1), proposals(5), samples(truth))
        assert values[0]["loss_tag"] == values[1]["loss_tag"] != float(plain["loss_tag"].detach())
        assert values[0]["loss_refined_tag"] != float(plain["loss_refined_tag"].detach())
        assert values[0]["loss_tag_hard"] != values[1]["loss_tag_hard"]


class TestPrediction:
    def predict(self, head: MulanRoIHead, *counts: int, rescale: bool = False) -> list[InstanceData]:
        head.eval()
        with torch.no_grad():
            return head.predict(features(len(counts)), proposals(*counts), samples([[]] * len(counts)), rescale)

    def test_identity_at_first(self) -> None:
        """A fresh refining layer changes neither scores nor tags, and the detections are mmdet's own."""
        head = build()
        refined = self.predict(head, 5, 3)
        head.refine_head = None
        plain = self.predict(head, 5, 3)
        with torch.no_grad():
            metas = [sample.metainfo for sample in samples([[], []])]
            stock = super(MulanRoIHead, head).predict_bbox(features(2), metas, proposals(5, 3), head.test_cfg)
        for first, second, third in zip(refined, plain, stock, strict=True):
            torch.testing.assert_close(first.scores, second.scores)
            torch.testing.assert_close(first.tag_scores, second.tag_scores)
            torch.testing.assert_close(second.scores, third.scores)
            torch.testing.assert_close(second.bboxes, third.bboxes)
            assert first.labels.tolist() == [0] * len(first)

    def test_score_and_tags_are_refined_from_the_right_rows(self) -> None:
        head = build()
        torch.nn.init.normal_(head.refine_head.fc_cls.weight, generator=torch.Generator().manual_seed(5))
        torch.nn.init.normal_(head.refine_head.fc_tag.weight, generator=torch.Generator().manual_seed(6))
        found = self.predict(head, 5, 3)
        assert [len(item) for item in found] == [5, 3]  # apart, so that NMS keeps all
        for image, item in enumerate(found):
            assert item.scores.tolist() == sorted(item.scores.tolist(), reverse=True)
            x = (features(2)[0][image : image + 1],)
            with torch.no_grad():
                every = proposals(5, 3)[image].bboxes
                outputs = head._bbox_forward(x, bbox2roi([every]))
                boxes = head.bbox_head.bbox_coder.decode(every, outputs["bbox_pred"], (SIZE, SIZE))
                tags = head.tag_head(head.tag_roi_extractor(x, bbox2roi([boxes])))
                logits, tag_logits = head.refine_head(outputs["cls_score"], tags, [boxes], [{}])
            scores = logits.softmax(1)[:, 0]
            order = scores.argsort(descending=True)
            torch.testing.assert_close(item.scores, scores[order])
            torch.testing.assert_close(item.bboxes, boxes[order])
            torch.testing.assert_close(item.tag_scores, tag_logits.sigmoid()[order])

    def test_threshold_comes_before_refinement(self) -> None:
        head = build(score_thr=0.45)
        torch.nn.init.constant_(head.refine_head.fc_cls.bias[:1], -20)
        (found,) = self.predict(head, 5)
        assert len(found) > 0
        assert float(found.scores.max()) < 1e-3

    def test_rescaling(self) -> None:
        small, large = self.predict(build(), 5), self.predict(build(), 5, rescale=True)
        torch.testing.assert_close(large[0].bboxes, small[0].bboxes * 2)

    @pytest.mark.parametrize("counts", [(0,), (0, 0), (0, 4)])
    def test_images_without_proposals(self, counts: tuple[int, ...]) -> None:
        found = self.predict(build(), *counts, rescale=True)
        assert [len(item) for item in found] == list(counts)
        assert [tuple(item.tag_scores.shape) for item in found] == [(count, TAGS) for count in counts]


class TestRefineHead:
    def test_further_inputs(self) -> None:
        head = RefineHead(TAGS, features=["demographics", "box", "z"])
        assert head.fc_cls.in_features == 2 + TAGS + 7
        boxes = torch.tensor([[10.0, 20, 30, 60]])
        weight = torch.zeros(2, 12)
        weight[0] = torch.arange(12)
        head.fc_cls.weight = torch.nn.Parameter(weight)
        meta = {"img_shape": (80, 40), "body_context": (0.25, 1.0, NAN)}
        logits, _ = head(torch.zeros(1, 2), torch.zeros(1, TAGS), [boxes], [meta])
        # x 20 of 40, y 40 of 80, width 20 of 40, height 40 of 80, z, sex, and 0.5 for the unknown age.
        expected = 5 * 0.5 + 6 * 0.5 + 7 * 0.5 + 8 * 0.5 + 9 * 0.25 + 10 * 1.0 + 11 * 0.5
        assert float(logits[0, 0].detach()) == pytest.approx(expected)

    def test_scans_without_context(self) -> None:
        head = RefineHead(TAGS, features=["z"])
        known, unknown = (
            head._extra(torch.zeros(2, 4), {"img_shape": (8, 8), **more}).tolist()
            for more in ({"body_context": (0.5, NAN, NAN)}, {})
        )
        assert known == unknown == [[0.5], [0.5]]

    def test_unknown_feature(self) -> None:
        with pytest.raises(InputError, match="unknown feature 'age'; allowed are box, z, demographics"):
            RefineHead(TAGS, features=["age"])


def test_tag_head_sees_whole_regions() -> None:
    head = TagHead(TAGS, in_channels=4, roi_feat_size=7, fc_out_channels=8)
    x = torch.randn(2, 4, 7, 7, requires_grad=True)
    head(x).sum().backward()
    assert bool((x.grad.flatten(1) != 0).float().mean() > 0.9)


class TestInclusiveRegions:
    def test_ends_at_the_last_pixel_and_is_at_least_a_cell(self) -> None:
        """On a ramp along x the average is the middle of the sampled region, in cells."""
        extractor = MODELS.build(
            {**REGIONS, "type": "InclusiveRoIExtractor", "roi_layer": {**REGIONS["roi_layer"], "aligned": False}}
        )
        ramp = torch.arange(16.0).expand(1, 4, 16, 16)
        rois = torch.tensor([[0, 8.0, 8, 25, 25], [0, 8.0, 8, 9, 9]])
        middles = extractor((ramp,), rois).mean((1, 2, 3))
        # 8 / 4 to 24 / 4, and 8 / 4 widened to one cell.
        torch.testing.assert_close(middles, torch.tensor([4.0, 2.5]))

    def test_aligned_is_refused(self) -> None:
        with pytest.raises(InputError, match="roi_layer is aligned; set aligned=False"):
            InclusiveRoIExtractor(**{key: value for key, value in REGIONS.items() if key != "type"})
