"""Training stops at what is no number, says where, and leaves the checkpoints as they are."""

from __future__ import annotations

import copy
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from mmpluld.engine.finite import all_finite, non_finite
from mmpluld.engine.guard import TrainingDivergedError
from mmpluld.errors import InputError

from .toys import Bad, Huge, Toy, loader, runner

GOOD = ["good"] * 4
SGD = {"type": "SGD", "lr": 0.1}


def files(folder: Path) -> dict[str, bytes]:
    """What a work folder holds, but for the config that each run writes."""
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file() and path.suffix != ".py"}


class Steps(Hook):
    """Counts the steps of the optimizer and keeps the weights."""

    def before_train(self, runner: Any) -> None:
        self.weights = [copy.deepcopy(runner.model.state_dict())]
        runner.optim_wrapper.optimizer.register_step_post_hook(
            lambda *_: self.weights.append(copy.deepcopy(runner.model.state_dict()))
        )


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("bad_loss", r"the loss is not finite \(loss_one nan\)"),
        (
            "bad_gradient",
            r"the gradient of 4 tensors is not finite \(layer\.weight, layer\.bias, sum\.weight and 1 more\)",
        ),
    ],
)
def test_stops_before_the_step_and_keeps_the_checkpoints(tmp_path: Path, kind: str, what: str) -> None:
    runner(tmp_path / kind, GOOD, epochs=1).train()
    before = files(tmp_path / kind)
    assert "epoch_1.pth" in before
    steps = Steps()
    run = runner(tmp_path / kind, ["good", "good", "good", kind], resume=True, custom_hooks=[steps])
    with pytest.raises(TrainingDivergedError) as error:
        run.train()
    text = str(error.value)
    assert re.match(rf"epoch 2, iteration 4: {what}; samples: /data/v2: volume v2, slice 2, /data/v3: volume v3,", text)
    assert text.endswith("or look at these samples")
    assert f"the last checkpoint is {tmp_path / kind / 'epoch_1.pth'}" in text
    assert len(steps.weights) == 2  # before, and after the good batch
    assert all(torch.equal(value, steps.weights[-1][key]) for key, value in run.model.state_dict().items())
    assert files(tmp_path / kind) == before


def test_gradient_of_accumulated_batches_names_all_of_them(tmp_path: Path) -> None:
    steps = Steps()
    run = runner(
        tmp_path / "sum",
        ["good", "good", "bad_gradient", "good", "good", "good", "good", "good"],
        optim_wrapper={"optimizer": SGD, "accumulative_counts": 2},
        train_dataloader=loader(["good", "good", "bad_gradient", "good"] + GOOD, batch_size=1),
        custom_hooks=[steps],
    )
    with pytest.raises(
        TrainingDivergedError, match=r"iteration 4: the gradient .* v2, slice 2, .* v3, slice 3; l"
    ) as error:
        run.train()
    assert "v1" not in str(error.value)  # its step was taken
    assert "no checkpoint was written before" in str(error.value)
    assert len(steps.weights) == 2


def test_large_numbers_are_finite(tmp_path: Path) -> None:
    """Gradients of which a norm would overflow are no reason to stop, where the step does not overflow."""

    run = runner(
        tmp_path / "huge", GOOD, epochs=1, model=Huge(), optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e-38}}
    )
    run.train()
    assert (tmp_path / "huge" / "epoch_1.pth").is_file()


def test_weights_that_overflow_are_not_written(tmp_path: Path) -> None:
    run = runner(tmp_path / "over", GOOD[:2], model=Huge(), optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e20}})
    with pytest.raises(
        TrainingDivergedError, match=r"epoch 1, .* tensors of the weights are not finite \(layer.weight"
    ):
        run.train()
    assert not list((tmp_path / "over").glob("*.pth"))
    assert not (tmp_path / "over" / "last_checkpoint").exists()


def test_weights_at_the_start(tmp_path: Path) -> None:
    model = Toy()
    model.layer.bias.data[0] = float("inf")
    with pytest.raises(InputError, match=r"1 tensors .* before training starts \(layer\.bias\); check load_from"):
        runner(tmp_path / "start", GOOD, model=model).train()


@OPTIM_WRAPPERS.register_module(force=True)
class CpuAmp(AmpOptimWrapper):
    """mmengine's wrapper insists on a GPU."""

    def __init__(self, init_scale: float, **kwargs: Any) -> None:
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.cast_dtype = torch.bfloat16
        self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)


