"""What single options of ``train`` and ``test`` change in a config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmpluld.datasets.ct_lesion import CTLesionDataset
from mmpluld.datasets.named_concat import dataset_settings
from mmpluld.datasets.steps import type_name
from mmpluld.errors import InputError
from mmpluld.evaluation.metrics import FROCMetric, VolumeFROCMetric
from mmpluld.outputs import check_output_folder
from mmpluld.registry import METRICS
from mmpluld.typing import StrPath

__all__ = ["check_validation", "draw_tested_samples", "enable_auto_scale_lr", "write_detections"]


def enable_auto_scale_lr(cfg: Config) -> None:
    """Let mmengine scale the learning rate by the samples of all processes together over ``base_batch_size``.

    Raises:
        InputError: The config does not say which batch size its learning rate is for, or what its batch size is.
    """
    base = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    if not isinstance(base, int) or base < 1:
        raise InputError(
            f"{cfg.filename}: --auto-scale-lr needs auto_scale_lr = dict(base_batch_size=N), the number of samples of "
            f"all processes together that the learning rate is for; there it is {base}"
        )
    if not (cfg.get("train_dataloader") or {}).get("batch_size"):
        raise InputError(f"{cfg.filename}: --auto-scale-lr needs train_dataloader.batch_size, and there is none")
    cfg.auto_scale_lr.enable = True


def check_validation(cfg: Config) -> None:
    """Refuse whole volumes in the validations of a training, which mmengine would take for a test.

    Raises:
        InputError: The validation examines whole volumes.
    """
    if type_name(cfg.get("val_cfg")) == "VolumeTestLoop":
        raise InputError(
            "val_cfg.type: VolumeTestLoop is for test_cfg; validate on key slices, and test checkpoints on whole "
            "volumes with `mmpluld test`"
        )


def check_annotation_files(cfg: Config, parts: Iterable[str]) -> None:
    """Refuse annotation files that are not there, before a run logs pages of settings.

    Args:
        cfg: The config.
        parts: train | val | test: whose.

    Raises:
        InputError: One is not there.
    """
    for part in parts:
        loader = cfg.get(f"{part}_dataloader")
        dataset = loader.get("dataset") if isinstance(loader, Mapping) else None
        for settings in dataset_settings(dataset) if isinstance(dataset, Mapping) else ():
            if type_name(settings) == "CTLesionDataset":
                rest = {name: value for name, value in settings.items() if name not in ("type", "_scope_")}
                CTLesionDataset(**{**rest, "pipeline": [], "lazy_init": True}).require_file()


def draw_tested_samples(cfg: Config, folder: StrPath, score_thr: float) -> None:
    """Write a picture of every tested sample, with its truth and its detections, into ``folder``.

    Args:
        cfg: Changed.
        folder: Made if needed; pictures of the same name are replaced.
        score_thr: Detections above it are drawn.

    Raises:
        InputError: The samples are not slices, or belong to several processes.
    """
    if type_name(cfg.get("test_cfg")) == "VolumeTestLoop":
        raise InputError(
            f"--show-dir: {cfg.filename} is tested on whole volumes, not slice by slice; `mmpluld detect` shows what "
            "it finds in a scan"
        )
    if cfg.launcher != "none":
        raise InputError("--show-dir: one process alone draws; leave out --launcher, or --show-dir")
    check_output_folder(folder)
    cfg.default_hooks.visualization = {
        "type": "LesionVisualizationHook",
        "draw": True,
        "score_thr": score_thr,
        "test_out_dir": str(Path(folder).absolute()),
    }


def write_detections(cfg: Config, out: StrPath, made_by: str | None) -> None:
    """Have the metric that keeps the detections write them, however the config names it.

    Args:
        cfg: Changed.
        out: The file, ending in ``.json``.
        made_by: Line that says which model it is, for the record; None in processes that do not write it.

    Raises:
        InputError: No metric of the test keeps detections.
    """
    prefix = str(Path(out).with_suffix(""))
    evaluator = cfg.test_evaluator
    if isinstance(evaluator, dict) and "metrics" in evaluator:
        evaluator = evaluator["metrics"]
    named = [item for item in (evaluator if isinstance(evaluator, list | tuple) else [evaluator]) if item is not None]
    writers = [item for item in named if _metric_class(item) is not None]
    if not writers:
        raise InputError(
            f"--out {out}: none of the metrics in test_evaluator writes a detection record; add FROCMetric for key "
            "slices or VolumeFROCMetric for volumes"
        )
    for item in writers:
        if isinstance(item, dict):
            item.update(outfile_prefix=prefix, made_by=made_by)
        else:
            item.outfile_prefix, item.made_by = prefix, made_by


def _metric_class(item: Any) -> type | None:
    """The class of a metric that can write a detection record, however the config names it; else None."""
    found = item.get("type") if isinstance(item, dict) else type(item)
    if isinstance(found, str):
        found = METRICS.get(found)
    return found if isinstance(found, type) and issubclass(found, FROCMetric | VolumeFROCMetric) else None
