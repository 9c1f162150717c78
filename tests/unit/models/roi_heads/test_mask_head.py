"""The mask head: small masks over boxes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmpluld.errors import InputError
from mmpluld.postprocess import paste_mask
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")


TEST_CFG = ConfigDict(mask_thr_binary=0.5)


def build(kind: str = "LesionMaskHead", **changes: object) -> FCNMaskHead:
    torch.manual_seed(0)
    config = {"type": kind, "num_convs": 1, "in_channels": 4, "conv_out_channels": 4, "num_classes": 1}
    return MODELS.build(config | {"loss_mask": {"type": "MaskDiceLoss"}} | changes)


def predict(head: FCNMaskHead, logits: torch.Tensor, boxes: torch.Tensor, rescale: bool = True) -> InstanceData:
    results = InstanceData(bboxes=boxes.clone(), labels=torch.zeros(len(boxes), dtype=torch.long))
    meta = {"ori_shape": (40, 50), "scale_factor": (2.0, 4.0)}
    (found,) = head.predict_by_feat((logits,), [results], [meta], TEST_CFG, rescale)
    return found


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_masks_stay_small_and_boxes_go_back_to_the_slice(class_agnostic):
    logits = torch.randn(2, 1, 28, 28)
    boxes = torch.tensor([[4.0, 8, 20, 40], [0, 0, 10, 8]])
    found = predict(build(class_agnostic=class_agnostic), logits, boxes)
    torch.testing.assert_close(found.mask_probs, logits[:, 0].sigmoid())
    assert found.bboxes.tolist() == [[2, 2, 10, 10], [0, 0, 5, 2]]
    assert "masks" not in found


def test_boxes_stay_where_they_are_without_rescaling():
    boxes = torch.tensor([[4.0, 8, 20, 40]])
    assert predict(build(), torch.zeros(1, 1, 28, 28), boxes, rescale=False).bboxes.tolist() == boxes.tolist()


def test_no_boxes():
    found = predict(build(), torch.zeros(0, 1, 28, 28), torch.zeros(0, 4))
    assert found.mask_probs.shape == (0, 28, 28)


def test_the_channel_of_the_label_is_taken():
    results = InstanceData(bboxes=torch.tensor([[0.0, 0, 8, 8]]), labels=torch.tensor([2]))
    logits = torch.stack([torch.full((28, 28), float(value)) for value in (-9, 0, 9)])[None]
    meta = {"ori_shape": (9, 9), "scale_factor": (1.0, 1.0)}
    (found,) = build(num_classes=3).predict_by_feat((logits,), [results], [meta], TEST_CFG)
    assert found.mask_probs.min() > 0.99


@settings(max_examples=25)
@given(st.integers(0, 2**31 - 1))
def test_pasted_masks_are_mmdets(seed):
    """What the small masks become is what mmdet pastes, up to pixels that lie on the threshold."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(3, 2, generator=generator) * 30
    boxes = torch.cat([corner, corner + 1 + torch.rand(3, 2, generator=generator) * 15], dim=1)
    scaled = boxes * torch.tensor([2.0, 4.0, 2.0, 4.0])
    logits = torch.randn(3, 1, 28, 28, generator=generator)
    found = predict(build(), logits, scaled)
    torch.testing.assert_close(found.bboxes, boxes, atol=1e-4, rtol=0)
    mmdets = predict(build("FCNMaskHead"), logits, scaled).masks
    for full, probs, box in zip(mmdets, found.mask_probs, found.bboxes, strict=True):
        values, (left, top) = paste_mask(probs.numpy(), box.numpy())
        whole = torch.zeros(60, 70, dtype=torch.float64)
        whole[top + 5 : top + 5 + values.shape[0], left + 5 : left + 5 + values.shape[1]] = torch.from_numpy(values)
        whole = whole[5:45, 5:55]
        assert not ((whole >= 0.5) != full)[(whole - 0.5).abs() > 1e-3].any()


def test_training_without_masks_says_what_to_do():
    with pytest.raises(InputError, match="set with_mask=True in LoadAnnotations"):
        build().get_targets([], [InstanceData(bboxes=torch.zeros(1, 4))], ConfigDict(mask_size=28))
