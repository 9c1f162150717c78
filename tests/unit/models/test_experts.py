from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmpluld.errors import InputError
from mmpluld.models.experts import check_datasets, dataset_of_batch, join_experts

NMS = {"type": "nms", "iou_threshold": 0.5}


def samples(*names: str | None) -> list[DetDataSample]:
    return [DetDataSample(metainfo={} if name is None else {"dataset": name}) for name in names]


def group(*rows: tuple[float, float, float, float, float], labels: list[int] | None = None) -> InstanceData:
    table = torch.tensor(rows).view(-1, 5)
    return InstanceData(
        bboxes=table[:, :4], scores=table[:, 4], labels=torch.tensor(labels or [0] * len(rows), dtype=torch.long)
    )


def test_one_dataset():
    assert dataset_of_batch(samples("lits", "lits"), ["luna16", "lits"], "Head") == "lits"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((None,), "Head: a data sample has no 'dataset'; add it to the meta_keys of PackDetInputs"),
        (("lits", "luna16"), "Head: a batch holds samples of lits and luna16; use LesionSampler with batch_size"),
        (("luna",), "Head: no expert for dataset 'luna', there are luna16, lits; did you mean 'luna16'"),
    ],
)
def test_what_a_batch_must_not_be(names, message):
    with pytest.raises(InputError, match=message):
        dataset_of_batch(samples(*names), ["luna16", "lits"], "Head")


@pytest.mark.parametrize("names", [[], "lits", ["lits", "lits"], ["a.b"], [""], ["train"], ["training"], ["weight"]])
def test_names_that_do_not_serve(names):
    with pytest.raises(InputError, match=r"Head: .*name"):
        check_datasets(names, "Head")


def test_union_and_suppression():
    groups = [
        group((0, 0, 10, 10, 0.5), (20, 20, 30, 30, 0.4)),
        group((1, 0, 11, 10, 0.9), (50, 50, 60, 60, 0.1)),
        group(),
    ]
    joined = join_experts(groups, NMS, 50)
    assert joined.scores.tolist() == pytest.approx([0.9, 0.4, 0.1])
    assert joined.expert.tolist() == [1, 0, 1]
    assert joined.bboxes.tolist() == [[1, 0, 11, 10], [20, 20, 30, 30], [50, 50, 60, 60]]
    assert join_experts(groups, NMS, 2).expert.tolist() == [1, 0]
    assert join_experts(groups, NMS, 50, experts=[2, 5, 7]).expert.tolist() == [5, 2, 5]


def test_unfused_says_what_the_suppression_leaves():
    """By hand: the first box loses against the third, which it overlaps by 90 / 110."""
    groups = [
        group((0, 0, 10, 10, 0.5), (20, 20, 30, 30, 0.4)),
        group((1, 0, 11, 10, 0.9), (50, 50, 60, 60, 0.1)),
        group(),
    ]
    union = join_experts(groups, NMS, 50, experts=[2, 5, 7], unfused=True)
    assert union.bboxes[:, 0].tolist() == [0, 20, 1, 50]
    assert union.scores.tolist() == pytest.approx([0.5, 0.4, 0.9, 0.1])
    assert union.expert.tolist() == [2, 2, 5, 5]
    assert union.fused_scores.tolist() == pytest.approx([-1, 0.4, 0.9, 0.1])
    assert join_experts(groups, NMS, 2, unfused=True).fused_scores.tolist() == pytest.approx([-1, 0.4, 0.9, -1])
    # Soft suppression: 0.5 * (1 - 90 / 110).
    soft = {"type": "soft_nms", "iou_threshold": 0.5, "method": "linear", "min_score": 1e-3}
    found = join_experts(groups, soft, 50, unfused=True)
    assert found.scores.tolist() == pytest.approx([0.5, 0.4, 0.9, 0.1])
    assert found.fused_scores.tolist() == pytest.approx([0.5 * 20 / 110, 0.4, 0.9, 0.1], abs=1e-6)
    nothing = join_experts([group(), group()], NMS, 50, unfused=True)
    assert nothing.fused_scores.shape == (0,)


def test_classes_stay_apart():
    groups = [group((0, 0, 10, 10, 0.5), labels=[0]), group((0, 0, 10, 10, 0.9), labels=[1])]
    assert join_experts(groups, NMS, 50).labels.tolist() == [1, 0]


def test_nothing_found():
    joined = join_experts([group(), group()], NMS, 50)
    assert joined.bboxes.shape == (0, 4)
    assert joined.scores.shape == joined.expert.shape == (0,)
    assert joined.expert.dtype == joined.labels.dtype == torch.long
