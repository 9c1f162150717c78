"""From a training checkpoint to a bundle of the zoo: one file, the same bytes every time, with a model card."""

from __future__ import annotations

import hashlib
import tempfile
import urllib.parse
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, contiguous_format

from mmpluld.atomic import atomic_path, atomic_write_text
from mmpluld.engine.bundle_config import config_bytes
from mmpluld.engine.checkpoint import (
    load_checkpoint_safely,
    meta_of,
    put_weights,
    require_own_settings,
    state_dict_of,
)
from mmpluld.engine.config import load_config
from mmpluld.engine.config_digest import config_digest
from mmpluld.errors import InputError
from mmpluld.evaluation.functional import get_protocol
from mmpluld.evaluation.operating_points import OperatingPoints, calibration_table, measure_operating_points
from mmpluld.inference.rescore import reduction_config
from mmpluld.inference.running import FPRMode
from mmpluld.inference.settings import DetectionSettings, reduction_of_test
from mmpluld.inputs import sha256_of
from mmpluld.registry import build_model
from mmpluld.structures.model_line import short_digest
from mmpluld.structures.text_files import read_object
from mmpluld.typing import StrPath
from mmpluld.version import __version__
from mmpluld.zoo.bundle import CARD, CONFIG, FPR, PICTURE, POINTS, WEIGHTS, bundle_bytes
from mmpluld.zoo.download import local_checkpoint
from mmpluld.zoo.index import IMAGE, PAPER, VOLUME, dump_metafile, load_metafile

__all__ = [
    "Published",
    "Reduction",
    "Validation",
    "metafile_entry",
    "publish",
    "require_entry",
    "served_from",
    "update_metafile",
]

_NOT_FOR_DIAGNOSIS = "research only; not for diagnosis"
_SHIPPED = "checkpoints"  # folder below the root of the zoo that travels with the package
# Last field of a config's name -> test data.
_DATASETS = {"deeplesion": "DeepLesion", "phantom": "Phantom", "starter": "Real CT, 12 volumes"}


@dataclass(frozen=True)
class Published:
    """A published model.

    Attributes:
        name: Model of the zoo.
        bundle: ``<name>-<first 8 digits of the SHA-256>.zip``.
        card: Model card beside it.
        sha256: Digest of the bundle.
        size: Bytes of the bundle.
        metrics: Sensitivities in per cent, as the index names them; empty without figures.
    """

    name: str
    bundle: Path
    card: Path
    sha256: str
    size: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Validation:
    """Detections in validation patients, which give a model its operating points and calibration.

    Attributes:
        detections: Detection record.
        truth: Annotation file, or detection record.
        protocol: Name of the rules.
        default_rate: False positives per volume or image that detection chooses the threshold for, unless told
            otherwise; None: it takes its usual threshold.

    Raises:
        InputError: On publishing, the rate lies outside what was measured.
    """

    detections: StrPath
    truth: StrPath
    protocol: str = "lens-3d"
    default_rate: float | None = None


@dataclass(frozen=True)
class Reduction:
    """False-positive reduction that goes into a bundle.

    Attributes:
        checkpoint: Its weights.
        config: Its config; None takes the one that the weights were trained with.
        mode: ``average`` or ``alone``.
    """

    checkpoint: StrPath
    config: StrPath | None = None
    mode: FPRMode = "average"


