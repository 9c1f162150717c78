from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.structures import InstanceData

from mmpluld.errors import InputError
from mmpluld.models.dense_heads import AFPHead
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

MAP = torch.zeros(1, 1, 16, 16)  # stride 4: an input of 64 x 64


def build(**changes: Any) -> AFPHead:
    torch.manual_seed(0)
    return MODELS.build({"type": "AFPHead", "in_channels": 4, "feat_channels": 4, **changes})


def boxes(*rows: list[float]) -> InstanceData:
    return InstanceData(bboxes=torch.tensor(rows).view(-1, 4), labels=torch.zeros(len(rows), dtype=torch.long))


def targets(gt: InstanceData, ignored: InstanceData | None = None, **changes: Any) -> tuple[torch.Tensor, ...]:
    """Positives (H, W), cells left out (H, W), distances (P, 4)."""
    labels, weights, distances = build(**changes).get_targets(MAP, [gt], [ignored])
    return (labels == 0).view(16, 16), (weights == 0).view(16, 16), distances


def test_size_at_full_width():
    with torch.device("meta"):
        head = build(in_channels=512, feat_channels=256)
        scores, distances = head((torch.zeros(1, 512, 128, 128),))
    assert scores[0].shape == (1, 1, 128, 128)
    assert distances[0].shape == (1, 4, 128, 128)
    assert sum(p.numel() for p in head.parameters()) == 2 * (9 * 512 * 256 + 256) + 256 + 1 + 4 * (256 + 1)


def test_start_values():
    head = build()
    head.init_weights()
    assert head.conv_cls.bias.item() == pytest.approx(-math.log(99))
    (scores,), (distances,) = head((torch.zeros(1, 4, 2, 2),))
    assert scores.sigmoid().flatten().tolist() == pytest.approx([0.01] * 4, rel=1e-4)
    assert distances.flatten().tolist() == [16.0] * 16  # boxes of 32 x 32 px


def test_regions_of_one_lesion():
    # Box of 40 x 20 px with its centre at (30, 30): centre region 8 x 4 px, ignored region 20 x 10 px.
    positive, left_out, distances = targets(boxes([10.0, 20.0, 50.0, 40.0]))
    assert positive.nonzero().tolist() == [[7, 7], [7, 8]]  # cell centres at x = 30, 34 (the open edge is at 26)
    assert distances.tolist() == [[20.0, 10.0, 20.0, 10.0], [24.0, 10.0, 16.0, 10.0]]
    rows, columns = left_out.nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 8, 5, 9)
    assert left_out.sum() == 3 * 5 - 2


@settings(max_examples=40)
@given(x=st.floats(0, 60), y=st.floats(0, 60), width=st.floats(0.1, 20), height=st.floats(0.1, 20))
def test_a_box_of_any_size_has_a_positive_cell(x, y, width, height):
    box = [x, y, min(x + width, 64), min(y + height, 64)]
    positive, left_out, distances = targets(boxes(box))
    assert positive.sum() >= 1
    assert not (positive & left_out).any()
    assert torch.allclose(distances[:, 0] + distances[:, 2], torch.tensor(box[2] - box[0]), atol=1e-4)
    _, left_out, _ = targets(boxes(), boxes(box))
    assert left_out.sum() >= 1


def test_smaller_lesion_wins_a_shared_cell():
    large, small = [10.0, 10.0, 50.0, 50.0], [26.0, 26.0, 34.0, 34.0]
    for gt in (boxes(large, small), boxes(small, large)):
        positive, _, distances = targets(gt)
        cells = positive.nonzero().tolist()
        assert [7, 7] in cells
        assert distances[cells.index([7, 7])].tolist() == [4.0, 4.0, 4.0, 4.0]
        assert len(cells) > 1  # the others stay the large one's


def test_centre_of_one_in_the_ring_of_another_is_positive():
    positive, left_out, _ = targets(boxes([0.0, 0.0, 60.0, 60.0], [20.0, 20.0, 22.0, 22.0]))
    assert positive[5, 5]
    assert not left_out[5, 5]


