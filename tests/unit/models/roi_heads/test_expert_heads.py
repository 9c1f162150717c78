from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from torch.nn import functional as F

from mmpluld.errors import InputError
from mmpluld.models.roi_heads import ExpertBBoxHead, ExpertGate
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

NAMES = ["deeplesion", "luna16", "lits"]
SIZES = {"in_channels": 4, "fc_out_channels": 6, "roi_feat_size": 2, "num_classes": 1, "reg_class_agnostic": False}
META = {"img_shape": (100, 100), "scale_factor": (2.0, 2.0)}
NO_SUPPRESSION = {"type": "nms", "iou_threshold": 1.0}
CFG = ConfigDict(score_thr=0.0, nms=NO_SUPPRESSION, fusion=NO_SUPPRESSION, max_per_img=1000)


def build(seed: int = 0, **changes: object) -> ExpertBBoxHead:
    torch.manual_seed(seed)
    head = MODELS.build({"type": "ExpertBBoxHead", "datasets": NAMES, **SIZES, **changes})
    head.init_weights()
    for layer in (*head.fc_cls.values(), *head.fc_reg.values()):
        torch.nn.init.normal_(layer.weight, std=0.3)
        torch.nn.init.normal_(layer.bias, std=0.3)
    return head


def regions(count: int = 20) -> torch.Tensor:
    torch.manual_seed(3)
    corner = torch.rand(count, 2) * 60
    return torch.cat([torch.zeros(count, 1), corner, corner + 10 + torch.rand(count, 2) * 20], 1)


def detect(head: ExpertBBoxHead, cfg: ConfigDict, trust: torch.Tensor | None = None, **kwargs: object):
    rois = regions()
    torch.manual_seed(4)
    scores, deltas = head(torch.randn(len(rois), 4, 2, 2))
    (found,) = head.predict_by_feat([rois], [scores], [deltas], [META], cfg, trusts=[trust], **kwargs)
    return found


def test_one_product_for_all_experts():
    head, x = build(), torch.randn(5, 4, 2, 2)
    scores, deltas = head(x)
    for i, name in enumerate(NAMES):
        own_scores, own_deltas = head(x, name)
        assert torch.allclose(scores[:, 2 * i : 2 * i + 2], own_scores, atol=1e-6)
        assert torch.allclose(deltas[:, 4 * i : 4 * i + 4], own_deltas, atol=1e-6)


@pytest.mark.parametrize(("rescale", "classes"), [(False, 1), (True, 1), (True, 2)])
def test_one_expert_equals_the_head_of_mmdet(rescale, classes):
    """The group of an expert is what an ordinary head with its weights would find."""
    head = build(num_classes=classes)
    cfg = ConfigDict(score_thr=0.3, nms={"type": "nms", "iou_threshold": 0.5}, max_per_img=9)
    plain = MODELS.build({"type": "Shared2FCBBoxHead", **SIZES, "num_classes": classes})
    state = head.state_dict()
    own = {key.replace(".luna16", ""): value for key, value in state.items() if ".luna16" in key or "shared" in key}
    plain.load_state_dict(own)
    found = detect(head, ConfigDict(**cfg, experts=["luna16"]), rescale=rescale)
    rois = regions()
    torch.manual_seed(4)
    scores, deltas = plain(torch.randn(len(rois), 4, 2, 2))
    (wanted,) = plain.predict_by_feat([rois], [scores], [deltas], [META], cfg, rescale=rescale)
    assert 0 < len(wanted) < len(rois)
    assert torch.allclose(found.bboxes, wanted.bboxes, atol=1e-4)
    assert torch.allclose(found.scores, wanted.scores, atol=1e-6)
    assert torch.equal(found.labels, wanted.labels)
    assert found.labels.unique().tolist() == list(range(classes))
    assert found.expert.tolist() == [1] * len(wanted)


def test_groups_then_fusion():
    head = build()
    groups = [
        detect(head, ConfigDict(**{**CFG, "nms": {"type": "nms", "iou_threshold": 0.4}}, experts=[name]))
        for name in NAMES
    ]
    every = detect(head, ConfigDict(**{**CFG, "nms": {"type": "nms", "iou_threshold": 0.4}}))
    assert sorted(every.scores.tolist()) == sorted(torch.cat([group.scores for group in groups]).tolist())
    fused = detect(
        head,
        ConfigDict(
            **{**CFG, "nms": {"type": "nms", "iou_threshold": 0.4}, "fusion": {"type": "nms", "iou_threshold": 0.1}}
        ),
    )
    assert 0 < len(fused) < len(every)
    assert fused.scores[0] == every.scores[0]
    assert len(detect(head, ConfigDict(**{**CFG, "max_per_img": 3}))) == 3


def test_unknown_expert():
    with pytest.raises(InputError, match="experts: 'lun' is not one of deeplesion, luna16, lits"):
        detect(build(), ConfigDict(**CFG, experts=["lun"]))
    with pytest.raises(
        InputError, match=r"^test_cfg\.rcnn\.experts is 'luna16'; allowed is a list of names out of deep"
    ):
        detect(build(), ConfigDict(**CFG, experts="luna16"))


def test_no_regions():
    head = build()
    scores, deltas = head(torch.zeros(0, 4, 2, 2))
    (found,) = head.predict_by_feat([regions(0)], [scores], [deltas], [META], CFG)
    assert found.bboxes.shape == (0, 4)
    assert found.expert.shape == (0,)


CALIBRATED = ConfigDict(**CFG, calibrated=True)