def test_steps_that_mixed_precision_leaves_out_are_normal(tmp_path: Path) -> None:
    steps = Steps()
    wrapper = {"type": "CpuAmp", "init_scale": 64.0, "optimizer": SGD}
    run = runner(
        tmp_path / "amp", ["good", "bad_gradient", "good", "good"], 2, optim_wrapper=wrapper, custom_hooks=[steps]
    )
    run.train()
    assert len(steps.weights) == 3  # of four batches two have no step
    assert run.optim_wrapper.loss_scaler.get_scale() == 16


def test_mixed_precision_without_a_scale_left_stops(tmp_path: Path) -> None:
    wrapper = {"type": "CpuAmp", "init_scale": 1.5e-4, "optimizer": SGD}
    run = runner(tmp_path / "low", ["good", "bad_gradient"], 9, optim_wrapper=wrapper)
    with pytest.raises(
        TrainingDivergedError, match=r"epoch 1, .* although the loss scale fell to 7.5e-05; samples: .*v1"
    ):
        run.train()


def in_two_processes(folder: Path, kinds: dict[int, list[str]], **changes: Any) -> list[str]:
    """Train with other samples in each process; what each says in the end."""

    def child(rank: int) -> None:
        torch.set_num_threads(1)
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
        wrapper = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
        try:
            runner(
                folder / "work",
                GOOD,
                train_dataloader=loader(kinds[rank]) | {"sampler": torch.utils.data.SequentialSampler(kinds[rank])},
                launcher="pytorch",
                cfg={"model_wrapper_cfg": wrapper},
                **changes,
            ).train()
        except Exception as error:
            (folder / f"said_{rank}").write_text(f"{type(error).__name__}: {error}")
        os._exit(0)

    children = []
    for rank in range(2):
        number = os.fork()
        if number == 0:
            try:
                child(rank)
            finally:
                os._exit(1)
        children.append(number)
    end = time.monotonic() + 60
    while children and time.monotonic() < end:
        children = [number for number in children if os.waitpid(number, os.WNOHANG)[0] == 0]
        time.sleep(0.05)
    for number in children:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
    assert not children, "the processes hang"
    return [(folder / f"said_{rank}").read_text() for rank in range(2)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_all_processes_stop_together(tmp_path: Path) -> None:
    bad = ["good", "good", "good", "bad_loss"]
    first, second = in_two_processes(
        tmp_path, {0: GOOD, 1: bad}, optim_wrapper={"optimizer": SGD, "accumulative_counts": 3}
    )
    assert first == "TrainingDivergedError: stopped together with process 1, which says why"
    assert re.match(
        r"TrainingDivergedError: epoch 1, iteration 2: the loss .* in process 1; samples: .*v2, .*v3", second
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_gradient_of_any_process_stops_all(tmp_path: Path) -> None:
    first, second = in_two_processes(tmp_path, {0: GOOD, 1: ["good", "bad_gradient", "good", "good"]})
    assert re.match(
        r"TrainingDivergedError: epoch 1, iteration 1: the gradient of 4 .* in process 0, 1; samples: ", first
    )
    assert second == "TrainingDivergedError: stopped together with process 0, which says why"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_one_value_is_found_wherever_it_is(value: float, dtype: torch.dtype) -> None:
    for place in (0, 7, 99):
        tensor = torch.zeros(100, dtype=dtype)
        assert all_finite(tensor)
        tensor[place] = value
        assert not all_finite(tensor)
        assert not all_finite(tensor.reshape(10, 10).t())
        assert not all_finite(tensor[place].expand(1000, 1000))


def test_sparse_gradients_are_looked_at_too(tmp_path: Path) -> None:
    class Table(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(4, 1, sparse=True)

        def forward(self, inputs: Any, data_samples: Any = None, mode: str = "loss") -> Any:
            value = self.table(torch.tensor([1])).sum()
            return {"loss": Bad.apply(value) if data_samples[1].kind == "bad_gradient" else value}

    plain = {"optimizer": SGD}
    runner(tmp_path / "good", GOOD, model=Table(), optim_wrapper=plain).train()
    with pytest.raises(TrainingDivergedError, match=r"gradient of 1 tensors .*table.weight.*samples: .*v1"):
        runner(tmp_path / "bad", ["good", "bad_gradient"], model=Table(), optim_wrapper=plain).train()


def test_names_of_nested_tensors() -> None:
    bad, good = torch.tensor([float("nan")]), torch.ones(2)
    node = {"a": good, "b": [good, {"c": bad}], 3: (bad, "text", None), "n": torch.arange(3), "e": torch.zeros(0)}
    assert list(non_finite(node)) == ["b.1.c", "3.0"]
    assert not all_finite(torch.tensor([[0.0, float("nan")]]).to_sparse())
