"""Under autocast boxes keep their place and size to a hundredth of a pixel, far from the corner of the image, too."""

from __future__ import annotations

import mmpluld.registry  # noqa: F401  makes mmdet importable where mmcv has no compiled operators

# isort: split
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmpluld.compat.half_precision import keep_boxes_exact, widened
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

HALF = [torch.bfloat16, torch.float16]
META = {"img_shape": (512, 512), "batch_input_shape": (512, 512), "scale_factor": (1.0, 1.0)}
ANCHORS = {"type": "AnchorGenerator", "strides": [4], "ratios": [1.0], "scales": [4, 8]}
RPN = {
    "type": "RPNHead",
    "in_channels": 4,
    "feat_channels": 4,
    "anchor_generator": ANCHORS,
    "bbox_coder": {"type": "DeltaXYWHBBoxCoder"},
    "test_cfg": {"nms_pre": 300, "max_per_img": 100, "nms": {"type": "nms", "iou_threshold": 0.7}, "min_bbox_size": 0},
}
FCOS = {
    "type": "FCOSHead",
    "num_classes": 1,
    "in_channels": 4,
    "feat_channels": 4,
    "strides": [4],
    "regress_ranges": [(-1, 1e8)],
    "norm_cfg": {"type": "BN"},
    "test_cfg": {**RPN["test_cfg"], "score_thr": 0.0},
}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("settings", [RPN, FCOS], ids=["RPN", "FCOS"])
def test_proposals_are_those_of_single_precision(settings, dtype):
    torch.manual_seed(0)
    head = MODELS.build({**settings, "test_cfg": ConfigDict(settings["test_cfg"])}).eval()
    keep_boxes_exact(head)
    maps = (torch.randn(1, 4, 128, 128),)
    sample = DetDataSample(metainfo=META)
    with torch.no_grad():
        wanted = head.predict(maps, [sample])[0]
        with torch.autocast("cpu", dtype):
            found = head.predict(maps, [sample])[0]
    assert found.bboxes.dtype == torch.float32
    far = wanted.bboxes[:20][(wanted.bboxes[:20, :2] > 256).any(dim=1)]
    assert len(far) > 5
    assert bbox_overlaps(far, found.bboxes).max(dim=1)[0].median() > 0.99


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("kind", ["SingleRoIExtractor", "V1RoIExtractor", "InclusiveRoIExtractor"])
def test_regions_are_read_where_they_are(kind, dtype):
    layer = {"type": "RoIAlign", "output_size": 2, "sampling_ratio": 2}
    layer |= {"aligned": False} if kind == "InclusiveRoIExtractor" else {}
    extractor = MODELS.build({"type": kind, "roi_layer": layer, "out_channels": 1, "featmap_strides": [4]})
    keep_boxes_exact(extractor)
    ramp = torch.arange(128.0).expand(1, 1, 128, 128)  # holds its column, all whole numbers that half precision has
    rois = torch.tensor([[0, 401.3, 401.3, 419.4, 419.4]])
    torch.testing.assert_close(extractor((ramp.to(dtype),), rois), extractor((ramp,), rois), rtol=0, atol=1e-4)


def test_what_has_its_precision_stays_as_it_is():
    box = torch.zeros(1, 4)
    instances = InstanceData(bboxes=box.half())
    assert widened(box) is box
    assert widened(instances) is instances
    (pair, count), text = widened(([box.bfloat16(), box.long()], "a"))
    assert (pair.dtype, count.dtype, text) == (torch.float32, torch.int64, "a")


def test_a_second_call_changes_nothing():
    head = MODELS.build({**RPN, "test_cfg": ConfigDict(RPN["test_cfg"])})
    for _ in range(2):
        keep_boxes_exact(head)
    assert len(head._forward_hooks) == 1


def test_the_loss_of_centernet_is_finite_at_an_ignored_lesion():
    parts = {"center_heatmap": "GaussianFocalLoss", "wh": "L1Loss", "offset": "L1Loss"}
    losses = {f"loss_{name}": {"type": kind} for name, kind in parts.items()}
    head = MODELS.build(
        {"type": "CenterNetProposalHead", "in_channels": 4, "feat_channels": 4, "num_classes": 1, **losses}
    )
    head.init_weights()
    keep_boxes_exact(head)
    sample = DetDataSample(metainfo=META)
    for name, box in (("gt_instances", [20.0, 20, 40, 44]), ("ignored_instances", [80.0, 80, 100, 100])):
        label = torch.zeros(1, dtype=torch.long)
        setattr(sample, name, InstanceData(bboxes=torch.tensor([box]), labels=label))
    with torch.autocast("cpu", torch.float16):
        found = head.loss((torch.randn(1, 4, 128, 128),), [sample])
    assert all(value.isfinite() for value in found.values())


@pytest.mark.parametrize("logit", [-18.0, -12.0, 8.5])
def test_the_gradient_of_centernet_survives_a_sure_head(logit):
    """A missed centre, and a confident negative: in float16 alone, the inverse of their probability is infinite."""
    parts = {"center_heatmap": "GaussianFocalLoss", "wh": "L1Loss", "offset": "L1Loss"}
    losses = {f"loss_{name}": {"type": kind} for name, kind in parts.items()}
    head = MODELS.build(
        {"type": "CenterNetProposalHead", "in_channels": 4, "feat_channels": 4, "num_classes": 1, **losses}
    )
    keep_boxes_exact(head)
    torch.nn.init.zeros_(head.heatmap_head[-1].weight)
    torch.nn.init.constant_(head.heatmap_head[-1].bias, logit)
    sample = DetDataSample(metainfo=META)
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[20.0, 20, 40, 44]]), labels=torch.zeros(1, dtype=torch.long)
    )
    with torch.autocast("cpu", torch.float16):
        found = head.loss((torch.randn(1, 4, 128, 128),), [sample])
    sum(found.values()).backward()
    assert head.heatmap_head[-1].bias.grad.isfinite().all()
    assert head.heatmap_head[-1].bias.grad.abs() > 0.1


def test_many_boxes_with_scores_of_half_precision_are_suppressed():
    """mmcv ends with an error from 10,000 boxes on."""
    settings = ConfigDict({**RPN["test_cfg"], "nms_pre": 12_000})
    head = MODELS.build({**RPN, "test_cfg": settings}).eval()
    keep_boxes_exact(head)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = head.predict((torch.randn(1, 4, 128, 128),), [DetDataSample(metainfo=META)])[0]
    assert len(found) == 100
