"""Trunks: every pixel is told its organ, and the backbone becomes the start of a detector, whole or not at all."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import PixelData

from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

TRUNK_OF = {
    "trunk-a3d_densenet121_7s_phantom": "pluld-a3d_densenet121-fpn_7s_phantom",
    "trunk-lens_densenet121_9s_phantom": "lens-fcos-1stage_densenet121_4datasets_9s_phantom",
    "trunk-faster-rcnn_r50_3s_phantom": "faster-rcnn_r50-fpn_3s_phantom",
}


def samples(truth: torch.Tensor) -> list[DetDataSample]:
    found = []
    for item in truth:
        sample = DetDataSample(metainfo={"img_shape": tuple(item.shape), "ori_shape": tuple(item.shape)})
        sample.gt_sem_seg = PixelData(sem_seg=item[None])
        found.append(sample)
    return found


def test_learns_a_map_and_predicts_it_in_the_size_of_the_image():
    torch.manual_seed(0)
    model = MODELS.build(load_config("trunk-faster-rcnn_r50_3s_phantom").model)
    truth = torch.zeros(2, 48, 48, dtype=torch.uint8)
    truth[:, 16:, :24] = 9
    images = [item.float().expand(3, -1, -1) * 20 - 50 for item in truth]
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        batch = model.data_preprocessor({"inputs": images, "data_samples": samples(truth)}, training=True)
        loss, _ = model.parse_losses(model(**batch, mode="loss"))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 5
    batch = model.data_preprocessor({"inputs": images, "data_samples": samples(truth)}, training=False)
    assert batch["inputs"].shape[-1] == 64  # padded
    found = model(**batch, mode="predict")[0].pred_sem_seg.sem_seg
    assert found.shape == (1, 48, 48)
    assert float((found[0] == truth[0]).float().mean()) > 0.9


def test_pixels_of_an_unknown_class_count_nothing():
    torch.manual_seed(0)
    model = MODELS.build(load_config("trunk-faster-rcnn_r50_3s_phantom").model).eval()
    image = torch.randn(1, 3, 32, 32)
    truth = torch.randint(0, 18, (1, 32, 32), dtype=torch.uint8)
    truth[:, 20:] = 255
    with torch.no_grad():
        logits = torch.nn.functional.interpolate(model(image), scale_factor=4, mode="bilinear")
        loss = model(image, samples(truth), mode="loss")["loss_organ"]
    by_hand = -logits.log_softmax(1)[:, :, :20].gather(1, truth[:, None, :20].long()).mean()
    torch.testing.assert_close(loss, by_hand)


@pytest.mark.parametrize(("trunk", "row"), TRUNK_OF.items(), ids=lambda name: name.split("_")[0])
def test_a_detector_starts_from_the_trunk_of_its_backbone(tmp_path, trunk, row):
    torch.manual_seed(1)
    source = MODELS.build(load_config(trunk).model)
    for value in source.backbone.state_dict().values():
        if value.is_floating_point():
            value.normal_()
    torch.save({"state_dict": source.state_dict(), "meta": {}}, tmp_path / "trunk.pth")
    options = [
        "model.backbone.init_cfg.type=TrunkWeights",
        f"model.backbone.init_cfg.checkpoint='{tmp_path}/trunk.pth'",
    ]
    model = MODELS.build(load_config(row, options).model)
    model.init_weights()
    for key, value in model.backbone.state_dict().items():
        torch.testing.assert_close(value, source.backbone.state_dict()[key], rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["missing", "unexpected", "of another shape"])
def test_another_backbone_is_refused(tmp_path, damage):
    config = load_config("trunk-faster-rcnn_r50_3s_phantom").model
    state = MODELS.build(config).state_dict()
    if damage == "missing":
        del state["backbone.conv1.weight"]
    elif damage == "unexpected":
        state["backbone.conv9.weight"] = torch.ones(1)
    else:
        state["backbone.conv1.weight"] = torch.ones(1)
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    config.backbone.init_cfg = {"type": "TrunkWeights", "checkpoint": str(tmp_path / "other.pth")}
    with pytest.raises(InputError, match=f"other.pth: its backbone is not that of the config, of .*1 {damage}"):
        MODELS.build(config).init_weights()
