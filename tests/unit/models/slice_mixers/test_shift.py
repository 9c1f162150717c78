from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mmpluld.errors import InputError
from mmpluld.models.slice_mixers import AlignShiftMixer, TSMMixer


def stack(channels: int = 17, slices: int = 5, batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, slices, 3, 4, dtype=torch.double)


def by_matrices(mixer, x: Tensor, thickness: Tensor) -> Tensor:
    """What ``matrices()`` says, one stack at a time."""
    result = x.clone()
    for b, t in enumerate(thickness):
        maps = mixer.matrices(t).to(x.dtype)
        result[b, : len(maps)] = torch.einsum("ckd,cdhw->ckhw", maps, x[b, : len(maps)])
    return result


def test_tsm_written_out():
    x = torch.arange(1.0, 4.0).view(1, 1, 3, 1, 1) + 10 * torch.arange(5).view(1, 5, 1, 1, 1)
    y = TSMMixer(5, 3, fold_div=4)(x)[0, :, :, 0, 0]  # one channel up, one down, three kept
    assert y.tolist() == [[2, 3, 0], [0, 11, 12], [21, 22, 23], [31, 32, 33], [41, 42, 43]]


def test_alignshift_written_out():
    x = torch.tensor([10.0, 20.0, 40.0]).view(1, 1, 3, 1, 1).expand(2, 4, 3, 1, 1)
    y = AlignShiftMixer(4, 3, fold_div=4)(x, torch.tensor([5.0, 4.0]))[..., 0, 0]
    # 5 mm: 2/5 of the neighbour; 4 mm: half of it. The end slice of each group is left alone.
    torch.testing.assert_close(y[0, 0], torch.tensor([14.0, 28.0, 40.0]))
    torch.testing.assert_close(y[0, 1], torch.tensor([10.0, 16.0, 32.0]))
    torch.testing.assert_close(y[1, 0], torch.tensor([15.0, 30.0, 40.0]))
    assert torch.equal(y[:, 2:], x[:, 2:, :, 0, 0])


def test_zero_padding_scales_the_end_slices():
    x = stack()
    kept, scaled = (AlignShiftMixer(17, 5, zero_padding=z)(x, torch.tensor([5.0, 5.0])) for z in (False, True))
    torch.testing.assert_close(scaled[:, :2, -1], 0.6 * x[:, :2, -1])
    torch.testing.assert_close(scaled[:, 2:4, 0], 0.6 * x[:, 2:4, 0])
    assert torch.equal(kept[:, :2, :-1], scaled[:, :2, :-1])
    assert torch.equal(kept[:, 2:4, 1:], scaled[:, 2:4, 1:])
    assert torch.equal(kept[:, 4:], scaled[:, 4:])


@pytest.mark.parametrize("thickness", [0.0, 0.7, 2.0])
def test_thin_slices_are_shifted_as_by_tsm(thickness):
    x, t = stack(), torch.full((2,), thickness)
    shifted = TSMMixer(17, 5)(x)
    assert torch.equal(AlignShiftMixer(17, 5, zero_padding=True)(x, t), shifted)
    kept_ends = AlignShiftMixer(17, 5)(x, t)
    assert torch.equal(kept_ends[:, :, 1:-1], shifted[:, :, 1:-1])
    assert torch.equal(kept_ends[:, :2, -1], x[:, :2, -1])
    assert torch.equal(kept_ends[:, 2:4, 0], x[:, 2:4, 0])


@pytest.mark.parametrize("thickness", [math.nan, -1.0, -math.inf, math.inf])
@pytest.mark.parametrize("zero_padding", [False, True])
def test_unknown_intervals_leave_the_slices_alone(thickness, zero_padding):
    x = stack().requires_grad_()
    y = AlignShiftMixer(17, 5, zero_padding=zero_padding)(x, torch.full((2,), thickness))
    assert torch.equal(y, x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_share_of_the_neighbour():
    share = AlignShiftMixer(8, 3).neighbour_share(torch.tensor([0.0, 1.0, 2.0, 4.0, 5.0, -0.0, math.nan, -3.0]))
    torch.testing.assert_close(share, torch.tensor([1.0, 1.0, 1.0, 0.5, 0.4, 1.0, 0.0, 0.0]))


def test_reference_thickness():
    share = AlignShiftMixer(8, 3, ref_thickness_mm=3.0).neighbour_share(torch.tensor([3.0, 6.0]))
    torch.testing.assert_close(share, torch.tensor([1.0, 0.5]))


@settings(max_examples=60)
@given(
    channels=st.integers(1, 20),
    slices=st.integers(1, 7),
    fold_div=st.integers(2, 9),
    zero_padding=st.booleans(),
    thickness=st.lists(st.one_of(st.floats(-2, 12), st.just(math.nan)), min_size=1, max_size=3),
)
def test_matrices_do_what_forward_does(channels, slices, fold_div, zero_padding, thickness):
    x, t = stack(channels, slices, len(thickness)), torch.tensor(thickness)
    mixers = [TSMMixer(channels, slices, fold_div), AlignShiftMixer(channels, slices, fold_div, 2.0, zero_padding)]
    for mixer in mixers:
        assert mixer.matrices(t[0]).shape == (2 * (channels // fold_div), slices, slices)
        torch.testing.assert_close(mixer(x, t), by_matrices(mixer, x, t), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mixer", [TSMMixer(9, 3, 4), AlignShiftMixer(9, 3, 4), AlignShiftMixer(9, 3, 4, 2.0, True)])
def test_gradients_behind_a_relu(mixer):
    # The input of the mixer is what the ReLU saved for its own gradient: it must not be written to.
    x = stack(9, 3)[..., :1, :2].clone().requires_grad_()
    thickness = torch.tensor([5.0, 1.0])
    assert torch.autograd.gradcheck(lambda x: mixer(F.relu(x), thickness), x)
    active = F.relu(x.detach())
    before = active.clone()
    mixer(active, thickness)
    assert torch.equal(active, before)


@pytest.mark.parametrize("mixer", [TSMMixer(8, 3), AlignShiftMixer(8, 3)])
def test_nothing_to_learn_and_empty_batch(mixer):
    assert not list(mixer.parameters())
    assert not mixer.state_dict()
    assert mixer(torch.zeros(0, 8, 3, 4, 4), torch.zeros(0)).shape == (0, 8, 3, 4, 4)
    assert "fold=1" in repr(mixer)


def test_half_precision_stays_half():
    x = stack().bfloat16()
    assert AlignShiftMixer(17, 5)(x, torch.tensor([5.0, 1.0])).dtype == torch.bfloat16


def test_missing_thickness_is_named():
    with pytest.raises(InputError, match="slice interval did not reach the model; set type='ThicknessPreprocessor'"):
        AlignShiftMixer(8, 3)(torch.zeros(1, 8, 3, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold_div": 1}, "fold_div is 1; allowed are numbers from 2"),
        ({"ref_thickness_mm": 0.0}, "ref_thickness_mm is 0.0; allowed is a number of mm above 0"),
        ({"ref_thickness_mm": math.nan}, "ref_thickness_mm is nan"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(InputError, match=message):
        AlignShiftMixer(8, 3, **arguments)
