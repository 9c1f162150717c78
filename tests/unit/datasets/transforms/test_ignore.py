"""IgnoreBackground: lesions teach, everything else of the image does not, whatever the head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from mmpluld.datasets.transforms import IgnoreBackground
from mmpluld.errors import InputError
from mmpluld.registry import MODELS, TASK_UTILS, TRANSFORMS

LESION = [8.0, 8.0, 28.0, 24.0]
SIZE, PADDED, STRIDE = 64, 96, 4  # the batch is padded beyond this image


def sample(dataset="luna16", boxes=(LESION,)):
    return {
        "img": np.zeros((SIZE, SIZE, 3), np.float32),
        "dataset": dataset,
        "gt_bboxes": np.array(boxes, np.float32).reshape(-1, 4),
        "gt_bboxes_labels": np.zeros(len(boxes), np.int64),
        "gt_ignore_flags": np.zeros(len(boxes), bool),
    }


def packed(boxes=(LESION,)):
    """Certain and ignored instances as a head gets them."""
    results = IgnoreBackground(["luna16"]).transform(sample(boxes=boxes))
    data = TRANSFORMS.build({"type": "mmdet.PackDetInputs", "meta_keys": ()}).transform(results)["data_samples"]
    as_tensor = [
        InstanceData(bboxes=torch.as_tensor(getattr(item.bboxes, "tensor", item.bboxes)), labels=item.labels)
        for item in (data.gt_instances, data.ignored_instances)
    ]
    return as_tensor[0], as_tensor[1]


def head(config):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        built = MODELS.build({"num_classes": 1, "in_channels": 8, "feat_channels": 8, **config})
    built.init_weights()
    return built


HEADS = [
    {"type": "AFPHead"},
    {
        "type": "IgnoreAwareFCOSHead",
        "stacked_convs": 1,
        "strides": [STRIDE],
        "regress_ranges": ((-1, 1e8),),
        "norm_cfg": None,
    },
    {"type": "CenterNetProposalHead"},
]


@pytest.mark.parametrize("config", HEADS, ids=lambda config: config["type"])
@pytest.mark.parametrize("boxes", [(), (LESION,)], ids=["no lesion", "lesion"])
def test_heads_learn_from_lesions_only(config, boxes):
    built = head(config)
    gt, ignored = packed(boxes)
    assert ignored.bboxes.shape == (1, 4)
    torch.manual_seed(1)
    outputs = built((torch.randn(1, 8, PADDED // STRIDE, PADDED // STRIDE),))

    def gradient(left_out):
        scores = outputs[0][0].detach().requires_grad_()
        meta = {"img_shape": (SIZE, SIZE), "batch_input_shape": (PADDED, PADDED), "ori_shape": (SIZE, SIZE)}
        losses = built.loss_by_feat([scores], *outputs[1:], [gt], [meta], [left_out])
        losses.get("loss_cls", losses.get("loss_center_heatmap")).backward()
        return scores.grad[0, 0]

    alone, pooled = gradient(None), gradient(ignored)
    assert (alone > 0).any()  # there are negatives
    assert (pooled <= 0).all()  # and here are none, nor in the padding
    assert torch.equal(pooled < 0, alone < 0)
    assert (pooled < 0).any() == bool(boxes)


def test_assigner_has_no_negatives():
    assigner = TASK_UTILS.build({"type": "IgnoreAwareMaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.5})
    priors = InstanceData(priors=torch.tensor([LESION, [40.0, 40, 60, 60], [-20.0, -20, 90, 90], [9.0, 9, 28, 24]]))
    gt, ignored = packed()
    assert assigner.assign(priors, gt, ignored).gt_inds.tolist() == [1, -1, -1, 1]
    assert assigner.assign(priors, gt, None).gt_inds.tolist() == [1, 0, 0, 1]


def test_other_datasets_pass():
    results = sample("deeplesion")
    assert IgnoreBackground(["luna16", "lits"]).transform(results) is results
    assert len(results["gt_bboxes"]) == 1


def test_samples_are_checked():
    from mmdet.structures.mask import BitmapMasks

    step = IgnoreBackground(["luna16"])
    with pytest.raises(InputError, match="the sample has no key 'dataset'"):
        step.transform({"img": np.zeros((4, 4, 1))})
    masks = BitmapMasks(np.zeros((1, SIZE, SIZE), np.uint8), SIZE, SIZE)
    with pytest.raises(InputError, match="the added box has no mask; .*with_mask=False"):
        step.transform(sample() | {"gt_masks": masks})
