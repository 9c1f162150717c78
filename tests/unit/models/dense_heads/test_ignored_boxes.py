"""What every proposal head must do with uncertain lesions, and as part of mmdet's two-stage detector."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

SIZE, STRIDE, CHANNELS = 64, 4, 8
LESION = [8.0, 8.0, 28.0, 24.0]
UNCERTAIN = [36.0, 36.0, 60.0, 56.0]
INSIDE = (slice(10, 13), slice(11, 13))  # rows and columns of cells in the central half of UNCERTAIN
SETTINGS = ConfigDict(nms_pre=200, max_per_img=20, min_bbox_size=1, nms={"type": "nms", "iou_threshold": 0.7})
FCOS = {
    "type": "IgnoreAwareFCOSHead",
    "stacked_convs": 1,
    "strides": [STRIDE],
    "regress_ranges": ((-1, 1e8),),
    "norm_cfg": None,
}
HEADS: dict[str, dict[str, Any]] = {
    "AFP": {"type": "AFPHead"},
    "FCOS": FCOS,
    "FCOS, centre sampling": {**FCOS, "center_sampling": True},
    "CenterNet": {"type": "CenterNetProposalHead"},
}
PARTIAL = {
    "type": "PartialLabelLoss",
    "use_sigmoid": True,
    "neg_weight": 0.5,
    "keep_prob": 1.0,
    "loss": {"type": "FocalLoss", "use_sigmoid": True},
}
HEADS |= {f"{name}, partial labels": {**HEADS[name], "loss_cls": PARTIAL} for name in ("AFP", "FCOS")}


def build(name: str, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    config = {"num_classes": 1, "in_channels": CHANNELS, "feat_channels": 8, "test_cfg": SETTINGS, **HEADS[name]}
    head = MODELS.build({**config, **changes})
    head.init_weights()
    return head


def boxes(*rows: list[float]) -> InstanceData:
    return InstanceData(bboxes=torch.tensor(rows).view(-1, 4), labels=torch.zeros(len(rows), dtype=torch.long))


def sample(gt: InstanceData, ignored: InstanceData | None = None) -> DetDataSample:
    shape = (SIZE, SIZE)
    meta = {"img_shape": shape, "batch_input_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}
    result = DetDataSample(metainfo=meta)
    result.gt_instances = gt
    result.ignored_instances = boxes() if ignored is None else ignored
    return result


def score_gradient(head: torch.nn.Module, samples: list[DetDataSample]) -> tuple[Tensor, float]:
    """Gradient (B, H, W) of the classification loss with respect to the head's scores, and the loss."""
    torch.manual_seed(1)
    outputs = head((torch.randn(len(samples), CHANNELS, SIZE // STRIDE, SIZE // STRIDE),))
    scores = outputs[0][0].detach().requires_grad_()
    losses = head.loss_by_feat(
        [scores],
        *outputs[1:],
        [s.gt_instances for s in samples],
        [s.metainfo for s in samples],
        [s.ignored_instances for s in samples],
    )
    loss = losses.get("loss_cls", losses.get("loss_center_heatmap"))
    loss.backward()
    return scores.grad[:, 0], float(loss.detach())


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("gt", [boxes(), boxes(LESION)], ids=["no lesion", "lesion"])
def test_cells_in_an_ignored_box_count_nothing(name, gt):
    head = build(name)
    (without,), loss = score_gradient(head, [sample(gt)])
    (with_ignored,), smaller = score_gradient(head, [sample(gt, boxes(UNCERTAIN))])
    assert (without[INSIDE] > 0).all()
    assert (with_ignored[INSIDE] == 0).all()
    assert 0 < smaller < loss
    elsewhere = with_ignored != 0
    assert torch.equal(with_ignored[elsewhere], without[elsewhere])
    assert elsewhere[:8].all() or name.startswith("AFP")  # AFP also leaves out the ring of the lesion
    assert elsewhere[2:6, 9:].all()


@pytest.mark.parametrize("name", HEADS)
def test_only_the_image_with_the_ignored_box(name):
    head = build(name)
    gradient, _ = score_gradient(head, [sample(boxes(LESION), boxes(UNCERTAIN)), sample(boxes(LESION))])
    assert (gradient[0][INSIDE] == 0).all()
    assert (gradient[1][INSIDE] > 0).all()


@pytest.mark.parametrize("name", HEADS)
def test_a_certain_lesion_inside_an_ignored_box_stays(name):
    head = build(name)
    (gradient,), _ = score_gradient(head, [sample(boxes(LESION), boxes([0.0, 0.0, 40.0, 36.0]))])
    assert gradient[4, 4] < 0  # its centre, pulled up


def outputs_and_truth(head: torch.nn.Module) -> tuple[Any, ...]:
    """What ``loss_by_feat`` takes, but for the ignored boxes."""
    torch.manual_seed(1)
    data = sample(boxes(LESION))
    outputs = head((torch.randn(1, CHANNELS, SIZE // STRIDE, SIZE // STRIDE),))
    return *outputs, [data.gt_instances], [data.metainfo]


@pytest.mark.parametrize("name", HEADS)
def test_no_ignored_boxes_however_it_is_said(name):
    head = build(name)
    arguments = outputs_and_truth(head)
    none, empty, no_entry = (head.loss_by_feat(*arguments, ignored) for ignored in (None, [boxes()], [None]))
    assert all(loss > 0 for loss in none.values())
    assert none == empty == no_entry


@pytest.mark.parametrize("name", [name for name in HEADS if not name.startswith("AFP")])  # mmdet has no AFP
def test_no_ignored_boxes_is_what_mmdet_does(name):
    head = build(name)
    arguments = outputs_and_truth(head)
    assert head.loss_by_feat(*arguments) == type(head).__mro__[1].loss_by_feat(head, *arguments)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("gt", [boxes(), boxes(LESION)], ids=["no lesion", "lesion"])
def test_losses_and_proposals_in_one_pass(name, gt):
    head = build(name).train()
    samples = [sample(gt), sample(gt, boxes(UNCERTAIN))]
    features = (torch.randn(2, CHANNELS, SIZE // STRIDE, SIZE // STRIDE),)
    losses, proposals = head.loss_and_predict(features, samples, proposal_cfg=SETTINGS)
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
    for key, loss in losses.items():
        assert (loss > 0) == (len(gt) > 0 or key in ("loss_cls", "loss_center_heatmap")), key
    for found in proposals:
        assert len(found) <= 20
        assert ((found.bboxes >= 0) & (found.bboxes <= SIZE)).all()
        assert (found.scores[:-1] >= found.scores[1:]).all()


@pytest.mark.parametrize("name", ["AFP", "FCOS", "CenterNet"])
def test_learns_to_propose_the_lesion(name):
    """Overfits one image and returns its box: targets, units and decoding fit together."""
    head = build(name, in_channels=2, feat_channels=16)
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij"))
    features = (grid[None],)
    samples = [sample(boxes(LESION))]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        sum(head.loss(features, samples).values()).backward()
        optimizer.step()
    _, (in_training,) = head.loss_and_predict(features, samples, proposal_cfg=SETTINGS)
    (found,) = head.eval().predict(features, samples)
    for proposals in (in_training, found):
        assert (proposals.bboxes[0] - torch.tensor(LESION)).abs().max() < 4
        assert proposals.scores[0] > 0.3


def test_fcos_as_proposal_head_predicts_in_pixels():
    head = build("FCOS", norm_on_bbox=True)
    with pytest.raises(InputError, match="norm_on_bbox: True"):
        head.loss_and_predict((torch.zeros(1, CHANNELS, 16, 16),), [sample(boxes())], proposal_cfg=SETTINGS)


@pytest.mark.parametrize("name", ["FCOS", "CenterNet"])
def test_part_of_the_ignored_box(name):
    (gradient,), _ = score_gradient(build(name, ignore_scale=0.5), [sample(boxes(), boxes(UNCERTAIN))])
    ignored = gradient == 0
    assert ignored[INSIDE].all()
    assert ignored.sum() < ((UNCERTAIN[2] - UNCERTAIN[0]) / 4) * ((UNCERTAIN[3] - UNCERTAIN[1]) / 4)


def test_centernet_returns_peaks_only():
    head = build("CenterNet")
    heat = torch.full((1, 1, 16, 16), 0.1)
    heat[0, 0, 4, 5], heat[0, 0, 4, 6], heat[0, 0, 12, 2] = 0.9, 0.8, 0.7  # the second stands beside the first
    heat[0, 0, :2] = torch.linspace(0.2, 0.3, 32).view(2, 16)
    sides, offsets = torch.full((1, 2, 16, 16), 4.0), torch.full((1, 2, 16, 16), 0.5)
    metas = [sample(boxes()).metainfo]
    (found,) = head.predict_by_feat([heat], [sides], [offsets], metas, cfg=ConfigDict(SETTINGS, nms_pre=9999))
    assert found.scores[:2].tolist() == pytest.approx([0.9, 0.7])
    assert found.bboxes[:2].tolist() == [[14.0, 10.0, 30.0, 26.0], [2.0, 42.0, 18.0, 58.0]]
    assert 0.8 not in [round(score, 4) for score in found.scores.tolist()]
    (one,) = head.predict_by_feat([heat], [sides], [offsets], metas, cfg=ConfigDict(SETTINGS, nms_pre=1))
    assert len(one) == 1