def publish(
    checkpoint: StrPath,
    out_dir: StrPath,
    name: str,
    data: str,
    config: StrPath | None = None,
    metrics: StrPath | None = None,
    licence: str = "Apache-2.0",
    half: bool = False,
    validation: Validation | None = None,
    reduction: Reduction | None = None,
) -> Published:
    """Write a bundle, and its model card beside it.

    Of the checkpoint only the weights that a test would load are kept (after an averaging hook these are the averaged
    ones). Same inputs and options: same bytes.

    Args:
        checkpoint: File that training wrote, or a bundle.
        out_dir: Folder to write to.
        name: Model of the zoo: the name of its config.
        data: What it was trained on, for the card; one sentence without full stop.
        config: Config file that it was trained with, where that is not the zoo's ``name``.
        metrics: Result that ``mmpluld evaluate --json`` wrote, for the card and the index.
        licence: Of the weights.
        half: Store tensors of two and more dimensions in half precision.
        validation: Gives the operating points; None: the bundle has none.
        reduction: False-positive reduction; None takes that of the config's ``test_cfg``, if it has one.

    Raises:
        InputError: If an input cannot be read, the weights are not of the config's model or, without ``config``, were
            trained with other settings than the zoo's; a value does not fit into half precision; or the config asks for
            what a bundle may not.
    """
    settings = load_config(config or name)
    source = load_checkpoint_safely(checkpoint)
    if config is None:
        require_own_settings(settings, name, meta_of(source), checkpoint)
    members = _model_members(settings, source, checkpoint, half, "")
    if reduction is None and (tested := reduction_of_test(settings)):
        reduction = Reduction(**tested)
    if reduction is not None:
        members |= _reduction_members(reduction, half)
    trained = Path(config or name).name.removesuffix(".py")
    points = None if validation is None else _measured(validation, {name, trained}, settings, reduction)
    if points is not None:
        members |= {POINTS: points.to_json().encode(), PICTURE: _picture(points)}
    result = None if metrics is None else _read_metrics(metrics)
    details = _details(name, trained, data, licence, half, source, result, points, reduction)
    provenance = details["provenance"] | {"checkpoint_sha256": sha256_of(checkpoint)}
    members[CARD] = _card(details | {"file": None, "picture": PICTURE}).encode()
    content = bundle_bytes(name, provenance, members)
    sha256 = hashlib.sha256(content).hexdigest()
    target = Path(out_dir) / f"{name}-{sha256[:8]}.zip"
    picture = target.with_suffix(".png")
    text = _card(details | {"file": target.name, "sha256": sha256, "size": len(content), "picture": picture.name})
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
    if PICTURE in members:
        with atomic_path(picture) as temporary:
            temporary.write_bytes(members[PICTURE])
    atomic_write_text(target.with_suffix(".md"), text)
    return Published(name, target, target.with_suffix(".md"), sha256, len(content), _index_metrics(result))


def _model_members(
    settings: Config, source: Mapping[str, Any], path: StrPath, half: bool, part: str
) -> dict[str, bytes]:
    """Config and weights of a network, after a look whether they belong together."""
    config = config_bytes(settings, str(settings.filename))  # first, since it says what cannot be published
    with DefaultScope.overwrite_default_scope("mmpluld"):
        put_weights(build_model(settings), source, path)
    state = _plain_state(state_dict_of(source, path), half, path)
    return {
        f"{part}{CONFIG}": config,
        f"{part}{WEIGHTS}": safetensors.torch.save(dict(sorted(state.items()))),
    }


def _reduction_members(reduction: Reduction, half: bool) -> dict[str, bytes]:
    path = local_checkpoint(reduction.checkpoint)
    source = load_checkpoint_safely(path)
    _, settings = reduction_config(reduction.config, path, source)
    return _model_members(settings, source, path, half, FPR)


def _measured(validation: Validation, names: Set[str], config: Config, reduction: Reduction | None) -> OperatingPoints:
    points = measure_operating_points(validation.detections, validation.truth, validation.protocol)
    if points.model is not None and points.model not in names:
        raise InputError(
            f"{validation.detections}: holds detections of {points.model}, whose scores are others; give those of "
            f"{' or '.join(sorted(names))}"
        )
    if points.config not in (None, short_digest(config_digest(config))):
        raise InputError(
            f"{validation.detections}: was made with other settings of the config, such as --cfg-options; give "
            "detections made as the bundle will make them"
        )
    linking = DetectionSettings.linking_of(config)
    if points.linking not in (None, linking):
        raise InputError(
            f"{validation.detections}: was made of 2D boxes scored {points.linking}, the bundle links {linking}; give "
            "detections made as the bundle will make them"
        )
    mode = "none" if reduction is None else reduction.mode
    if points.fpr not in (None, mode):
        raise InputError(
            f"{validation.detections}: was made with false-positive reduction: {points.fpr}, the bundle's is {mode}; "
            "give detections made as the bundle will make them"
        )
    if validation.default_rate is None:
        return points
    points.at(validation.default_rate)  # or refused
    return replace(points, default_rate=validation.default_rate)


def _picture(points: OperatingPoints) -> bytes:
    from mmpluld.visualization.reliability_plot import plot_reliability

    with tempfile.TemporaryDirectory(prefix="mmpluld-") as folder:
        path = Path(folder, PICTURE)
        plot_reliability(points, path)
        return path.read_bytes()


