"""What ``mmengine.hub.get_model("mmpluld::...")`` calls, by the name that it expects."""

from __future__ import annotations

import datetime

__all__ = ["register_all_modules"]


def register_all_modules(init_default_scope: bool = True) -> None:
    """Import every module that registers something.

    Args:
        init_default_scope: Also make ``mmpluld`` the scope in which names without a prefix are looked up.
    """
    from mmengine.registry import DefaultScope, Registry

    from mmpluld import registry

    for value in vars(registry).values():
        if isinstance(value, Registry):
            value.import_from_location()
    current = DefaultScope.get_current_instance()
    if init_default_scope and (current is None or current.scope_name != "mmpluld"):
        DefaultScope.get_instance(f"mmpluld-{datetime.datetime.now()}", scope_name="mmpluld")
