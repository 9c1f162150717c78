"""Every config of the zoo parses, is accepted, builds and runs."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _pytest.mark.structures import ParameterSet
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from mmpluld.compat.half_precision import keep_boxes_exact
from mmpluld.datasets.named_concat import dataset_settings
from mmpluld.datasets.steps import num_slices, pipeline_steps
from mmpluld.engine.config import FoundConfig, has_twin, load_config
from mmpluld.engine.config_check import check_config
from mmpluld.registry import MODELS

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

ROOT = Path(__file__).resolve().parents[2] / "configs"
LEAVES = sorted(path for path in ROOT.rglob("*.py") if not {"_base_", "trunks"} & set(path.parts))
# Every leaf in both sizes; the starter has one, as small as a miniature.
CONFIGS = [FoundConfig(path, twin) for path in LEAVES for twin in ((False, True) if has_twin(path) else (False,))]
# Networks that take detections further; what they train on and give is tested with them.
DETECTORS = [config for config in CONFIGS if config.path.parent.name not in ("embedding", "fpr")]
TWINS = [config for config in DETECTORS if config.twin]
IDS = [config.name for config in CONFIGS]
# Values that change neither a shape nor which code runs; one leaf stands for all that differ in them alone.
VALUES = ("neg_weight", "keep_prob", "pos_iou_thr", "score_thr", "experts", "calibrated")


def _networks() -> list[FoundConfig]:
    """One config for each network."""

    def without_values(node):
        if isinstance(node, dict):
            return {key: without_values(value) for key, value in node.items() if key not in VALUES}
        return [without_values(item) for item in node] if isinstance(node, (list, tuple)) else node

    found: dict[str, FoundConfig] = {}
    # Calibrated experts cannot predict before they are fitted; the same network without stands for them.
    for config in sorted(DETECTORS, key=lambda config: "calibrated" in config.name):
        model = load_config(config).model.to_dict()
        found.setdefault(str(without_values(model)), config)
    return list(found.values())


def _steps() -> list[ParameterSet]:
    """Each network with and without a box.

    Long are networks of the papers' size without a box, and those of which a like one stays: variants of LENS, MULAN
    and A3D, and converted ones. Of their twins the step with a box stays.
    """
    kept = re.compile("lens-afp_densenet121_(4datasets_)?9s|mulan_densenet121_9s|legacy-(a3d|mulan)_.*_(3s|9s)")
    variants = ("lens", "mulan", "legacy", "pluld")

    def is_long(config: FoundConfig, num_boxes: int) -> bool:
        variant = config.path.parent.name in variants and not kept.match(config.name)
        return (num_boxes == 0 or variant) if not config.twin else (num_boxes == 0 and variant)

    return [
        pytest.param(
            config, boxes, id=f"{config.name}-{boxes}", marks=[pytest.mark.slow] if is_long(config, boxes) else []
        )
        for config in _networks()
        for boxes in (0, 1)
    ]


def test_names_are_unique_and_follow_the_rule():
    assert LEAVES
    assert len(set(IDS)) == len(IDS)
    for path in LEAVES:
        assert path.stem == path.stem.lower()
        assert path.stem.split("_")[-1] == ("starter" if path.parent.name == "starter" else "deeplesion")


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: path.stem)
def test_a_row_is_one_short_file(path):
    assert len(path.read_text().splitlines()) <= 25 or path.parent.name == "legacy"


@pytest.mark.parametrize("found", CONFIGS, ids=IDS)
def test_accepted_and_portable(found):
    config = load_config(found)
    check_config(config)
    assert config.default_scope == "mmpluld"
    if "train_dataloader" in config and found.path.parent.name != "legacy":  # one process trains as the rate is meant
        assert config.train_dataloader.batch_size == config.auto_scale_lr.base_batch_size
    loaders = [config[name] for name in config if name.endswith("_dataloader")]
    assert loaders
    for loader in loaders:
        for dataset in dataset_settings(loader.dataset):
            assert not Path(dataset["data_root"]).is_absolute()
    # MMEngine's own text takes a quarter of a second for each.
    text = (
        config.pretty_text if found in CONFIGS[::60] else "".join(f"{k} = {v!r}\n" for k, v in config.to_dict().items())
    )
    written = Config.fromstring(text, ".py")
    assert written.to_dict() == config.to_dict()
    assert _steps_of(written, "train") == _steps_of(config, "train")
    assert _steps_of(written, "test") == _steps_of(config, "test")
    with torch.device("meta"):
        MODELS.build(config.model)


def _steps_of(config: Config, which: str) -> list[dict[str, Any]]:
    """The transforms of the first dataset of a dataloader, in order."""
    return pipeline_steps(dataset_settings(config[f"{which}_dataloader"].dataset)[0]["pipeline"])


def _first(node: object, key: str) -> Any:
    """The value of the first such key anywhere in a config, or None."""
    if isinstance(node, dict):
        if key in node:
            return node[key]
        node = list(node.values())
    found = (_first(item, key) for item in node) if isinstance(node, (list, tuple)) else ()
    return next((value for value in found if value is not None), None)


def _samples(num_boxes: int, size: int, model: dict[str, Any]) -> list[DetDataSample]:
    """A sample with all that a model of the zoo asks for: masks; tags where it has some; the name of a dataset."""
    sample = DetDataSample(metainfo={"img_shape": (size, size), "ori_shape": (size, size), "scale_factor": (1.0, 1.0)})
    sample.set_metainfo({"slice_interval_mm": 5.0, "body_context": (0.4, 1.0, float("nan"))})
    # The dataset of the first expert; there are no others than DeepLesion where a model has no experts.
    sample.set_metainfo({"dataset": (_first(model, "datasets") or ["deeplesion"])[0]})
    boxes = torch.tensor([[20.0, 24.0, 44.0, 50.0]])[:num_boxes]
    mask = np.zeros((num_boxes, size, size), dtype=np.uint8)
    mask[:, 28:46, 24:40] = 1
    masks = BitmapMasks(mask, size, size)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(num_boxes, dtype=torch.long), masks=masks)
    sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
    num_tags = _first(model, "num_tags")
    if num_tags is not None:
        sample.gt_instances.tags = torch.arange(num_tags).lt(2).float().repeat(num_boxes, 1)
    return [sample]


@pytest.mark.parametrize(("found", "num_boxes"), _steps())
def test_one_training_step_and_one_prediction(found, num_boxes):
    _step_and_prediction(found, num_boxes)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("found", [config for config in _networks() if config.twin], ids=lambda config: config.name)
def test_one_training_step_and_one_prediction_on_a_gpu(found, dtype):
    _step_and_prediction(found, 1, "cuda", dtype)


def _step_and_prediction(
    found: FoundConfig, num_boxes: int, device: str = "cpu", dtype: torch.dtype | None = None
) -> None:
    """A step, under autocast if a type is given, leaves finite losses and gradients; a prediction, boxes."""
    torch.manual_seed(0)
    config = load_config(found)
    model = MODELS.build(config.model)
    model.init_weights()
    keep_boxes_exact(model)
    model.to(device)
    size = 64
    data = {
        "inputs": [torch.rand(num_slices(config), size, size) * 255 - 50],
        "data_samples": _samples(num_boxes, size, config.model.to_dict()),
    }
    if config.model.type == "MeanTeacherDetector":  # what its teacher finds has no masks
        del data["data_samples"][0].gt_instances.masks
    batch = model.data_preprocessor(data, training=True)
    MessageHub.get_current_instance().update_info_dict({"iter": 9, "max_iters": 10})  # past any warm-up of a loss
    with torch.autocast(device, dtype, enabled=dtype is not None):
        losses = model(**batch, mode="loss")
    total, parts = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    if num_boxes == 0:
        assert float(parts["loss_bbox"].detach()) == 0.0
    model.eval()
    with torch.no_grad(), torch.autocast(device, dtype, enabled=dtype is not None):
        (result,) = model(**model.data_preprocessor(data, training=False), mode="predict")
    boxes = result.pred_instances
    assert boxes.bboxes.shape[1] == 4
    if "tags" in data["data_samples"][0].gt_instances:
        assert boxes.tag_scores.shape == (len(boxes), _first(config.model.to_dict(), "num_tags"))


@pytest.mark.parametrize("twin", [False, True])
def test_rows_of_the_partial_label_paper(twin):
    def row(name):
        (path,) = ROOT.rglob(f"{name}_20e_deeplesion.py")
        return load_config(path, twin=twin)

    def weights(name):
        loss = row(name).model.rpn_head.loss_cls
        return loss.neg_weight, loss.keep_prob

    a3d = "pluld-a3d_densenet121-fpn"
    for method in ("a3d_densenet121-fpn_7s", "alignshift_densenet121-fpn_7s", "faster-rcnn_r50-fpn_3s"):
        assert row(method).model.rpn_head.loss_cls.type == "CrossEntropyLoss"
        assert weights(f"pluld-{method}") == (0.6, 0.5)
    assert weights(f"{a3d}_mask-only_7s") == (1.0, 0.5)
    assert weights(f"{a3d}_factor-only_7s") == (0.6, 1.0)
    assert weights(f"{a3d}_neg-weight-0.3-nomask_7s") == (0.3, 1.0)
    figure = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9]  # 0.6 is the row itself, 1.0 the mask alone
    assert [weights(f"{a3d}_neg-weight-{value}_7s") for value in figure] == [(value, 0.5) for value in figure]
    without = figure[1:]  # 0.6 is the factor alone, 1.0 the usual loss
    assert [weights(f"{a3d}_neg-weight-{value}-nomask_7s") for value in without] == [(value, 1.0) for value in without]
    optimizers = [row(f"{a3d}_lr-{rate}_7s").optim_wrapper.optimizer for rate in ("0.02", "0.002", "0.0002")]
    assert {(item.type, item.momentum, item.weight_decay) for item in optimizers} == {("SGD", 0.9, 1e-4)}
    first = optimizers[0].lr
    assert [item.lr for item in optimizers] == pytest.approx([first, first / 10, first / 100])
    # But for the rate, and the miniature's optimizer, the study trains the row of the loss.
    configs = [row(f"{a3d}{name}_7s").to_dict() for name in ("", "_lr-0.02", "_lr-0.0002")]
    for config in configs:
        config["optim_wrapper"].pop("optimizer")
    assert configs[0] == configs[1] == configs[2]


@pytest.mark.parametrize("found", TWINS, ids=lambda found: found.name)
def test_what_shrinks_a_row_leaves_what_it_is_about(found):
    """Loss, mixer, sampling of anchors and the kind of every part are the same in both sizes, but AFP's weights."""
    twin, paper = load_config(found), load_config(found.path)
    networks = [config.model.get("detector", config.model) for config in (twin, paper)]  # one of several equal ones
    heads = [network.get("rpn_head", network.get("bbox_head")) for network in networks]
    heads = [head.get("head", head) for head in heads]
    losses = [{key: value for key, value in head.to_dict().items() if key.startswith("loss_")} for head in heads]
    if heads[1].type == "AFPHead":
        for loss in losses[1].values():
            weighted = loss.get("loss", loss)
            weighted["loss_weight"] = pytest.approx(weighted["loss_weight"] / 20)
    assert losses[0] == losses[1] != {}
    for key in ("slice_mixer", "slices_as", "num_slices", "domain_attention"):
        assert networks[0].backbone.get(key) == networks[1].backbone.get(key)
    for which in ("train", "test"):
        loads = [_steps_of(config, which)[0] for config in (twin, paper)]
        for key in ("type", "num_slices", "slice_gap_mm", "interp"):
            assert loads[0][key] == loads[1][key]
    settings = [network.train_cfg or {} for network in networks]  # FCOS has none
    assigners = [setting.get("rpn", setting).get("assigner") for setting in settings]
    assert assigners[0] == assigners[1]
    assert twin.model.keys() == paper.model.keys()
    for part in ("data_preprocessor", "backbone", "neck", "rpn_head", "roi_head", "bbox_head"):
        assert networks[0].get(part, {}).get("type") == networks[1].get(part, {}).get("type")
    assert heads[0].type == heads[1].type
