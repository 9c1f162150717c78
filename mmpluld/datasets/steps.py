"""Pipelines as named steps, so that an inheriting config changes one step and leaves the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpluld.errors import InputError

__all__ = ["num_slices", "pipeline_steps", "type_name"]


def pipeline_steps(pipeline: Mapping[str, Any] | Sequence[Any] | None) -> list[Any]:
    """Return the transforms of a pipeline in their order.

    Args:
        pipeline: Transforms by name, and under ``order`` the names in their order, since mmengine sorts the keys of a
            config that it writes out. A name without a transform, or whose transform is None, is left out: a place for
            that of another config. A plain list of transforms is taken as it is.

    Raises:
        InputError: If there is no ``order``, or it lacks a step or has one twice.
    """
    if not isinstance(pipeline, Mapping):
        return list(pipeline or ())
    steps = {name: step for name, step in pipeline.items() if name != "order" and step}
    order = pipeline.get("order")
    if order is None:
        raise InputError(f"pipeline of steps {', '.join(steps)}: has no order; add order=[...] with their names")
    missing = sorted(set(steps) - set(order))
    if missing or len(set(order)) < len(order):
        problem = f"lacks {missing[0]!r}" if missing else "has a name twice"
        raise InputError(f"pipeline: order {problem}; every step stands there once: {', '.join(order)}")
    return [steps[name] for name in order if name in steps]


def num_slices(config: Mapping[str, Any]) -> int | None:
    """Slices of a sample, by the first ``LoadSliceStack`` of a config's test pipeline; None where there is none."""
    steps = pipeline_steps(config.get("test_dataloader", {}).get("dataset", {}).get("pipeline"))
    return next((int(step["num_slices"]) for step in steps if type_name(step) == "LoadSliceStack"), None)


def type_name(part: Mapping[str, Any] | None) -> str:
    """Name of the class that a part of a config asks for, by name or itself, without its scope; empty without one."""
    kind = (part or {}).get("type", "")
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]
