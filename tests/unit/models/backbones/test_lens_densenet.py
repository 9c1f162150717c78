from __future__ import annotations

import pytest
import torch

from mmpluld.errors import InputError
from mmpluld.models.backbones import LensDenseNet, TruncatedDenseNet
from mmpluld.models.backbones.lens_densenet import ImageMixer
from mmpluld.models.data_preprocessors import SliceStacks
from mmpluld.registry import MODELS

ATTENTION = {"num_adapters": 2, "reduction": 2}
SMALL = {"growth_rate": 4, "bn_size": 2, "block_config": (2, 3, 2), "stem_channels": 8}


def small(**changes: object) -> LensDenseNet:
    torch.manual_seed(0)
    return LensDenseNet(**{**SMALL, **changes})


def test_parameters_and_shapes_of_the_full_size():
    with torch.device("meta"):
        model = MODELS.build({"type": "LensDenseNet"}).train()
        maps = model(torch.zeros(1, 9, 512, 512))
    assert sum(p.numel() for p in model.parameters()) == 4_267_392 + 196_864
    assert sum(p.numel() for p in model.transition2.mixer.parameters()) == 196_864
    assert model.transition2.mixer.weight.shape == (256, 768, 1, 1)
    assert [tuple(x.shape) for x in maps] == [(1, 768, 128, 128), (1, 1536, 64, 64), (1, 3072, 32, 32)]


def test_mixer_by_hand():
    mixer = ImageMixer(channels=2, num_images=3)
    with torch.no_grad():
        # First output: channel 0 of image 0 plus ten times channel 1 of image 2; second: the bias alone.
        mixer.weight.zero_()
        mixer.weight[0, 0] = 1
        mixer.weight[0, 5] = 10
        mixer.bias.copy_(torch.tensor([0.0, 7.0]))
    x = torch.arange(6.0).view(1, 2, 3, 1, 1)  # channel 0: 0, 1, 2; channel 1: 3, 4, 5
    assert mixer(x)[0, :, 0, 0].tolist() == [50.0, 7.0]


def test_equals_three_images_of_a_2d_network():
    """What the papers say: images in the batch of an ordinary network, fused after its second transition."""
    model = small().eval()
    plain = TruncatedDenseNet(3, slice_mixer=None, slices_as="channels", **SMALL).eval()
    state = model.state_dict()
    plain.load_state_dict({key: value for key, value in state.items() if ".mixer." not in key})
    stacks = torch.rand(2, 9, 32, 48) * 255 - 50
    with torch.enable_grad():  # the plain path of both
        expected = [x.unflatten(0, (2, 3)) for x in plain(stacks.reshape(6, 3, 32, 48))]
        maps = [x.unflatten(1, (-1, 3)).transpose(1, 2) for x in model(stacks)]
    for found, wanted in zip(maps[:2], expected, strict=False):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)
    outer, centre = [0, 2], 1
    assert torch.allclose(maps[2][:, outer], expected[2][:, outer], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(maps[2][:, centre], expected[2][:, centre], rtol=1e-2)


@pytest.mark.parametrize("attention", [None, ATTENTION])
def test_shared_images_off_the_fast_path(attention):
    """In double precision, as on a GPU."""
    model = small(domain_attention=attention).double().eval()
    stacks = torch.rand(2, 9, 32, 48, dtype=torch.float64) * 255 - 50
    with torch.no_grad():
        expected = model(stacks)
        found = model([model.image_features(images) for images in stacks.unflatten(1, (3, 3)).unbind(1)])
    for x, y in zip(found, expected, strict=True):
        assert torch.allclose(torch.stack(x, 2).flatten(1, 2), y, rtol=1e-9, atol=1e-9 * float(y.abs().max()))


@pytest.mark.parametrize("with_gradients", [False, True])
def test_slice_intervals_beside_the_stacks_change_nothing(with_gradients):
    model, stacks = small().eval(), torch.rand(2, 9, 32, 48) * 255 - 50
    with torch.set_grad_enabled(with_gradients):
        expected, found = model(stacks), model(SliceStacks(stacks, torch.tensor([2.0, float("nan")])))
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("attention", [None, ATTENTION])
def test_gradients_reach_everything(attention):
    model = small(domain_attention=attention)
    sum(x.square().mean() for x in model(torch.rand(2, 9, 32, 32))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_other_numbers_of_images():
    maps = small(num_slices=5, num_images=5)(torch.rand(1, 5, 32, 32))
    assert [x.shape[1] % 5 for x in maps] == [0, 0, 0]
    assert small(num_images=1)(torch.rand(1, 9, 32, 32))[2].shape[2:] == (2, 2)


@pytest.mark.parametrize(("slices", "images"), [(9, 2), (9, 5), (9, 0), (8, 3)])
def test_slices_that_cannot_be_cut(slices, images):
    with pytest.raises(InputError, match=f"num_images: {images} does not cut {slices} slices"):
        small(num_slices=slices, num_images=images)


def test_wrong_number_of_slices():
    with pytest.raises(InputError, match="needs \\(B, 9, H, W\\)"):
        small()(torch.zeros(1, 7, 32, 32))


@pytest.mark.parametrize("attention", [None, ATTENTION])
def test_starts_from_imagenet(tmp_path, attention):
    torch.manual_seed(0)
    plain = TruncatedDenseNet(3, slice_mixer=None, slices_as="channels").state_dict()
    torch.save({f"features.{key}": value for key, value in plain.items()}, tmp_path / "weights.pth")
    init_cfg = {"type": "DenseNetImageNet", "checkpoint": str(tmp_path / "weights.pth")}
    model = MODELS.build({"type": "LensDenseNet", "init_cfg": init_cfg, "domain_attention": attention})
    model.init_weights()
    state = model.state_dict()
    new = {key for key in state if key not in plain and ".attention." not in key and not key.startswith("reductionz3")}
    assert new == {"transition2.mixer.weight", "transition2.mixer.bias"}
    assert all(torch.equal(state[key], value) for key, value in plain.items())
