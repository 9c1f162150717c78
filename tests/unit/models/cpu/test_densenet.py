"""Whole backbones by the shortcuts against the plain networks, and both against formulations of the benchmarks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from benchmarks._plain_lens import plain_backbone
from benchmarks.a3d_backbone import plain_forward
from mmpluld.models.backbones import LensDenseNet, TruncatedDenseNet
from mmpluld.models.cpu import plain_networks
from mmpluld.models.cpu.dense_inference import Folds, folded_once
from mmpluld.models.data_preprocessors import SliceStacks

MIXERS = {
    "a3d": {"type": "A3DMixer"},
    "tsm": {"type": "TSMMixer"},
    "alignshift": {"type": "AlignShiftMixer"},
    "alignshift zero": {"type": "AlignShiftMixer", "zero_padding": True},
    "none": None,
}
ATTENTION = {"num_adapters": 2, "reduction": 2}
SMALL = {"growth_rate": 4, "bn_size": 2, "block_config": (2, 3, 2), "stem_channels": 8}


def small(num_slices: int = 3, **kwargs) -> TruncatedDenseNet:
    """A small network with norms of either sign and one dead channel in each."""
    torch.manual_seed(0)
    model = TruncatedDenseNet(num_slices, **SMALL, **kwargs)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, -0.5, 1.5)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
            norm.weight.data[1] = 0.0
    return model.eval()


def small_lens(**changes: object) -> LensDenseNet:
    torch.manual_seed(0)
    return LensDenseNet(**{**SMALL, **changes})


def relative_error(ours: Tensor, reference: Tensor) -> float:
    return float((ours.float() - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize("size", [(64, 64), (70, 101), (32, 47)])
@pytest.mark.parametrize("plain", [False, True])
def test_fast_path_and_plain_network_equal_the_plain_formulation(size, plain):
    model, x = small(), torch.randn(2, 3, *size)
    with torch.no_grad():
        reference = plain_forward(model, x)
        if plain:
            with plain_networks():
                found = model(x)
        else:
            found = model(x)
    for ours, other in zip(found, reference, strict=True):
        assert relative_error(ours, other) < 1e-5


def test_fast_path_in_chunks(monkeypatch):
    monkeypatch.setattr("mmpluld.models.cpu.dense_inference._CHUNK_PIXELS", 7)
    model, x = small(), torch.randn(1, 3, 40, 44)
    with torch.no_grad():
        for ours, reference in zip(model(x), plain_forward(model, x), strict=True):
            assert relative_error(ours, reference) < 1e-5


@pytest.mark.parametrize("mixer", MIXERS)
def test_fast_path_equals_the_path_with_gradients(mixer):
    model = small(5, slice_mixer=MIXERS[mixer])
    stacks = SliceStacks(torch.randn(4, 5, 48, 40), torch.tensor([1.0, 5.0, math.nan, 4.0]))
    with torch.no_grad():
        fast = model(stacks)
    for a, b in zip(fast, model(stacks), strict=True):
        assert relative_error(a, b.detach()) < 1e-5


@pytest.mark.parametrize("mixer", ["a3d", "alignshift"])
def test_layers_that_are_folded_once_give_the_same(mixer):
    model, kept = small(5, slice_mixer=MIXERS[mixer]), Folds()
    stacks = SliceStacks(torch.randn(4, 5, 48, 40), torch.tensor([1.0, 5.0, math.nan, math.nan]))
    with torch.no_grad():
        anew = model(stacks)
        for _ in range(2):
            with folded_once(kept):
                assert all(torch.equal(a, b) for a, b in zip(model(stacks), anew, strict=True))
        layers = sum(SMALL["block_config"])
        assert len(kept) == layers * 3, "one for each slice interval"
        for parameter in model.parameters():
            parameter.mul_(1.5)
        changed = model(stacks)
        assert not torch.equal(changed[-1], anew[-1])
        with folded_once(Folds()):
            assert torch.equal(model(stacks)[-1], changed[-1])


def test_fast_path_of_slices_as_channels():
    model, x = small(5, slice_mixer=None, slices_as="channels"), torch.randn(2, 5, 48, 41)
    with torch.no_grad():
        fast = model(x)
    for a, b in zip(fast, model(x), strict=True):
        assert relative_error(a, b.detach()) < 1e-5


def test_fast_path_serves_where_it_gives_the_same():
    """A mixer that is no linear map, double precision, and gradients take the plain network."""

    class Twice(nn.Module):
        def forward(self, x: Tensor, thickness_mm: Tensor | None = None) -> Tensor:
            return 2 * x

    model, x = small(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        fast = model(x)
        with plain_networks():
            plain = model(x)
        assert not all(torch.equal(a, b) for a, b in zip(fast, plain, strict=True))  # another order of the arithmetic
        model.denseblock2.denselayer1.conv1.mixer = Twice()
        changed = model(x)
        with plain_networks():
            assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in zip(changed, model(x), strict=True))
        assert torch.equal(changed[0], model(x)[0])
        assert relative_error(changed[1], fast[1]) > 1e-3


def test_training_gradients_without_shortcuts_are_the_same():
    model, x = small().double().train(), torch.randn(2, 3, 48, 40, dtype=torch.double)
    model.norm0.weight.data.abs_().add_(0.1)  # a constant channel would make every maximum a tie
    parameters = list(model.parameters())
    ours = torch.autograd.grad(sum(m.square().mean() for m in model(x)), parameters)
    with plain_networks():
        plain = torch.autograd.grad(sum(m.square().mean() for m in model(x)), parameters)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("attention", [None, ATTENTION])
@pytest.mark.parametrize("size", [(32, 32), (50, 38)])
def test_fast_inference_of_images_gives_the_same(size, attention):
    model = small_lens(domain_attention=attention)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.bias, -1, 1)
    model.eval()
    stacks = torch.rand(2, 9, *size) * 255 - 50
    with torch.enable_grad():
        expected = model(stacks)
    with torch.no_grad():
        found = model(stacks)
        with plain_networks():
            without = model(stacks)
        if attention is None:  # the benchmark's reference
            plain = [x.unflatten(0, (2, 3)).transpose(1, 2).flatten(1, 2) for x in plain_backbone(model, stacks)]
            assert all(
                torch.allclose(x, y, rtol=1e-3, atol=1e-3 * float(y.abs().max()))
                for x, y in zip(plain, found, strict=True)
            )
    for x, y, z in zip(found, expected, without, strict=True):
        assert x.shape == y.shape
        assert torch.allclose(x, y, rtol=1e-3, atol=1e-3 * float(y.detach().abs().max()))
        assert torch.allclose(z, y, rtol=1e-3, atol=1e-3 * float(y.detach().abs().max()))


@pytest.mark.parametrize("size", [(32, 32), (50, 38)])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("attention", [None, ATTENTION])
def test_shared_images_give_the_same_to_the_last_bit(size, bf16, attention):
    model = small_lens(domain_attention=attention).eval()
    stacks = torch.rand(2, 9, *size) * 255 - 50
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        expected = model(stacks)
        found = model([model.image_features(images) for images in stacks.unflatten(1, (3, 3)).unbind(1)])
    for x, y in zip(found, expected, strict=True):
        assert torch.equal(torch.stack(x, 2).flatten(1, 2), y)


def test_lower_precision():
    model = small_lens().eval()
    stacks = torch.rand(1, 9, 32, 32) * 255 - 50
    with torch.no_grad():
        expected = model(stacks)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(stacks)
    for x, y in zip(found, expected, strict=True):
        assert (x.float() - y).abs().max() < 0.1 * y.abs().max()
