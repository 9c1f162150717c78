"""Walking nested dicts, lists and tuples, such as configs and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["nodes"]


def nodes(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """A node and all below it, each with its dotted place.

    Args:
        node: For example a config, or a state dict.
        place: Name of ``node`` itself.
    """
    yield place, node
    items: Any = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    for key, value in items:
        yield from nodes(value, f"{place}.{key}" if place else str(key))
