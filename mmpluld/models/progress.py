"""How far a training is, for parts of a model that change their ways in its course."""

from __future__ import annotations

from mmengine.logging import MessageHub

from mmpluld.errors import InputError

__all__ = ["has_begun"]


def has_begun(share: float, name: str) -> bool:
    """Whether a share of the iterations of the whole training is over.

    The runner counts them: the count is the same in all processes, and goes on where a training is resumed.

    Args:
        share: In [0, 1); at 0 nothing has to count.
        name: Of the setting, for the message.

    Raises:
        InputError: If no mmengine runner counts the iterations.
    """
    if share == 0:
        return True
    hub = MessageHub.get_current_instance()
    done, planned = hub.get_info("iter"), hub.get_info("max_iters")
    if done is None or planned is None:
        raise InputError(
            f"{name} is {share}, but no mmengine Runner counts the iterations; set it to 0 in a training loop of your "
            "own"
        )
    return bool(done >= share * planned)
