"""What single options change in a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmpluld.engine.run_options import draw_tested_samples, enable_auto_scale_lr, write_detections
from mmpluld.errors import InputError
from mmpluld.evaluation.metrics import FROCMetric, RECISTMetric, VolumeFROCMetric
from mmpluld.inference import VolumeTestLoop


def test_auto_scale_lr_is_switched_on() -> None:
    cfg = Config({"auto_scale_lr": {"enable": False, "base_batch_size": 4}, "train_dataloader": {"batch_size": 2}})
    enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == {"enable": True, "base_batch_size": 4}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "mine.py: --auto-scale-lr needs auto_scale_lr = .* there it is None"),
        ({"auto_scale_lr": None}, "there it is None"),
        ({"auto_scale_lr": {"enable": True}}, "there it is None"),
        ({"auto_scale_lr": {"base_batch_size": 0}}, "there it is 0"),
        ({"auto_scale_lr": {"base_batch_size": 4}}, "needs train_dataloader.batch_size"),
    ],
)
def test_auto_scale_lr_without_a_batch_size(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in content.items()))
    with pytest.raises(InputError, match=message):
        enable_auto_scale_lr(Config.fromfile(path))


class OwnMetric(FROCMetric):
    """A user's own."""


@pytest.mark.parametrize(
    "kind", ["FROCMetric", "mmpluld.FROCMetric", "mmpluld.VolumeFROCMetric", FROCMetric, OwnMetric]
)
def test_record_is_written_however_the_metric_is_named(kind: Any) -> None:
    metrics = [{"type": "mmpluld.RECISTMetric"}, {"type": kind}]
    for evaluator in (metrics[1], metrics, {"type": "Evaluator", "metrics": metrics}):
        cfg = Config({"test_evaluator": evaluator})
        write_detections(cfg, "out/found.json", "model a")
        found = (
            cfg.test_evaluator.get("metrics", cfg.test_evaluator) if evaluator is not metrics else cfg.test_evaluator
        )
        found = found if isinstance(found, list) else [None, found]
        assert (found[1]["outfile_prefix"], found[1]["made_by"]) == ("out/found", "model a")
        assert found[0] is None or "outfile_prefix" not in found[0]


def test_metrics_that_are_built_already() -> None:
    metric = VolumeFROCMetric()
    write_detections(Config({"test_evaluator": [metric]}), "found.json", "model a")
    assert (metric.outfile_prefix, metric.made_by) == ("found", "model a")


@pytest.mark.parametrize("evaluator", [[], {"type": "RECISTMetric"}, [{"type": RECISTMetric}], {"type": "Nothing"}])
def test_no_metric_that_writes_a_record(evaluator: Any) -> None:
    with pytest.raises(InputError, match="--out found.json: none of the metrics in test_evaluator writes a detection"):
        write_detections(Config({"test_evaluator": evaluator}), "found.json", "model a")


def test_pictures_are_of_slices_however_the_loop_is_named(tmp_path: Path) -> None:
    for loop in ({}, {"type": "TestLoop"}):  # MMEngine takes a loop without a name for its own
        cfg = Config({"test_cfg": loop, "launcher": "none", "default_hooks": {}})
        draw_tested_samples(cfg, tmp_path / "shown", 0.3)
        assert cfg.default_hooks.visualization.test_out_dir == str(tmp_path / "shown")
    for kind in ("VolumeTestLoop", "mmpluld.VolumeTestLoop", VolumeTestLoop):
        with pytest.raises(InputError, match="--show-dir: .* is tested on whole volumes"):
            draw_tested_samples(Config({"test_cfg": {"type": kind}}), tmp_path / "shown", 0.3)
