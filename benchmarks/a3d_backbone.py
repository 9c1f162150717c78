"""A3D DenseNet backbone: the model's own code against a plain formulation of the same network.

The plain formulation is what one writes down first: einsum mixing, 1 x k x k convolutions, separate batch norms,
concatenation. It runs as PyTorch runs by default; our code runs as our commands run it, that is after
``tune_allocator``. As a process cannot go back to the default allocator, each has its own; they take turns.

Run: python -m benchmarks.a3d_backbone
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpluld.compat.allocator import tune_allocator
from mmpluld.registry import MODELS

BARS = {"inference float32": 0.45, "inference bfloat16": 0.30, "training step float32": 0.60}
NUM_SLICES, REPEATS = 7, 3
GIGAFLOP_512 = 231.0
"""Arithmetic of the plain formulation on 7 slices of 512 x 512; it grows with the number of pixels."""


def plain_conv(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    """Per-slice convolution as a 3D convolution."""
    return F.conv3d(x, weight.unsqueeze(2), stride=(1, stride, stride), padding=(0, padding, padding))


def plain_norm(norm: Any, x: Tensor) -> Tensor:
    """Batch norm and ReLU; running statistics are left alone."""
    mean, var = (None, None) if norm.training else (norm.running_mean, norm.running_var)
    return F.relu(F.batch_norm(x, mean, var, norm.weight, norm.bias, training=norm.training))


def plain_mixing_conv(conv: Any, x: Tensor, padding: int = 0) -> Tensor:
    """Slice mixing and convolution."""
    mixed = torch.einsum("bcdhw,dkc->bckhw", x, conv.mixer.weight)
    return plain_conv(mixed, conv.weight, padding=padding)


def plain_forward(model: Any, x: Tensor) -> list[Tensor]:
    """The maps of ``TruncatedDenseNet`` for ``x`` (B, D, H, W), with the model's parameters."""
    x = plain_norm(model.norm0, plain_conv(x.unsqueeze(1), model.conv0.weight, 2, 3))
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    maps = []
    for i in range(1, model.num_blocks + 1):
        features = [x]
        for layer in getattr(model, f"denseblock{i}").children():
            hidden = plain_mixing_conv(layer.conv1, plain_norm(layer.norm1, torch.cat(features, 1)))
            features.append(plain_mixing_conv(layer.conv2, plain_norm(layer.norm2, hidden), padding=1))
        x = torch.cat(features, 1)
        maps.append(F.conv3d(x, getattr(model, f"reductionz{i}").reduction_z_conv.weight).squeeze(2))
        if i < model.num_blocks:
            transition = getattr(model, f"transition{i}")
            x = F.avg_pool3d(plain_conv(plain_norm(transition.norm, x), transition.conv.weight), (1, 2, 2))
    return maps


def build_model() -> nn.Module:
    """The full A3D backbone with norms away from their start values, so that nothing cancels by luck."""
    torch.manual_seed(0)
    model = MODELS.build({"type": "TruncatedDenseNet", "num_slices": NUM_SLICES})
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.5)
    return model.eval()


def _tasks(model: Any, x: Tensor) -> dict[str, Callable[[], list[Tensor]]]:
    """What a worker can be asked to run."""

    def ours() -> list[Tensor]:
        with torch.no_grad():
            return list(model.eval()(x))

    def ours_bfloat16() -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return [m.float() for m in ours()]

    def plain() -> list[Tensor]:
        with torch.no_grad():
            return plain_forward(model.eval(), x)

    def step(forward: Callable[[], Any]) -> list[Tensor]:
        model.train()
        loss = sum(m.square().mean() for m in forward())
        return list(torch.autograd.grad(loss, list(model.parameters())))

    def gemm() -> list[Tensor]:
        return [torch.mm(torch.ones(2048, 2048), torch.ones(2048, 2048))]

    return {
        "plain": plain,
        "inference float32": ours,
        "inference bfloat16": ours_bfloat16,
        "plain step": lambda: step(lambda: plain_forward(model, x)),
        "training step float32": lambda: step(lambda: model(x)),
        "gemm": gemm,
    }


