"""The embedder: what it pools, and what comes out."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmpluld.errors import InputError
from mmpluld.models.embedders import LesionEmbedder
from mmpluld.models.embedders.lesion_embedder import roi_max_pool

SMALL = {"widths": (4, 6, 8), "depths": (1, 1, 1), "num_boxed": 2, "pool_size": 2, "stage_channels": 5,
         "embed_channels": 7, "num_tags": 3}  # fmt: skip


def test_pooling_by_hand():
    x = torch.arange(36.0).view(1, 1, 6, 6)
    # Cells 1 to 4 of both axes in two bins each: rows 1-2 and 3-4; the maximum is at the far corner of each.
    assert roi_max_pool(x, torch.tensor([[1.0, 1.0, 5.0, 5.0]]), 2).flatten().tolist() == [14, 16, 26, 28]
    # A box from 1.5 to 3.25 touches cells 1, 2 and 3; of three cells the bins are 1-2 and 2-3.
    assert roi_max_pool(x, torch.tensor([[1.5, 1.5, 3.25, 3.25]]), 2).flatten().tolist() == [14, 15, 20, 21]
    # A box within one cell is that cell in every bin; one at the far edge is the last cell.
    assert roi_max_pool(x, torch.tensor([[2.2, 3.1, 2.4, 3.9]]), 2).flatten().tolist() == [20] * 4
    assert roi_max_pool(x, torch.tensor([[6.0, 6.0, 6.0, 6.0]]), 2).flatten().tolist() == [35] * 4


def _samples(counts=(2, 1)):
    number = 0
    for count in counts:
        lesions = InstanceData(bboxes=torch.tensor([[4.0, 4.0, 12.0, 10.0]]).repeat(count, 1))
        lesions.lesion_ids = torch.arange(number, number + count)
        lesions.identities = torch.full((count,), -1)
        lesions.tags = torch.tensor([[1.0, 0.0, 0.0]]).repeat(count, 1)
        sample = DetDataSample(metainfo={"patient": f"p{number}", "volume_id": f"v{number}"}, gt_instances=lesions)
        number += count
        yield sample


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LesionEmbedder(**SMALL)


def test_vectors_have_length_one_and_tags_start_unrefined(model):
    inputs = [torch.randn(2, 3, 16, 16), torch.randn(1, 3, 16, 16)]
    embeddings, logits, refined = model.eval()(inputs, list(_samples()))
    assert embeddings.shape == (3, 7) and logits.shape == (3, 3)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(refined, logits)


def test_each_sample_gets_its_own(model):
    inputs = [torch.randn(2, 3, 16, 16), torch.randn(1, 3, 16, 16)]
    found = model.eval()(inputs, list(_samples()), mode="predict")
    alone = model(inputs[1:], list(_samples())[1:], mode="predict")
    assert [len(sample.pred_instances) for sample in found] == [2, 1]
    torch.testing.assert_close(found[1].pred_instances.embeddings, alone[0].pred_instances.embeddings)


def test_first_depths_see_the_box_alone(model):
    inputs = torch.randn(1, 3, 16, 16)
    other = inputs.clone()
    other[..., 14:, :] += 5  # more than a convolution away from the box, which ends at 10
    stage, linear = model.eval().stages[0], model.fc_stages[0]
    boxes = torch.tensor([[4.0, 4.0, 12.0, 10.0]])
    pooled = [linear(roi_max_pool(stage(x), boxes, 2).flatten(1)) for x in (inputs, other)]
    torch.testing.assert_close(*pooled)
    vectors = [model([x], list(_samples((1,))))[0] for x in (inputs, other)]
    assert not torch.allclose(*vectors)  # the last depth sees the patch


def test_losses_train_it(model):
    model.set_tag_statistics(torch.tensor([2.0, 1.0, 1.0]), 4, torch.zeros(3, 3, dtype=torch.bool))
    inputs = [torch.randn(2, 3, 16, 16), torch.randn(1, 3, 16, 16)]
    losses = model(inputs, list(_samples()), mode="loss")
    assert set(losses) == {"loss_tag", "loss_tag_hard", "loss_refined_tag", "loss_triplet"}
    sum(losses.values()).backward()
    assert all(value.grad is not None for name, value in model.named_parameters() if "fc_embed" not in name)


def test_faulty_settings(model):
    with pytest.raises(InputError, match="needed are a width and a depth for each stage"):
        LesionEmbedder(**{**SMALL, "depths": (1, 1)})
    with pytest.raises(InputError, match="has 4 tags, the embedder 3"):
        model.set_tag_statistics(torch.ones(4), 4, torch.zeros(4, 4, dtype=torch.bool))
