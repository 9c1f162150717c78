"""What is written from the configs and the metafiles: the index's entries, the zoo page, the tables in the READMEs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmpluld.atomic import atomic_write_text
from mmpluld.datasets.steps import num_slices
from mmpluld.engine.config import FoundConfig, has_twin, load_config
from mmpluld.errors import InputError
from mmpluld.reproduce.tables import TABLES
from mmpluld.zoo.index import IMAGE, PAPER, VOLUME, Scale, ZooModel, dump_metafile, load_index, load_metafile

__all__ = ["complete_metafiles", "format_page", "model_table", "write_pages"]

_BEGIN, _END = "<!-- models: written by tools/model_zoo.py -->", "<!-- end of models -->"
# Of the tables of LENS those whose rows differ in their configs. Those of Table III had mined labels in the paper, and
# those of Table IV are one config with several labels.
_OF_CONFIGS = ("lens-table2", "lens-table5")
_CONVERTED = "legacy-"  # begins the names of configs for weights that another code base trained
_INTRODUCTION = """<!-- Written by tools/model_zoo.py from configs/*/metafile.yml; do not edit. -->

# Model zoo

Sensitivity in per cent at so many false positives per image, or per volume where the table says so, and its mean over
some of these levels. A row from *paper* repeats what the paper prints; nobody has reached it with this package unless a
row of the same model says *measured*. Twins (`_phantom`) are miniatures trained on synthetic CT; their figures say
nothing about patients. An empty cell was not measured. What the papers' tables gave in miniature is on
[another page](explanation/miniatures.md). No model is for diagnosis.

`mmpluld models` lists the same in the terminal, `mmpluld download NAME` fetches a model's bundle; see
[how to](how_to/model_zoo.md).
"""


def complete_metafiles(root: str | os.PathLike[str]) -> list[Path]:
    """Bring the metafiles of a checkout up to date with its configs; return the files that changed.

    Configs without an entry get one, entries without a config go, and the papers' figures are those of
    ``mmpluld.reproduce.TABLES``. Weights and measured figures stay as they are.

    Raises:
        InputError: If a folder of configs has no metafile, or a file cannot be read.
    """
    folder = Path(root)
    metafiles = sorted({path.parent / "metafile.yml" for path in _leaves(folder / "configs")})
    texts = {path: dump_metafile(_completed(path, folder)) for path in metafiles}
    texts[folder / "model-index.yml"] = dump_metafile({"Import": [str(path.relative_to(folder)) for path in metafiles]})
    return _write_changed(texts)


def write_pages(root: str | os.PathLike[str]) -> list[Path]:
    """Write ``docs/model_zoo.md`` and the tables in the methods' READMEs of a checkout; return what changed.

    Raises:
        InputError: If the index is malformed, or a README has no place for its table.
    """
    folder = Path(root)
    texts = {folder / "docs/model_zoo.md": format_page(folder)}
    for models in _by_collection(load_index(folder)).values():
        readme = folder / Path(models[0].config).parent / "README.md"
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        head, begin, rest = text.partition(_BEGIN)
        _, end, tail = rest.partition(_END)
        if not (begin and end):
            raise InputError(f"{readme}: lacks the lines {_BEGIN!r} and {_END!r}; the table goes between them")
        texts[readme] = f"{head}{_BEGIN}\n{model_table(models, '../../')}{_END}{tail}"
    return _write_changed(texts)


def format_page(root: str | os.PathLike[str] | None = None) -> str:
    """The zoo page, in Markdown: the models with weights, then one section per method."""
    index = load_index(root)
    ready = [
        f"- [`{model.name}`](../{model.config}): {model.weights_text}" for model in index.values() if model.weights
    ]
    parts = [_INTRODUCTION, *(["With weights:\n", *ready, ""] if ready else [])]
    for collection, models in _by_collection(index).items():
        readme = Path(models[0].config).parent / "README.md"
        parts.append(f"## [{collection}](../{readme.as_posix()})\n\n{model_table(models, '../')}")
    return "\n".join(parts)


def model_table(models: Iterable[ZooModel], up: str) -> str:
    """Table of models in Markdown, or two, of figures per image and per volume; ``up`` leads to the root.

    Models without figures stand in the first.
    """
    models = list(models)
    scales = [scale for scale in (IMAGE, VOLUME) if any(result.scale == scale for m in models for result in m.results)]
    first, *more = scales or [IMAGE]
    tables = [_table(models, first, up), *(_table([m for m in models if m.results], scale, up) for scale in more)]
    return "\n".join(tables)


def _table(models: Iterable[ZooModel], scale: Scale, up: str) -> str:
    """Table of the figures of one scale, and of the models without figures."""
    model_column = "model" if scale is IMAGE else f"model (false positives per {scale.per})"
    header = [model_column, "from", *(f"{level:g}" for level in scale.levels), scale.mean_of, "weights"]
    lines = [_row(*header), "|" + "---|" * len(header)]
    for model in models:
        name = f"[`{model.name}`]({up}{model.config})"
        address = f"{up}{model.weights}" if model.shipped else model.weights
        weights = f"[{model.weights_text}]({address})" if address else ""
        for result in model.results:
            if result.scale == scale:
                values = [_number(result.metrics.get(metric)) for metric in scale.names]
                lines.append(_row(name, result.source, *values, _number(result.average), weights))
        if not model.results:
            lines.append(_row(name, *[""] * (len(header) - 2), weights))
    return "\n".join(lines) + "\n"


def _leaves(configs: Path) -> list[Path]:
    """The configs of detectors: trunks, from which their miniatures start, are none."""
    return [path for path in sorted(configs.rglob("*.py")) if not {"_base_", "trunks"} & set(path.parts)]


def _both_sizes(folder: Path) -> list[FoundConfig]:
    """The configs of a folder and the miniatures of rows, by name."""
    leaves = _leaves(folder)
    twins = [FoundConfig(path, twin=True) for path in leaves if not path.stem.startswith(_CONVERTED) and has_twin(path)]
    return sorted([*map(FoundConfig, leaves), *twins], key=lambda found: found.name)


def _completed(path: Path, root: Path) -> dict[str, Any]:
    """Content of a metafile with one entry per config of its folder."""
    content = load_metafile(path)
    collection = content["Collections"][0]["Name"]
    known = {model.get("Name"): model for model in content["Models"]}
    models = []
    for found in _both_sizes(path.parent):
        entry = known.get(found.name) or {"Name": found.name}
        settings = load_config(found)
        epochs = None if found.name.startswith(_CONVERTED) else settings.get("train_cfg", {}).get("max_epochs")
        facts = {**entry.get("Metadata", {}), "Slices": num_slices(settings), "Epochs": epochs}
        metadata = {key: value for key, value in facts.items() if value is not None}
        models.append(
            {
                "Name": found.name,
                "In Collection": collection,
                "Config": found.path.relative_to(root).as_posix(),
                "Metadata": metadata,
                **_results_entry(found.name, entry.get("Results", [])),
                **({"Weights": entry["Weights"]} if "Weights" in entry else {}),
            }
        )
    return {**content, "Models": models}


def _results_entry(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    """The papers' figures of today and the measured ones of the entry."""
    kept = [item for item in results if not all(key.endswith(PAPER) for key in item["Metrics"])]
    figures = _paper_figures().get(name)
    if figures:
        kept.insert(0, {"Task": "Lesion Detection", "Dataset": "DeepLesion", "Metrics": figures})
    return {"Results": kept} if kept else {}


def _paper_figures() -> dict[str, dict[str, float]]:
    """Config name -> metrics as the papers print them."""
    found: dict[str, dict[str, float]] = {}
    for table in TABLES.values():
        scale = IMAGE if table.protocol == "deeplesion-2d" else VOLUME
        if scale is VOLUME and table.name not in _OF_CONFIGS:
            continue
        names = [*scale.names, scale.average]
        for row in table.rows:
            if row.paper and not row.options and not row.fpr:
                told = zip(names, row.paper, strict=True)
                figures = {f"{name}{PAPER}": value for name, value in told if value is not None}
                found.setdefault(row.config_name(twin=False), figures)
    return found


def _by_collection(models: Mapping[str, ZooModel]) -> dict[str, list[ZooModel]]:
    grouped: dict[str, list[ZooModel]] = {}
    for model in models.values():
        grouped.setdefault(model.collection, []).append(model)
    return grouped


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _write_changed(texts: Mapping[Path, str]) -> list[Path]:
    changed = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in changed:
        atomic_write_text(path, texts[path])
    return changed
