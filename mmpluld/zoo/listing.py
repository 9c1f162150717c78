"""The zoo as a list for the terminal."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Any

from mmpluld.errors import InputError, did_you_mean
from mmpluld.text_table import text_table
from mmpluld.zoo.index import IMAGE, VOLUME, ZooModel, load_index

__all__ = ["as_records", "format_models", "select_models"]


def select_models(pattern: str = "*") -> list[ZooModel]:
    """Models whose name contains ``pattern``, or matches it where it has ``*``, ``?`` or ``[``.

    Raises:
        InputError: If none does; the message names the nearest.
    """
    models = load_index()
    wanted = pattern if re.search(r"[*?\[]", pattern) else f"*{pattern}*"
    found = [model for name, model in models.items() if fnmatch.fnmatchcase(name, wanted)]
    if not found:
        raise InputError(f"{pattern!r}: no model has such a name{did_you_mean(pattern, models, cutoff=0.4)}")
    return found


def as_records(models: Iterable[ZooModel]) -> list[dict[str, Any]]:
    """Models as plain values that fit into JSON."""
    return [
        {
            "name": model.name,
            "collection": model.collection,
            "config": str(model.root / model.config),
            "weights": model.weights_url if model.weights else None,
            "sha256": model.sha256 or None,
            "size": model.size or None,
            "metadata": dict(model.metadata),
            "results": [
                {"dataset": result.dataset, "source": result.source, "metrics": dict(result.metrics)}
                for result in model.results
            ],
        }
        for model in models
    ]


def format_models(models: Iterable[ZooModel]) -> str:
    """One line per model: name, weights, mean sensitivity.

    Those with weights are named again at the end, which is what a terminal shows of a long list.
    """
    models = list(models)
    rows = [("name", "weights", "paper", "measured")]
    for model in models:
        averages = {
            result.source: f"{result.average:.2f}{'' if result.scale is IMAGE else ' (3D)'}"
            for result in model.results
            if result.average is not None
        }
        rows.append((model.name, model.weights_text or "-", averages.get("paper", "-"), averages.get("measured", "-")))
    lines = [
        text_table(rows, left=len(rows[0])),
        "",
        f"paper, measured: mean sensitivity in per cent at {IMAGE.mean_of} false positives per image; (3D): at "
        f"{VOLUME.mean_of} per volume",
    ]
    ready = [f"  {model.name} ({model.weights_text})" for model in models if model.weights]
    lines += [f"with weights, for `mmpluld detect --model NAME`: {len(ready)} of {len(models)}", *ready]
    return "\n".join(lines)
