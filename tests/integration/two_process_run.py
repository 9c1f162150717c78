"""Run by test_two_processes.py: trains each config in one process and in two, as the name of the config says.

Arguments: configs named NAME-1.py and NAME-2.py; results go to folders of these names.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

torch.set_num_threads(1)

from mmpluld.compat.ops import install_ops  # noqa: E402

install_ops()

from mmdet.models.task_modules.samplers import RandomSampler  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.model import is_model_wrapper  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from torch.nn.modules.batchnorm import _BatchNorm  # noqa: E402

import mmpluld.datasets  # noqa: E402
import mmpluld.models  # noqa: E402, F401  loaded once, before the children are forked
from mmpluld.engine.run import train  # noqa: E402
from mmpluld.registry import HOOKS, TASK_UTILS  # noqa: E402


@TASK_UTILS.register_module()
class EvenSampler(RandomSampler):
    """As many boxes as ``RandomSampler`` draws, but evenly spread over the candidates.

    What a process draws at random depends on all it has drawn before, so two processes cannot draw what one draws.
    """

    def random_choice(self, gallery: torch.Tensor, num: int) -> torch.Tensor:
        return gallery[torch.linspace(0, len(gallery) - 1, num).long()]


@HOOKS.register_module()
class Witness(Hook):
    """Keeps batch norms as they start, and writes down the losses of this process and the weights."""

    def before_train(self, runner: Runner) -> None:
        self.steps: list[dict[str, Any]] = []
        assert is_model_wrapper(runner.model) == torch.distributed.is_initialized()
        self.save(runner, "start")

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        # Statistics over the batch of one process are not those over all, and SyncBatchNorm does not run on a CPU.
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, torch.Tensor] | None = None
    ) -> None:
        samples = data_batch["data_samples"]
        self.steps.append(
            {
                "dataset": samples[0].dataset,
                "lesions": [len(sample.gt_instances) for sample in samples],
                "losses": {key: value.item() for key, value in (outputs or {}).items() if "loss" in key},
            }
        )

    def after_train(self, runner: Runner) -> None:
        self.save(runner, "end")
        (Path(runner.work_dir) / f"steps_{runner.rank}.json").write_text(json.dumps(self.steps))

    @staticmethod
    def save(runner: Runner, name: str) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        torch.save(model.state_dict(), Path(runner.work_dir) / f"{name}_{runner.rank}.pth")


def train_all(configs: Sequence[Path], rank: int, processes: int, meeting: str) -> None:
    """Train in this process, which is number ``rank``; ``meeting`` is a file by which the processes find each other."""
    if processes > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
        # `train` would do it by an address; a file needs no free port.
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    for config in configs:
        train(config, work_dir=config.with_suffix(""), launcher="pytorch" if processes > 1 else "none")


def fork(configs: Sequence[Path], rank: int, processes: int, meeting: str) -> int:
    """``train_all`` in a child process, whose number is returned."""
    child = os.fork()
    if child == 0:
        try:
            train_all(configs, rank, processes, meeting)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def main() -> None:
    configs = [Path(argument) for argument in sys.argv[1:]]
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            mine = [config for config in configs if config.stem.endswith(f"-{processes}")]
            children = [fork(mine, rank, processes, f"{folder}/meeting") for rank in range(processes)]
            failed = [child for child in children if os.waitpid(child, 0)[1]]
        if failed:
            raise SystemExit(f"{len(failed)} of {processes} training processes failed")


if __name__ == "__main__":
    main()
