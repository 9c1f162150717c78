"""Training stops at the first loss, gradient or weight that is no number, in all processes together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from mmpluld.datasets.slice_pictures import sample_name
from mmpluld.engine.finite import all_finite, non_finite
from mmpluld.engine.wrapped import unwrapped
from mmpluld.errors import InputError, MMPluldError, name_some

__all__ = ["NonFiniteGuard", "TrainingDivergedError", "check_weights", "optim_wrappers"]

# Below it no scale of the loss is left that could make half-precision gradients finite.
_MIN_LOSS_SCALE = 1e-4
# So many batches are named at most when the gradient of several is not finite.
_MAX_BATCHES = 64


class TrainingDivergedError(MMPluldError):
    """A loss, a gradient or a weight is not finite (exit status 1)."""


def optim_wrappers(runner: Runner) -> dict[str, OptimWrapper]:
    """The runner's optimizers by name; a single one has the name ''."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.optim_wrappers) if isinstance(wrapper, OptimWrapperDict) else {"": wrapper}


def check_weights(runner: Runner) -> None:
    """Stop all processes if the weights of any are not finite; to be called by all of them, before a checkpoint.

    Raises:
        TrainingDivergedError: The message names the first tensors.
    """
    broken = list(non_finite(unwrapped(runner.model).state_dict()))
    found = f"{len(broken)} tensors of the weights are not finite ({name_some(broken)})" if broken else None
    if _anywhere(found is not None):
        _stop(runner, found, [])


class NonFiniteGuard(Hook):
    """Stops a training before it takes a step that spoils the weights, and keeps the checkpoints that there are.

    - Weights that are not finite at the start are refused, wherever they come from.
    - The losses of every iteration are looked at before their gradient is computed, and the gradients before the
      optimizer takes its step. The first that is not finite ends the training in all processes with a
      ``TrainingDivergedError`` that names the samples.
    - Mixed precision leaves out steps with gradients that overflow and lowers the scale of the loss. That is normal,
      until no scale is left (below 1e-4), which ends the training, too.

    A run from a config has this hook; it costs one look at the gradients for each step.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        """Look at the weights, and place the guards behind the losses and before the steps."""
        broken = list(non_finite(unwrapped(runner.model).state_dict()))
        if broken:
            raise InputError(
                f"{len(broken)} tensors of the weights are not finite before training starts ({name_some(broken)}); "
                "check load_from and the init_cfg of the model"
            )
        self.runner = runner
        self.batches: deque[list[str]] = deque(maxlen=_MAX_BATCHES)  # since the last step
        self.stepped = False
        runner.model.register_forward_hook(self._check_losses)
        for wrapper in optim_wrappers(runner).values():
            wrapper.optimizer.register_step_pre_hook(self._check_gradients)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Remember the names of the samples."""
        if self.stepped:
            self.batches.clear()
        self.stepped = False
        self.batches.append([sample_name(sample.metainfo) for sample in _samples(data_batch)])

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Tensor] | None = None
    ) -> None:
        """Where mixed precision took no step, see whether it still can."""
        if self.stepped:
            return
        for wrapper in optim_wrappers(runner).values():
            scaler = getattr(wrapper, "loss_scaler", None)
            if scaler is not None and scaler.is_enabled() and scaler.get_scale() < _MIN_LOSS_SCALE:
                found = f"the gradient stays not finite although the loss scale fell to {scaler.get_scale():g}"
                _stop(runner, found, [name for batch in self.batches for name in batch])

    def _check_losses(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        if not (module.training and isinstance(outputs, Mapping)):
            return
        parts = {key: _parts(value) for key, value in outputs.items() if "loss" in key}
        counted = {key: torch.stack([part.mean() for part in value]) for key, value in parts.items() if value}
        found = None
        if counted and not bool(torch.isfinite(torch.cat([*counted.values()])).all()):
            bad = [f"{key} {value.sum().item():g}" for key, value in counted.items() if not all_finite(value)]
            found = f"the loss is not finite ({name_some(bad)})"
        if _anywhere(found is not None):
            _stop(self.runner, found, self.batches[-1] if self.batches else [])

    def _check_gradients(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self.stepped = True
        if getattr(optimizer, "found_inf", None) is not None:  # a fused optimizer leaves the step out by itself
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        dense = [gradient for gradient in gradients if gradient.layout is torch.strided]
        found = None
        # The norm is quick, and finite only if all are; huge numbers may overflow in it.
        if len(dense) < len(gradients) or not bool(torch.isfinite(torch.nn.utils.get_total_norm(dense))):
            names = {id(parameter): name for name, parameter in unwrapped(self.runner.model).named_parameters()}
            bad = [
                names.get(id(parameter), "?")
                for parameter in parameters
                if parameter.grad is not None and not all_finite(parameter.grad)
            ]
            found = f"the gradient of {len(bad)} tensors is not finite ({name_some(bad)})" if bad else None
        if _anywhere(found is not None):
            _stop(self.runner, found, [name for batch in self.batches for name in batch])

    def __deepcopy__(self, memo: dict[int, Any]) -> NonFiniteGuard:
        """Copies of the model, as averages of weights start from, share the guard."""
        return self


def _parts(value: Any) -> list[Tensor]:
    """The tensors of a loss, which is one or a list of them, as mmengine sums them up."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return [part.detach() for part in parts if isinstance(part, Tensor) and part.is_floating_point() and part.numel()]


def _samples(batch: Any) -> Iterator[Any]:
    """All data samples of a batch, however it nests them."""
    if hasattr(batch, "metainfo"):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _samples(value)
    elif isinstance(batch, (list, tuple)):
        for value in batch:
            yield from _samples(value)


def _anywhere(found: bool) -> bool:
    """Whether any process found something; every process must ask."""
    if get_world_size() == 1:
        return found
    flag = torch.tensor(float(found))
    all_reduce(flag, op="max")
    return bool(flag.item())


def _stop(runner: Runner, found: str | None, samples: list[str]) -> None:
    """Raise in every process; the first that found something says it, with the samples of all that did."""
    reports = list(enumerate(all_gather_object((found, samples))))
    seen = [(rank, report) for rank, report in reports if report[0]]
    first, (text, _) = seen[0]
    where = f" in process {', '.join(str(rank) for rank, _ in seen)}" if len(reports) > 1 else ""
    if len(reports) > 1 and runner.rank != first:
        raise TrainingDivergedError(f"stopped together with process {first}, which says why")
    names = [name for _, (_, named) in seen for name in named]
    rates = sorted({group["lr"] for wrapper in optim_wrappers(runner).values() for group in wrapper.param_groups})
    last = runner.message_hub.runtime_info.get("last_ckpt")
    raise TrainingDivergedError(
        f"epoch {runner.epoch + 1}, iteration {runner.iter + 1}: {text}{where}"
        + (f"; samples: {name_some(names, 16)}" if names else "")
        + f"; learning rate {rates[-1]:g}. Stopped, "
        + (f"the last checkpoint is {last}" if last else "no checkpoint was written before")
        + "; lower optim_wrapper.optimizer.lr, clip gradients, or look at these samples"
    )