def _work(connection: Connection, tuned: bool, size: int) -> None:
    """Serve (task, whether to send its results back) until None comes; answer with seconds and results."""
    if tuned:
        tune_allocator()
    model = build_model()
    tasks = _tasks(model, torch.randn(1, NUM_SLICES, size, size))
    while (request := connection.recv()) is not None:
        task, send = request
        start = time.perf_counter()
        results = tasks[task]()
        seconds = time.perf_counter() - start
        connection.send((seconds, [tensor.numpy() for tensor in results] if send else None))


class Worker:
    """A process with its own allocator settings."""

    def __init__(self, tuned: bool, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, tuned, size), daemon=True)
        self.process.start()

    def seconds(self, task: str) -> float:
        """Time of one run."""
        self.connection.send((task, False))
        return float(self.connection.recv()[0])

    def results(self, task: str) -> list[Any]:
        """Arrays that the task computes; also serves as its warm-up."""
        self.connection.send((task, True))
        return list(self.connection.recv()[1])

    def close(self) -> None:
        """End the process."""
        self.connection.send(None)
        self.process.join()


def _error(ours: list[Any], plain: list[Any]) -> float:
    """Largest absolute difference relative to the largest value of each array, over all arrays."""
    return max(float(abs(a - b).max() / abs(b).max()) for a, b in zip(ours, plain, strict=True))


def _compare(size: int, plain_task: str, tasks: list[str], repeats: int) -> list[dict[str, Any]]:
    """Rows for ``tasks`` against ``plain_task``; default and tuned allocator take turns."""
    default, tuned = Worker(False, size), Worker(True, size)
    reference = default.results(plain_task)
    errors = {task: _error(tuned.results(task), reference) for task in tasks}
    # A plain training step holds 8 GB; a second process that keeps as much would not fit on a small machine.
    equal = plain_task == "plain"
    if equal:
        tuned.seconds(plain_task)
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        times.setdefault("plain", []).append(default.seconds(plain_task))
        if equal:
            times.setdefault("plain, tuned", []).append(tuned.seconds(plain_task))
        for task in tasks:
            times.setdefault(task, []).append(tuned.seconds(task))
    peak = 2 * 2.048**3 / min(tuned.seconds("gemm") for _ in range(5))
    default.close()
    tuned.close()
    medians = {name: statistics.median(values) for name, values in times.items()}
    work = GIGAFLOP_512 * (size / 512) ** 2 * (1 if equal else 3)
    return [
        {
            "task": task,
            "plain s": medians["plain"],
            "ours s": medians[task],
            "ratio": medians[task] / medians["plain"],
            "bar": BARS[task],
            "ratio, same allocator": medians[task] / medians["plain, tuned"] if equal else "-",
            "largest error": errors[task],
            "of float32 peak": work / medians[task] / peak,
        }
        for task in tasks
    ]


def run(size: int = 512, repeats: int = REPEATS) -> dict[str, Any]:
    """Compare on one stack of 7 slices of ``size`` x ``size``; at 512 it takes some minutes and 12 GB of memory."""
    rows = _compare(size, "plain", ["inference float32", "inference bfloat16"], repeats)
    rows += _compare(size, "plain step", ["training step float32"], repeats)
    bars = ", ".join(f"{task} at most {bar}" for task, bar in BARS.items())
    return {
        "name": f"A3D backbone, 7 x {size} x {size}",
        "bar": f"time relative to the plain formulation (float32, default allocator): {bars}; "
        "inference float32 equal to 1e-4 of the largest output",
        "rows": rows,
    }


if __name__ == "__main__":
    for row in run()["rows"]:
        print({key: round(value, 7) if isinstance(value, float) else value for key, value in row.items()})