def _details(
    name: str,
    trained: str,
    data: str,
    licence: str,
    half: bool,
    source: Mapping[str, Any],
    result: Mapping[str, Any] | None,
    points: OperatingPoints | None,
    reduction: Reduction | None,
) -> dict[str, Any]:
    """What the card says, and among it the provenance that the bundle keeps."""
    epoch = meta_of(source).get("epoch")
    provenance: dict[str, Any] = {
        "mmpluld_version": __version__,
        "config": trained,
        "data": data.rstrip(". "),
        "epoch": epoch if isinstance(epoch, int) else None,
        "half": half,
        "licence": str(licence),
        "intended_use": _NOT_FOR_DIAGNOSIS,
        "commands": [f"mmpluld train {trained}"],
        "figures": None if result is None else {key: result[key] for key in _FIGURES if key in result},
        "dataset_meta": {"classes": ["lesion"]},
    }
    if reduction is not None:
        provenance["fpr_mode"] = reduction.mode
    return {
        "name": name,
        "provenance": provenance,
        "metrics": result,
        "rows": _figures(result),
        "synthetic": name.endswith(("_phantom", "_starter")),
        "tested_on_phantom": name.endswith("_phantom"),
        "points": points,
        "rates": _rates(points),
        "calibration": [] if points is None else calibration_table(points),
    }


def _rates(points: OperatingPoints | None) -> list[list[str]]:
    """Rows of the card's operating points: rate, threshold, sensitivity."""
    if points is None:
        return []
    rows = []
    for rate in get_protocol(points.protocol).levels:
        try:
            point = points.at(rate)
        except InputError:  # beyond what was measured
            continue
        rows.append([f"{rate:g}", f"{point.score_thr:.4g}", f"{100 * point.sensitivity:.2f}"])
    return rows


def served_from(out_dir: StrPath, base_url: str | None = None, metafile: StrPath | None = None) -> str:
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
    """What the index says about a published model: bundle, digest, size and figures.

    Args:
        published: The bundle.
        address: What :func:`served_from` gives.
    """
    entry: dict[str, Any] = {
        "Name": published.name,
        "Metadata": {"SHA256": published.sha256, "Size": published.size},
        "Weights": f"{address}/{published.bundle.name}",
    }
    if published.metrics:
        dataset = _DATASETS.get(published.name.rpartition("_")[2], published.name.rpartition("_")[2])
        entry["Results"] = [{"Task": "Lesion Detection", "Dataset": dataset, "Metrics": dict(published.metrics)}]
    return entry


def update_metafile(path: StrPath, entry: Mapping[str, Any]) -> None:
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


def require_entry(path: StrPath, name: str) -> None:
    """Check, before anything is written, that a metafile has the model.

    Raises:
        InputError: If the metafile cannot be read or has no such model.
    """
    _entry_of(load_metafile(path), name, path)


def _entry_of(content: Mapping[str, Any], name: str, path: StrPath) -> dict[str, Any]:
    model: dict[str, Any]
    for model in content["Models"]:
        if model.get("Name") == name:
            return model
    raise InputError(f"{path}: no model {name!r}; run tools/model_zoo.py, which enters every config")


def _plain_state(state: Mapping[str, Tensor], half: bool, source: StrPath) -> dict[str, Tensor]:
    """Tensors without shared memory, on the CPU."""
    plain = {}
    for key, value in state.items():
        tensor = value.detach().cpu().clone(memory_format=contiguous_format)
        if half and tensor.is_floating_point() and tensor.dim() >= 2:
            small = tensor.half()
            if not small.isfinite().equal(tensor.isfinite()):
                raise InputError(f"{source}: {key} has values beyond half precision; publish without --half")
            tensor = small
        plain[key.removeprefix("module.")] = tensor
    return plain


_NEEDED = (
    "protocol",
    "mode",
    "per",
    "levels",
    "sensitivity",
    "headline_levels",
    "average",
    "num_images",
    "num_patients",
    "num_lesions",
)
_FIGURES = (*_NEEDED, "interval")  # of a result; the rest names volumes


def _read_metrics(path: StrPath) -> dict[str, Any]:
    return read_object(path, "what `mmpluld evaluate --json` wrote", _NEEDED)


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
    scale = IMAGE if result.get("per", "image") == "image" else VOLUME
    figures = {scale.name(level): round(100 * value, 2) for level, value in pairs}
    if tuple(result["headline_levels"]) == scale.headline:
        figures[scale.average] = round(100 * result["average"], 2)
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
