from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict

from mmpluld.errors import InputError
from mmpluld.models.dense_heads import AFPHead, PerDatasetHead
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

CFG = ConfigDict(nms_pre=50, max_per_img=12, min_bbox_size=1, nms={"type": "nms", "iou_threshold": 0.7})
AFP = {"type": "AFPHead", "in_channels": 4, "feat_channels": 8}
NAMES = ["luna16", "lits", "nih-ln"]


def build(**changes: object) -> PerDatasetHead:
    torch.manual_seed(0)
    head = MODELS.build({"type": "PerDatasetHead", "datasets": NAMES, "head": AFP, "test_cfg": CFG, **changes})
    head.init_weights()
    for part in head.heads.values():
        torch.nn.init.normal_(part.conv_cls.weight, std=10)  # so that each is ahead somewhere
    return head


def inputs(lens, name: str = "lits"):
    torch.manual_seed(1)
    data = lens.batch(name, name)["data_samples"]
    for sample in data:
        sample.set_metainfo({"batch_input_shape": sample.img_shape})
    return (torch.randn(2, 4, 16, 16),), data


def test_training_equals_that_of_the_one_head(lens):
    head, (x, samples) = build(train_proposals="own"), inputs(lens)
    losses, found = head.loss_and_predict(x, samples, proposal_cfg=CFG)
    expected, wanted = head.heads["lits"].loss_and_predict(x, samples, proposal_cfg=CFG)
    assert losses == expected == head.loss(x, samples)
    assert torch.equal(found[1].bboxes, wanted[1].bboxes)


def test_proposals_of_all_heads(lens):
    head, (x, samples) = build(), inputs(lens)
    x[0].requires_grad_()
    losses, found = head.loss_and_predict(x, samples, proposal_cfg=CFG)
    assert len({expert for image in found for expert in image.expert.tolist()}) > 1
    assert all(len(image) <= 12 and not image.bboxes.requires_grad for image in found)
    sum(losses.values()).backward()
    for name, part in head.heads.items():
        assert all((p.grad is None) == (name != "lits") for p in part.parameters())
    # Those of the test are the same: nothing here depends on the mode.
    tested = head.eval().predict(x, samples)
    assert torch.equal(tested[0].bboxes, found[0].bboxes)


def test_pooled_proposals_are_those_of_the_heads_after_one_more_suppression(lens):
    head, (x, samples) = build().eval(), inputs(lens)
    groups = [part.predict(x, samples) for part in head.heads.values()]
    (pooled, _) = head.predict(x, samples)
    every = torch.cat([found[0].scores for found in groups])
    assert pooled.scores[0] == every.max()
    for box, score, expert in zip(pooled.bboxes, pooled.scores, pooled.expert.tolist(), strict=True):
        (place,) = (groups[expert][0].scores == score).nonzero()[:1]
        assert torch.equal(groups[expert][0].bboxes[place[0]], box)


def test_statistics_of_the_other_heads_stay(lens):
    head, (x, samples) = build(head={**AFP, "norm_cfg": {"type": "BN"}}), inputs(lens)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    head.train().loss_and_predict(x, samples, proposal_cfg=CFG)
    changed = {key.split(".")[1] for key, value in head.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"lits"}
    assert all(part.training for part in head.modules())


def test_forward_is_all_heads(lens):
    head, (x, _) = build(), inputs(lens)
    assert [len(outputs) for outputs in head(x)] == [len(head.heads["lits"](x))] * 3
    assert all(isinstance(part, AFPHead) for part in head.heads.values())


def test_heads_start_as_they_would_alone():
    for part in build().heads.values():
        assert torch.allclose(part.conv_cls.bias, torch.tensor([-4.5951]), atol=1e-3)
        assert part.conv_reg.bias.tolist() == [4.0] * 4


def test_bad_settings(lens):
    with pytest.raises(InputError, match="train_proposals: 'owm' is not one of all, own; did you mean 'own'"):
        build(train_proposals="owm")
    head, (x, samples) = build(), inputs(lens, "deeplesion")
    with pytest.raises(InputError, match="PerDatasetHead: no expert for dataset 'deeplesion', there are luna16"):
        head.loss(x, samples)
