"""Proposals of ``AFPHead``: distances of the best cells alone give what distances of all cells give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmpluld.compat.half_precision import keep_boxes_exact
from mmpluld.models.cpu import best_cells, plain_networks
from mmpluld.models.dense_heads import AFPHead
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

SETTINGS: dict[str, Any] = {
    "nms_pre": 400,
    "max_per_img": 20,
    "nms": {"type": "nms", "iou_threshold": 0.7},
    "min_bbox_size": 8,
}


def build(settings: dict[str, Any] = {}, side: float = 24.0, **changes: Any) -> AFPHead:  # noqa: B006  read only
    """A head with random weights whose boxes have sides of about ``side`` pixels."""
    torch.manual_seed(0)
    test_cfg = ConfigDict({**SETTINGS, **settings})
    head = MODELS.build({"type": "AFPHead", "in_channels": 6, "feat_channels": 8, "test_cfg": test_cfg, **changes})
    with torch.no_grad():
        head.conv_reg.bias.fill_(side / 8)
    return head.eval()


def predict(head: AFPHead, features: torch.Tensor, all_cells: bool) -> tuple[list[InstanceData], list[int]]:
    """Proposals, and how many distances were computed at a time; with gradients, all are."""
    height, width = (4 * size for size in features.shape[2:])
    meta = {"img_shape": (height, width), "scale_factor": (2.0, 2.0)}
    samples = [DetDataSample(metainfo=meta) for _ in features]
    counts: list[int] = []
    distances_at = best_cells.distances_at

    def counted(head: AFPHead, table: torch.Tensor, cells: torch.Tensor, size: Any) -> torch.Tensor:
        counts.append(len(cells))
        return distances_at(head, table, cells, size)

    with pytest.MonkeyPatch.context() as patch, torch.set_grad_enabled(all_cells):
        patch.setattr(best_cells, "distances_at", counted)
        found = head.predict((features,), samples, rescale=True)
    return found, counts


def same(found: InstanceData, wanted: InstanceData) -> bool:
    return (
        torch.equal(found.scores, wanted.scores)
        and torch.equal(found.labels, wanted.labels)
        and torch.allclose(found.bboxes, wanted.bboxes, atol=1e-4)
    )


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("settings", "side", "counts"),
    [
        ({}, 24.0, [80]),
        ({}, 4.0, [80, 80, 160, 80]),  # too small, so none is kept before the cells are at an end
        ({"nms_pre": 10_000, "max_per_img": 500}, 24.0, [20 * 28]),  # all cells, also those at the border
        ({"score_thr": 0.6, "min_bbox_size": -1}, 24.0, None),
        ({"score_thr": 1.0}, 24.0, [0]),
    ],
)
def test_equals_distances_of_all_cells(settings, side, counts, half):
    head = build(settings, side)
    keep_boxes_exact(head)
    features = torch.randn(2, 6, 20, 28)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found, computed = predict(head, features, all_cells=False)
        wanted, _ = predict(head, features, all_cells=True)
    assert all(same(*pair) for pair in zip(found, wanted, strict=True))
    assert len(found) == 2
    if counts is not None:
        assert computed == 2 * counts


def test_more_cells_where_boxes_lack():
    head = build(side=10.0)  # some are too small
    (found,), counts = predict(head, torch.randn(1, 6, 20, 28), all_cells=False)
    assert len(counts) > 1
    assert len(found) <= SETTINGS["max_per_img"]
    assert (found.scores.diff() <= 0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"nms": {"type": "soft_nms", "iou_threshold": 0.7}}},  # changes scores
        {"num_classes": 2},
        {"norm_cfg": {"type": "GN", "num_groups": 2}},  # reads the whole map
    ],
)
def test_all_cells_where_the_shortcut_is_unsafe(changes):
    head = build(**changes)
    features = torch.randn(1, 6, 8, 8)
    (found,), counts = predict(head, features, all_cells=False)
    assert not counts
    (wanted,), _ = predict(head, features, all_cells=True)
    assert same(found, wanted)


def test_wide_layers_in_single_precision():
    head = build(in_channels=128, feat_channels=160)
    features = torch.randn(2, 128, 10, 14)
    with torch.no_grad():
        wanted = head.cls_convs[0](features)
        found = best_cells.centre_hidden(head.cls_convs[0], features)
        assert not torch.equal(found, wanted)  # it is the other algorithm
        assert torch.allclose(found, wanted, rtol=0, atol=3e-5 * float(wanted.max()))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(best_cells.centre_hidden(head.cls_convs[0], features), head.cls_convs[0](features))


def test_all_cells_without_shortcuts():
    head, features = build(), torch.randn(1, 6, 20, 28)
    with plain_networks():
        (found,), counts = predict(head, features, all_cells=False)
    assert not counts
    (wanted,), _ = predict(head, features, all_cells=True)
    assert all(torch.equal(found[key], wanted[key]) for key in ("bboxes", "scores", "labels"))