def test_calibration_moves_scores_and_keeps_the_order_within_an_expert():
    head = build()
    before = detect(head, CFG)
    head.scale.copy_(torch.tensor([2.0, 0.5, 1.0]))
    head.bias.copy_(torch.tensor([-1.0, 0.0, 3.0]))
    after = detect(head, CALIBRATED)
    for i, (scale, bias) in enumerate([(2.0, -1.0), (0.5, 0.0), (1.0, 3.0)]):
        old, new = (found[found.expert == i] for found in (before, after))
        expected = torch.sigmoid(scale * torch.logit(old.scores.double()) + bias)
        assert torch.allclose(new.scores.double(), expected, atol=1e-5)
        assert torch.equal(old.bboxes, new.bboxes)
    assert {"scale", "bias"} <= head.state_dict().keys()


def test_without_the_switch_fitted_values_change_no_bit():
    head = build()
    before = detect(head, CFG)
    head.scale.fill_(3.0)
    head.bias.fill_(-2.0)
    for cfg in (CFG, ConfigDict(**CFG, calibrated=False)):
        after = detect(head, cfg)
        assert all(torch.equal(before[key], after[key]) for key in ("bboxes", "scores", "labels", "expert"))
    assert not torch.equal(before.scores, detect(head, CALIBRATED).scores)


def test_switch_without_a_fit_is_refused():
    head = build()
    with pytest.raises(InputError, match="calibrated: True, but scale and bias .* not fitted .* `mmpluld calibrate"):
        detect(head, CALIBRATED)
    head.bias[2] = -0.5  # one fitted expert is a fit: the others may have had no box
    assert len(detect(head, CALIBRATED)) == len(detect(head, CFG))


def test_losses_are_those_of_mmdet():
    head, x = build(), torch.randn(8, 4, 2, 2)
    plain = MODELS.build({"type": "Shared2FCBBoxHead", **SIZES})
    scores, deltas = head(x, "lits")
    labels = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    targets = (labels, torch.ones(8), torch.rand(8, 4), torch.ones(8, 4))
    rois = regions(8)
    losses, expected = head.loss(scores, deltas, rois, *targets), plain.loss(scores, deltas, rois, *targets)
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[key], expected[key]) for key in expected)
    # What hard example mining asks for.
    single = head.loss(scores, None, rois, labels, torch.ones(8), None, None, reduction_override="none")
    assert single["loss_cls"].shape == (8,)


def test_gate_weighs_scores():
    head = build()
    trust = torch.tensor([1.0, 0.5, 0.25]).expand(20, 3)
    plain, gated = detect(head, CFG), detect(head, CFG, trust)
    for i, factor in enumerate((1.0, 0.5, 0.25)):
        assert torch.allclose(gated.scores[gated.expert == i], factor * plain.scores[plain.expert == i])


def test_gate_learns_which_dataset_a_lesion_is_of():
    torch.manual_seed(0)
    gate, centres = ExpertGate(16, 3), torch.rand(3, 16) * 5

    def lesions(expert: int, count: int) -> torch.Tensor:
        return F.relu(centres[expert] + torch.randn(count, 16))

    assert torch.equal(gate(lesions(0, 2)), torch.full((2, 3), 1 / 3))
    first = gate.learn(lesions(0, 8), 0)
    assert first == pytest.approx(torch.log(torch.tensor(3.0)))
    for _ in range(60):
        for expert in (0, 0, 0, 0, 1, 2):  # the first is seen four times as often
            gate.learn(lesions(expert, 8), expert)
    for expert in range(3):
        probabilities = gate(lesions(expert, 200))
        assert torch.allclose(probabilities.sum(1), torch.ones(200))
        assert (probabilities.argmax(1) == expert).float().mean() > 0.8
    # Lesions that look like all three alike are given to none: the frequent dataset has no head start.
    middle = gate(centres.div(centres.norm(dim=1, keepdim=True)).mean(0, keepdim=True))
    assert middle.max() < 0.6


def test_gate_learns_in_full_precision_under_autocast():
    features = torch.rand(30, 16, generator=torch.Generator().manual_seed(0))
    plain, mixed = ExpertGate(16, 4), ExpertGate(16, 4)
    for expert in (0, 1, 2, 3) * 5:
        expected = plain.learn(features + expert, expert)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert mixed.learn(features + expert, expert) == expected
    assert all(torch.equal(own, other) for own, other in zip(mixed.buffers(), plain.buffers(), strict=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mixed(features), plain(features))


def test_gate_without_lesions_and_with_bad_rates():
    gate = ExpertGate(4, 2)
    assert gate.learn(torch.zeros(0, 4), 1) == 0
    assert gate.seen.tolist() == [1, 1]
    assert gate.weight.abs().max() == 0
    with pytest.raises(InputError, match="ExpertGate: lr is 5"):
        ExpertGate(4, 2, lr=5)


def test_gate_settings_of_the_test(lens):
    model = lens.model("afp-4datasets-gate").eval()
    head = model.roi_head
    torch.nn.init.normal_(head.gate.weight)
    shared = torch.rand(7, head.gate.weight.shape[1])
    trusts = head._trusts(shared, ConfigDict(experts=None))
    assert trusts.shape == (7, 4)
    assert torch.equal(trusts.amax(1), torch.ones(7))
    assert torch.equal(head._trusts(shared, ConfigDict(experts=["lits"]))[:, 2], torch.ones(7))
    assert head._trusts(shared, ConfigDict(gated=False)) is None
    head.gate = None
    assert head._trusts(shared, ConfigDict()) is None
    with pytest.raises(InputError, match="gated: True, but roi_head has no gate"):
        head._trusts(shared, ConfigDict(gated=True))
