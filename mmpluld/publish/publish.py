"""From a training checkpoint to a file of the zoo: weights only, the same bytes every time, with a model card."""

from __future__ import annotations

import hashlib
import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor

from mmpluld.atomic import atomic_path, atomic_write_text
from mmpluld.engine.checkpoint import checkpoint_bytes, load_checkpoint_safely, load_weights
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.registry import MODELS
from mmpluld.structures.text_files import read_object
from mmpluld.version import __version__
from mmpluld.zoo.index import AVERAGE, PAPER, dump_metafile, load_metafile

__all__ = ["Published", "metafile_entry", "publish", "require_entry", "served_from", "update_metafile"]

_NOT_FOR_DIAGNOSIS = "research only; not for diagnosis"
_SHIPPED = "checkpoints"  # folder below the root of the zoo that travels with the package
# Last field of a config's name -> test data.
_DATASETS = {"deeplesion": "DeepLesion", "phantom": "Phantom", "starter": "Phantom"}


@dataclass(frozen=True)
class Published:
    """A published checkpoint.

    Attributes:
        name: Model of the zoo.
        weights: ``<name>-<first 8 digits of the SHA-256>.pth``.
        card: Model card beside it.
        sha256: Digest of the weights.
        size: Bytes of the weights.
        metrics: Sensitivities in per cent, as the index names them; empty without figures.
    """

    name: str
    weights: Path
    card: Path
    sha256: str
    size: int
    metrics: Mapping[str, float]


def publish(
    checkpoint: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    name: str,
    data: str,
    config: str | os.PathLike[str] | None = None,
    metrics: str | os.PathLike[str] | None = None,
    licence: str = "Apache-2.0",
    half: bool = False,
) -> Published:
    """Write weights and model card.

    Of the checkpoint only the weights that a test would load are kept (after an averaging hook these are the averaged
    ones), with plain metadata. Same checkpoint, options and PyTorch: same bytes.

    Args:
        checkpoint: File that training wrote.
        out_dir: Folder to write to.
        name: Model of the zoo: the name of its config.
        data: What it was trained on, for the card; one sentence without full stop.
        config: Config file that it was trained with, where that is not the zoo's ``name``.
        metrics: Result that ``mmpluld evaluate --json`` wrote, for the card and the index.
        licence: Of the weights.
        half: Store tensors of two and more dimensions in half precision.

    Raises:
        InputError: If an input cannot be read, the weights are not of the config's model, or a value does not fit into
            half precision.
    """
    settings = load_config(config or name)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        load_weights(MODELS.build(settings.model), checkpoint)
    source = load_checkpoint_safely(checkpoint)
    state = _plain_state(source.get("state_dict", source), half, checkpoint)
    epoch = source.get("meta", {}).get("epoch")
    meta = {
        "name": name,
        "mmpluld_version": __version__,
        "dataset_meta": {"classes": ["lesion"]},
        "epoch": epoch if isinstance(epoch, int) else None,
        "licence": str(licence),
        "intended_use": _NOT_FOR_DIAGNOSIS,
    }
    content = checkpoint_bytes({"meta": meta, "state_dict": state})
    sha256 = hashlib.sha256(content).hexdigest()
    result = None if metrics is None else _read_metrics(metrics)
    weights = Path(out_dir) / f"{name}-{sha256[:8]}.pth"
    details = {"name": name, "file": weights.name, "sha256": sha256, "size": len(content), "half": half} | {
        "config": f"{Path(config or name).name.removesuffix('.py')}.py",
        "version": __version__,
        "licence": licence,
        "data": data.rstrip(". "),
        "epoch": meta["epoch"],
        "metrics": result,
        "rows": _figures(result),
        "phantom": name.endswith(("_phantom", "_starter")),
    }
    text = _card(details)
    with atomic_path(weights) as temporary:
        temporary.write_bytes(content)
    atomic_write_text(weights.with_suffix(".md"), text)
    return Published(name, weights, weights.with_suffix(".md"), sha256, len(content), _index_metrics(result))


def served_from(
    out_dir: str | os.PathLike[str], base_url: str | None = None, metafile: str | os.PathLike[str] | None = None
) -> str:
    """The address that the index gives to the folder of published files.

    Args:
        out_dir: Folder that is written to.
        base_url: http(s) address that a web server has for it; None where the weights ship with the package.
        metafile: ``configs/METHOD/metafile.yml`` that the weights are entered in, if any.

    Raises:
        InputError: If ``base_url`` is no http(s) address of a folder, or the weights would be entered as shipped but
            written elsewhere than to ``checkpoints`` beside the configs.
    """
    if base_url is not None:
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise InputError(
                f"--base-url {base_url}: give the http(s) address of the folder, such as https://example.org/mmpluld"
            )
        return base_url.rstrip("/")
    if metafile is not None:
        shipped = Path(metafile).resolve().parents[2] / _SHIPPED
        if Path(out_dir).resolve() != shipped:
            raise InputError(f"{out_dir}: shipped weights lie in {shipped}; write there, or give --base-url")
    return _SHIPPED


