"""Start values of a backbone from the same backbone of another model."""

from __future__ import annotations

from mmengine.logging import print_log
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from mmpluld.errors import InputError
from mmpluld.zoo.download import local_checkpoint

__all__ = ["TrunkWeights"]

_PREFIX = "backbone."


@WEIGHT_INITIALIZERS.register_module()
class TrunkWeights:
    """Initialiser: load a backbone whole from a checkpoint that has the same one as ``backbone``.

    Use it as ``init_cfg=dict(type='TrunkWeights', checkpoint='FILE')`` of a backbone. mmengine's ``Pretrained`` goes on
    with a random start where names or shapes differ; here every tensor must be there and fit.

    Args:
        checkpoint: A local file, a URL or ``zoo:NAME``.

    Raises:
        InputError: If the checkpoint cannot be had or read, or its backbone is another one.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into ``module``."""
        # Only here: it makes MMEngine read checkpoints safely, which others who take our models did not ask for.
        from mmpluld.engine.checkpoint import load_checkpoint_safely, misfits, state_dict_of

        state = state_dict_of(load_checkpoint_safely(local_checkpoint(self.checkpoint)), self.checkpoint)
        weights = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
        problems = misfits(weights, module)
        if problems:
            raise InputError(
                f"{self.checkpoint}: its backbone is not that of the config, {problems}; take the weights of a model "
                "with the same backbone"
            )
        module.load_state_dict(weights)
        print_log(f"{self.checkpoint}: loaded the backbone, {len(weights)} tensors", logger="current")
