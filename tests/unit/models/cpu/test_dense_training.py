"""The fast training path against the layers of the same block, run one after the other by autograd."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mmpluld.models.backbones.truncated_densenet import DenseBlock
from mmpluld.models.cpu import TRAIN_BLOCK, dense_training, plain_networks
from mmpluld.models.cpu.batch_norm_relu import BatchNormReLU, channel_statistics
from mmpluld.models.cpu.chunks import Chunks, nearest_divisor

MIXERS = {
    "a3d": {"type": "A3DMixer"},
    "tsm": {"type": "TSMMixer"},
    "alignshift": {"type": "AlignShiftMixer"},
    "none": None,
}
THICKNESS_MM = torch.tensor([1.0, 5.0, float("nan")], dtype=torch.float64)


def dense_block(mixer: str, with_cp: bool = False, norm_cfg: dict | None = None) -> DenseBlock:
    """Three layers on three slices, in double precision; norms of either sign, one with a zero weight."""
    torch.manual_seed(0)
    settings = {"bn_size": 4, "num_slices": 3, "slice_mixer": MIXERS[mixer], "with_cp": with_cp}
    block = DenseBlock(3, 9, 4, norm_cfg=norm_cfg or {"type": "BN"}, **settings).double()
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, -0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.5)
            norm.weight.data[2] = 0.0
    return block


def stacks(batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 9, 3, 6, 5, dtype=torch.float64, generator=generator).requires_grad_()


def plain(block: DenseBlock, x: Tensor, thickness_mm: Tensor | None) -> Tensor:
    with plain_networks():
        return block(x, thickness_mm)


def outcome(run, block: DenseBlock, x: Tensor, thickness_mm: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients, and the buffers after the run."""
    block = copy.deepcopy(block).train()
    out = run(block, x, thickness_mm)
    weight = torch.linspace(0.0, 30.0, out.numel(), dtype=out.dtype).sin().view(out.shape)
    loss = (weight * out * out).sum()
    return [out.detach(), *torch.autograd.grad(loss, [x, *block.parameters()])], list(block.buffers())


def assert_close(ours: list[Tensor], reference: list[Tensor], tolerance: float) -> None:
    for a, b in zip(ours, reference, strict=True):
        assert float((a.double() - b.double()).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("values", [1 << 20, 4000, 300])
@pytest.mark.parametrize("mixer", MIXERS)
def test_outputs_gradients_and_statistics_equal_the_layers(mixer, values, monkeypatch):
    monkeypatch.setattr(dense_training, "_CHUNK_VALUES", values)
    block, x = dense_block(mixer), stacks()
    assert TRAIN_BLOCK.serves(block, x)
    ours, our_buffers = outcome(DenseBlock.forward, block, x, THICKNESS_MM)
    reference, buffers = outcome(plain, block, x, THICKNESS_MM)
    # Shares of neighbouring slices are in single precision.
    tolerance = 1e-6 if mixer == "alignshift" else 1e-11
    assert_close(ours, reference, tolerance)
    assert_close(our_buffers, buffers, tolerance)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_follow_the_momentum(momentum):
    block = dense_block("a3d")
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = momentum
    ours, reference = copy.deepcopy(block).train(), copy.deepcopy(block).train()
    for x in (stacks(3), 2.0 * stacks(2)):
        ours(x)
        plain(reference, x, None)
    assert_close(list(ours.buffers()), list(reference.buffers()), 1e-11)


def test_output_is_the_input_and_then_the_layers():
    block, x = dense_block("a3d").train(), stacks()
    out = block(x)
    assert out.shape == (3, 21, 3, 6, 5)
    assert torch.equal(out[:, :9], x)


def test_single_precision_is_close():
    block, x = dense_block("a3d"), stacks()
    reference, _ = outcome(plain, block, x, None)
    ours, _ = outcome(DenseBlock.forward, block.float(), x.detach().float().requires_grad_(), None)
    assert_close(ours, reference, 1e-4)


def test_two_runs_have_equal_bits():
    block, x = dense_block("a3d"), stacks()
    first, second = (outcome(DenseBlock.forward, block, x, None)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_layers_serve_where_the_fast_path_does_not():
    block, x = dense_block("a3d").train(), stacks()
    with torch.no_grad():
        assert not TRAIN_BLOCK.serves(block, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not TRAIN_BLOCK.serves(block, x)
    assert not TRAIN_BLOCK.serves(block, x.to("meta"))
    assert not TRAIN_BLOCK.serves(dense_block("a3d", norm_cfg={"type": "SyncBN"}).train(), x)
    assert not TRAIN_BLOCK.serves(dense_block("a3d").eval(), x)
    frozen = dense_block("a3d").train()
    frozen.denselayer2.norm1.eval()
    assert not TRAIN_BLOCK.serves(frozen, x)
    ours, _ = outcome(plain, block, x, None)
    with torch.random.fork_rng():
        reference, _ = outcome(plain, dense_block("a3d", with_cp=True), x, None)
    assert_close(ours, reference, 1e-12)


def test_norm_and_relu_by_hand():
    # xhat = (x - 1) / 2; weight -1 and bias 1 give 1 - xhat, which ReLU cuts from x = 3 on.
    norm = BatchNormReLU(*(torch.tensor([v]) for v in (-1.0, 1.0, 1.0, 4.0)), eps=0.0)
    x = torch.tensor([-1.0, 1.0, 2.0, 3.0, 5.0]).view(1, 1, 5)
    active = norm.activate(x, torch.empty_like(x))
    assert (norm.scale * active[0, 0]).tolist() == [2.0, 1.0, 0.5, 0.0, 0.0]
    assert norm.backward_(torch.ones_like(x), active).flatten().tolist() == [-1.0, -1.0, -1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("target", "together", "size", "number"),
    [(12, True, 12, 5), (24, True, 12, 5), (3, True, 3, 20), (100, True, 60, 1), (100, False, 12, 5), (1, True, 1, 60)],
)
def test_chunks_are_parts_of_a_stack_or_whole_stacks(target, together, size, number):
    x = torch.arange(5 * 2 * 3 * 12).view(5, 2, 3, 12)
    chunks = Chunks(5, 12, target, together)
    assert (chunks.size, chunks.number) == (size, number)
    split = chunks.split(x)
    assert split.shape == (number, 2, 3, size)
    assert torch.equal(chunks.join(split), x)
    images = x.transpose(1, 2).contiguous()
    for k in range(number):
        assert torch.equal(chunks.of_images(images, k).flatten(2), split[k])
        assert int(split[k].min()) // 72 == chunks.first_stack(k)


def test_nearest_divisor():
    assert [nearest_divisor(12, target) for target in (0.2, 1.0, 3.4, 5.1, 50.0)] == [1, 1, 3, 6, 12]


def test_statistics_by_hand():
    x = torch.tensor([[1.0, 3.0, 5.0, 7.0], [2.0, 2.0, 2.0, 2.0]]).view(2, 1, 2, 2).permute(2, 0, 1, 3)
    mean, var = channel_statistics(x)
    assert mean.tolist() == [4.0, 2.0]
    assert var.tolist() == [5.0, 0.0]