def test_uncertain_lesions():
    uncertain = [10.0, 20.0, 50.0, 40.0]
    for gt in (boxes(), boxes([2.0, 2.0, 6.0, 6.0])):
        positive, left_out, _ = targets(gt, boxes(uncertain))
        assert positive.sum() == len(gt)
        assert left_out[6:9, 5:10].all()
        assert left_out.sum() == 3 * 5
    positive, left_out, _ = targets(boxes(uncertain), boxes(uncertain))  # certain and uncertain: certain
    assert positive.sum() == 2
    assert left_out.sum() == 3 * 5 - 2


def test_losses_by_hand():
    head = build()
    scores, distances = torch.zeros(1, 1, 16, 16), torch.zeros(1, 4, 16, 16)
    losses = head.loss_by_feat([scores], [distances], [boxes([10.0, 20.0, 50.0, 40.0])], [{}], [None])
    # At p = 1/2 every cell costs ln(2) / 8: 2 positives and 256 - 15 negatives, over 2 positives.
    assert losses["loss_cls"].item() == pytest.approx(math.log(2) / 8 * (256 - 13) / 2)
    # Each positive misses its two widths and heights, 60 px or 15 strides; the weight is 0.1.
    assert losses["loss_bbox"].item() == pytest.approx(0.1 * 15)


def test_losses_without_lesions():
    losses = build().loss_by_feat([MAP], [torch.zeros(1, 4, 16, 16)], [boxes()], [{}], [None])
    assert losses["loss_cls"].item() == pytest.approx(math.log(2) / 8 * 256)
    assert losses["loss_bbox"].item() == 0


@pytest.mark.parametrize(("normalizer", "divisor"), [("positives", 2), ("lesions", 1), ("images", 2)])
def test_normalizer_of_the_centre_loss(normalizer, divisor):
    head = build(normalizer=normalizer)
    gt = [boxes([10.0, 20.0, 50.0, 40.0]), boxes()]
    scores, distances = torch.zeros(2, 1, 16, 16), torch.zeros(2, 4, 16, 16)
    losses = head.loss_by_feat([scores], [distances], gt, [{}, {}], [None, None])
    assert losses["loss_cls"].item() == pytest.approx(math.log(2) / 8 * (2 * 256 - 13) / divisor)
    assert losses["loss_bbox"].item() == pytest.approx(0.1 * 15)


def test_unit_of_distances():
    head = build(distance_unit=1.0)
    head.init_weights()
    (_,), (distances,) = head((torch.zeros(1, 4, 16, 16),))
    assert distances.unique().tolist() == [16.0]  # as in any unit
    losses = head.loss_by_feat([MAP], [0 * distances], [boxes([10.0, 20.0, 50.0, 40.0])], [{}], [None])
    assert losses["loss_bbox"].item() == pytest.approx(0.1 * 60)


def test_a_lesion_between_cell_centres_may_have_no_positive():
    tiny = boxes([7.0, 7.0, 9.0, 9.0])
    positive, left_out, distances = targets(tiny, nearest_cell=False)
    assert positive.sum() == 0
    assert left_out.sum() == 1
    assert distances.shape == (0, 4)
    large = boxes([10.0, 20.0, 50.0, 40.0])
    assert torch.equal(targets(large, nearest_cell=False)[0], targets(large)[0])


def test_nearest_lesion_wins_a_shared_cell():
    large, small = [0.0, 0.0, 60.0, 60.0], [26.0, 26.0, 40.0, 40.0]  # centres at 30 and 33; the cell's is at 30
    for gt in (boxes(large, small), boxes(small, large)):
        for rule, width in (("smallest", 14.0), ("nearest", 60.0)):
            positive, _, distances = targets(gt, pos_scale=0.5, shared_cell=rule)
            cell = positive.nonzero().tolist().index([7, 7])
            assert distances[cell, 0] + distances[cell, 2] == width


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": "lesion"}, "normalizer: 'lesion' is not one of positives, lesions, images; did you mean"),
        ({"shared_cell": "largest"}, "shared_cell: 'largest' is not one of smallest, nearest"),
        ({"distance_unit": 0}, "distance_unit: 0 is no positive number"),
        ({"strides": [4, 8]}, r"strides: \[4, 8\] are 2"),
        ({"pos_scale": 0.6}, "pos_scale 0.6, ignore_scale 0.5"),
        ({"pos_scale": 0}, "need 0 < pos_scale"),
        ({"ignore_scale": 1.5}, "ignore_scale 1.5"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)