def metafile_entry(published: Published, address: str) -> dict[str, Any]:
    """What the index says about a published checkpoint: weights, digest, size and figures.

    Args:
        published: The checkpoint.
        address: What :func:`served_from` gives.
    """
    entry: dict[str, Any] = {
        "Name": published.name,
        "Metadata": {"SHA256": published.sha256, "Size": published.size},
        "Weights": f"{address}/{published.weights.name}",
    }
    if published.metrics:
        dataset = _DATASETS.get(published.name.rpartition("_")[2], published.name.rpartition("_")[2])
        entry["Results"] = [{"Task": "Lesion Detection", "Dataset": dataset, "Metrics": dict(published.metrics)}]
    return entry


def update_metafile(path: str | os.PathLike[str], entry: Mapping[str, Any]) -> None:
    """Put a checkpoint into the entry of its model; figures of papers stay, measured ones are replaced.

    Raises:
        InputError: If the metafile cannot be read or has no such model.
    """
    content = load_metafile(path)
    model = _entry_of(content, entry["Name"], path)
    model["Metadata"] = {**model.get("Metadata", {}), **entry["Metadata"]}
    model["Weights"] = entry["Weights"]
    if "Results" in entry:
        papers = [
            item for item in model.get("Results", []) if all(key.endswith(PAPER) for key in item.get("Metrics", {}))
        ]
        model["Results"] = [*papers, *entry["Results"]]
    atomic_write_text(path, dump_metafile(content))


def require_entry(path: str | os.PathLike[str], name: str) -> None:
    """Check, before anything is written, that a metafile has the model.

    Raises:
        InputError: If the metafile cannot be read or has no such model.
    """
    _entry_of(load_metafile(path), name, path)


def _entry_of(content: Mapping[str, Any], name: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    model: dict[str, Any]
    for model in content["Models"]:
        if model.get("Name") == name:
            return model
    raise InputError(f"{path}: no model {name!r}; run tools/model_zoo.py, which enters every config")


def _plain_state(state: Mapping[str, Tensor], half: bool, source: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors without shared memory, on the CPU."""
    plain = {}
    for key, value in state.items():
        tensor = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        if half and tensor.is_floating_point() and tensor.dim() >= 2:
            small = tensor.half()
            if not torch.equal(small.isfinite(), tensor.isfinite()):
                raise InputError(f"{source}: {key} has values beyond half precision; publish without --half")
            tensor = small
        plain[key.removeprefix("module.")] = tensor
    return plain


def _read_metrics(path: str | os.PathLike[str]) -> dict[str, Any]:
    needed: tuple[str, ...] = ("protocol", "mode", "per", "levels", "sensitivity", "headline_levels", "average")
    needed += ("num_images", "num_patients", "num_lesions")
    return read_object(path, "what `mmpluld evaluate --json` wrote", needed)


def _figures(result: Mapping[str, Any] | None) -> list[list[str]]:
    """Rows of the card's table: level, sensitivity, interval."""
    if result is None:
        return []
    interval = result.get("interval", {})
    ranges = [*interval.get("sensitivity", [None] * len(result["levels"])), interval.get("average")]
    labels = [*(f"{level:g}" for level in result["levels"])]
    labels.append(f"mean over {', '.join(f'{level:g}' for level in result['headline_levels'])}")
    values = [*result["sensitivity"], result["average"]]
    return [
        [label, f"{100 * value:.2f}", "" if not ends or None in ends else f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"]
        for label, value, ends in zip(labels, values, ranges, strict=True)
    ]


def _index_metrics(result: Mapping[str, Any] | None) -> dict[str, float]:
    if result is None:
        return {}
    pairs = zip(result["levels"], result["sensitivity"], strict=True)
    # Tables of the zoo are of false positives per image; those per volume get another name.
    prefix = "Sens" if result.get("per", "image") == "image" else "Sens3D"
    figures = {f"{prefix}@{level:g}": round(100 * value, 2) for level, value in pairs}
    if prefix == "Sens" and result["headline_levels"] == [0.5, 1, 2, 4]:
        figures[AVERAGE] = round(100 * result["average"], 2)
    return figures


def _card(details: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmpluld.publish", "templates"),
        autoescape=False,  # Markdown, not HTML
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md.j2").render(details)
