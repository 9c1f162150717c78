from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.a3d_backbone import plain_forward
from mmpluld.errors import InputError
from mmpluld.models.backbones import TruncatedDenseNet
from mmpluld.models.data_preprocessors import SliceStacks

MIXERS = {
    "a3d": {"type": "A3DMixer"},
    "tsm": {"type": "TSMMixer"},
    "alignshift": {"type": "AlignShiftMixer"},
    "alignshift zero": {"type": "AlignShiftMixer", "zero_padding": True},
    "none": None,
}
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


def relative_error(ours: Tensor, reference: Tensor) -> float:
    return float((ours.float() - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize(
    ("num_slices", "total"), [(3, 8_613_664), (7, 15_113_248), (9, 18_661_408)], ids=lambda value: str(value)
)
def test_parameters_and_shapes_of_the_full_size(num_slices, total):
    with torch.device("meta"):
        model = TruncatedDenseNet(num_slices)
        maps = model(torch.empty(1, num_slices, 512, 512))
    trunk, norms, reduction = 4_209_728, 51_392, 1_376_256 * num_slices
    assert total == trunk + norms + reduction + 24_864 * num_slices**2
    assert sum(p.numel() for p in model.parameters()) == total
    assert [tuple(m.shape) for m in maps] == [(1, 256, 128, 128), (1, 512, 64, 64), (1, 1024, 32, 32)]


@pytest.mark.parametrize("mixer", ["TSMMixer", "AlignShiftMixer"])
@pytest.mark.parametrize(
    ("num_slices", "total"), [(3, 8_389_888), (7, 13_894_912), (9, 16_647_424)], ids=lambda value: str(value)
)
def test_shifts_have_no_parameters(mixer, num_slices, total):
    with torch.device("meta"):
        model = TruncatedDenseNet(num_slices, slice_mixer={"type": mixer})
        maps = model(SliceStacks(torch.empty(2, num_slices, 128, 128), torch.empty(2)))
    assert total == 4_209_728 + 51_392 + 1_376_256 * num_slices
    assert sum(p.numel() for p in model.parameters()) == total
    assert [tuple(m.shape) for m in maps] == [(2, 256, 32, 32), (2, 512, 16, 16), (2, 1024, 8, 8)]


@pytest.mark.parametrize("num_slices", [3, 5, 7, 9])
def test_slices_as_channels(num_slices):
    with torch.device("meta"):
        model = TruncatedDenseNet(num_slices, slices_as="channels", slice_mixer=None)
        maps = model(torch.empty(2, num_slices, 128, 128))
    # The colour stem of DenseNet-121 with other channels; no depth to reduce.
    assert sum(p.numel() for p in model.parameters()) == 4_209_728 + 51_392 + (num_slices - 1) * 64 * 49
    assert [tuple(m.shape) for m in maps] == [(2, 256, 32, 32), (2, 512, 16, 16), (2, 1024, 8, 8)]
    assert model.state_dict()["conv0.weight"].shape == (64, num_slices, 7, 7)
    assert not [name for name in model.state_dict() if name.startswith("reductionz")]


def test_one_slice_as_channel_equals_one_slice_deep():
    flat, deep = (small(1, slice_mixer=None, slices_as=kind) for kind in ("channels", "depth"))
    state = deep.state_dict()
    flat.load_state_dict({key: value for key, value in state.items() if not key.startswith("reductionz")})
    for i in (1, 2, 3):
        weight = getattr(deep, f"reductionz{i}").reduction_z_conv.weight
        weight.data.copy_(torch.eye(len(weight)).view(weight.shape))
    x = torch.randn(2, 1, 48, 48)
    for a, b in zip(flat(x), deep(x), strict=True):
        torch.testing.assert_close(a, b)


def test_tensor_names_are_those_of_densenet():
    state = small().state_dict()
    assert state["conv0.weight"].shape == (8, 1, 7, 7)
    assert state["denseblock2.denselayer3.conv1.weight"].shape == (8, 16, 1, 1)
    assert state["denseblock2.denselayer3.conv1.mixer.weight"].shape == (3, 3, 16)
    assert state["denseblock2.denselayer3.conv2.weight"].shape == (4, 8, 3, 3)
    assert state["transition1.conv.weight"].shape == (8, 16, 1, 1)
    assert state["reductionz1.reduction_z_conv.weight"].shape == (16, 16, 3, 1, 1)
    assert {"norm0.running_var", "denseblock1.denselayer1.norm2.bias", "transition2.norm.weight"} <= set(state)


@pytest.mark.parametrize("fast", [True, False])
def test_each_stack_is_mixed_by_its_own_interval(fast):
    model, x = small(5, slice_mixer={"type": "AlignShiftMixer"}), torch.randn(2, 5, 48, 48)
    with torch.set_grad_enabled(not fast):
        both = model(SliceStacks(x, torch.tensor([5.0, 1.0])))
        alone = [model(SliceStacks(x[i : i + 1], torch.tensor([t]))) for i, t in enumerate((5.0, 1.0))]
        other = model(SliceStacks(x, torch.tensor([1.0, 1.0])))
    for level, maps in enumerate(both):
        torch.testing.assert_close(maps, torch.cat([single[level] for single in alone]))
        assert relative_error(maps[0].detach(), other[level][0].detach()) > 1e-4


@pytest.mark.parametrize("fast", [True, False])
def test_interval_that_is_needed_but_not_given(fast):
    model = small(slice_mixer={"type": "AlignShiftMixer"})
    with torch.set_grad_enabled(not fast), pytest.raises(InputError, match="ThicknessPreprocessor"):
        model(torch.zeros(1, 3, 64, 64))


def test_bfloat16_is_close_and_returned():
    model, x = small(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        reference = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = model(x)
    for a, b in zip(ours, reference, strict=True):
        assert a.dtype == torch.bfloat16
        assert float((a.float() - b).norm() / b.norm()) < 0.02


def test_training_gradients_equal_the_plain_formulation():
    # In double precision: in single precision a value next to zero may fall on either side of a ReLU.
    model, x = small().double().train(), torch.randn(2, 3, 48, 40, dtype=torch.double)
    model.norm0.weight.data.abs_().add_(0.1)  # a constant channel would make every maximum a tie
    parameters = list(model.parameters())
    ours = torch.autograd.grad(sum(m.square().mean() for m in model(x)), parameters)
    plain = torch.autograd.grad(sum(m.square().mean() for m in plain_forward(model, x)), parameters)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


def test_every_parameter_gets_a_gradient():
    model = small().train()
    sum(m.sum() for m in model(torch.randn(2, 3, 64, 64))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("mixer", ["a3d", "alignshift"])
def test_checkpointing_changes_neither_gradients_nor_statistics(mixer, synced):
    # Layer by layer; a whole block would take a shortcut on a CPU.
    thickness_mm, results = torch.tensor([5.0, 1.0]), []
    for with_cp in (False, True):
        block = small(with_cp=with_cp, slice_mixer=MIXERS[mixer]).denseblock2.train()
        if synced:  # as in a training on several GPUs
            block = torch.nn.SyncBatchNorm.convert_sync_batchnorm(block)
        features = [torch.randn(2, block.in_channels, 3, 12, 12, generator=torch.Generator().manual_seed(0))]
        for layer in block.children():
            features.append(layer(features, thickness_mm))
        sum(f.square().mean() for f in features).backward()
        results.append(({n: p.grad for n, p in block.named_parameters()}, dict(block.named_buffers())))
    for plain, checkpointed in zip(*results, strict=True):
        for name, value in plain.items():
            assert torch.equal(value, checkpointed[name]), name


def test_without_mixing_slices_stay_apart():
    model, x = small(slice_mixer=None), torch.randn(1, 3, 32, 32)
    model.reductionz1.reduction_z_conv.weight.data[:, :, 1:] = 0  # the first map reads the first slice only
    changed = x.clone()
    changed[:, 1:] += 1
    with torch.no_grad():
        assert torch.equal(model(x)[0], model(changed)[0])


def test_identity_mixing_equals_none():
    mixed, apart = small(), small(slice_mixer=None)
    apart.load_state_dict({k: v for k, v in mixed.state_dict().items() if ".mixer." not in k})
    for name, value in mixed.named_parameters():
        if ".mixer." in name:
            value.data.copy_(torch.eye(3)[:, :, None].expand_as(value))
    x = torch.randn(1, 3, 32, 32)
    for a, b in zip(mixed(x), apart(x), strict=True):
        torch.testing.assert_close(a, b)


def test_two_runs_have_equal_bits():
    model, x = small(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model(x), model(x), strict=True))


def test_wrong_number_of_slices_is_named():
    with pytest.raises(InputError, match=r"\(1, 5, 64, 64\).*needs \(B, 3, H, W\)"):
        small()(torch.zeros(1, 5, 64, 64))


def test_no_stack_is_refused():
    for context in (torch.no_grad(), torch.enable_grad()):
        with context, pytest.raises(InputError, match=r"\(0, 3, 64, 64\): the backbone needs one stack or more"):
            small()(torch.zeros(0, 3, 64, 64))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slices_as": "chanels"}, "slices_as: 'chanels' is not one of depth, channels"),
        ({"slices_as": "channels"}, "slices_as='channels' leaves no slices to mix; set slice_mixer=None"),
    ],
)
def test_bad_use_of_slices(settings, message):
    with pytest.raises(InputError, match=message):
        TruncatedDenseNet(3, **settings)


def test_other_norms_are_refused():
    with pytest.raises(InputError, match="GN is no batch norm"):
        TruncatedDenseNet(3, norm_cfg={"type": "GN", "num_groups": 2})
    for setting in ("affine", "track_running_stats"):
        with pytest.raises(InputError, match=f"^norm_cfg: {setting} is False; allowed is True, the default$"):
            TruncatedDenseNet(3, norm_cfg={"type": "BN", setting: False})
