"""The 3D network against the 2D one that it is inflated from."""

import pytest
import torch
from mmdet.models import ResNet

from mmpluld.errors import InputError
from mmpluld.models.classifiers import InflatedResNet, inflate_resnet
from mmpluld.registry import MODELS


@pytest.fixture(scope="module")
def flat():
    """A narrow ResNet-18 on pictures, with statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = ResNet(18, base_channels=8, stem_channels=8, norm_eval=False)
    model.train()
    for _ in range(2):
        model(torch.randn(4, 3, 64, 64))
    model.eval()
    return model


def test_equals_the_2d_network_on_a_patch_without_change_along_z(tmp_path, flat):
    torch.save(flat.state_dict() | {"fc.weight": torch.zeros(2, 64)}, tmp_path / "resnet18.pth")
    start = {"type": "ResNetImageNet", "checkpoint": str(tmp_path / "resnet18.pth")}
    deep = MODELS.build({"type": "InflatedResNet", "channels": 8, "init_cfg": start})
    deep.init_weights()
    deep.eval()
    picture = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        maps = deep(picture[:, :, None].repeat(1, 1, 16, 1, 1))
        expected = flat(picture.repeat(1, 3, 1, 1))
    assert [tuple(part.shape) for part in maps] == [
        (2, 8, 16, 16, 16), (2, 16, 16, 8, 8), (2, 32, 16, 4, 4), (2, 64, 8, 2, 2)
    ]  # fmt: skip
    for part, wanted in zip(maps[:3], expected[:3], strict=True):
        for index in range(16):
            torch.testing.assert_close(part[:, :, index], wanted, rtol=1e-4, atol=1e-4)
    # The zeros beyond the ends of z reach four voxels of the last block from below and three from above.
    torch.testing.assert_close(maps[3][:, :, 4], expected[3], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(maps[3][:, :, 0], expected[3], rtol=1e-2, atol=1e-2)


def test_kernels_are_repeated_and_divided_and_colours_summed():
    kernel = torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)
    target = {"stem": torch.zeros(1, 1, 1, 1, 1), "block": torch.zeros(1, 3, 3, 1, 1), "bn": torch.zeros(2)}
    mapped = inflate_resnet({"stem": kernel, "block": kernel, "bn": torch.ones(2), "fc": kernel}, target)
    assert mapped["stem"].flatten().tolist() == [6]
    assert mapped["block"][0, :, :, 0, 0].tolist() == [[pytest.approx(value / 3)] * 3 for value in (1, 2, 3)]
    assert set(mapped) == set(target)


def test_strides_and_a_stem_without_them():
    assert InflatedResNet(channels=2).strides == ((1, 4, 4), (1, 8, 8), (1, 16, 16), (2, 32, 32))
    small = InflatedResNet(channels=2, num_blocks=(1, 1, 1, 1), stem_stride=1, stem_pool=False)
    assert small.strides == ((1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8))
    assert [tuple(part.shape[2:]) for part in small(torch.zeros(1, 1, 4, 8, 8))] == [
        (4, 8, 8), (4, 4, 4), (4, 2, 2), (2, 1, 1)
    ]  # fmt: skip


def test_weights_of_another_network_are_refused(tmp_path, flat):
    state = flat.state_dict()
    start = {"type": "ResNetImageNet", "checkpoint": str(tmp_path / "weights.pth")}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"weights.pth: conv1.weight has shape \(8, 3, 7, 7\), the model \(4, 1, 1"):
        MODELS.build({"type": "InflatedResNet", "channels": 4, "init_cfg": start}).init_weights()
    del state["layer3.0.conv1.weight"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"lacks layer3.0.conv1.weight; download"):
        MODELS.build({"type": "InflatedResNet", "channels": 8, "init_cfg": start}).init_weights()


@pytest.mark.parametrize("settings", [{"depths": (1, 1, 2, 3)}, {"num_blocks": (2, 2)}, {"z_strides": (1, 1, 1, 0)}])
def test_settings_are_checked(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        InflatedResNet(channels=2, **settings)
