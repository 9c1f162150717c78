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
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from mmpluld.engine.config_check import check_config, load_config
from mmpluld.registry import MODELS

ROOT = Path(__file__).resolve().parents[2] / "configs"
LEAVES = sorted(path for path in ROOT.rglob("*.py") if "_base_" not in path.parts)
IDS = [path.stem for path in LEAVES]


TWINS = [path for path in LEAVES if path.stem.endswith("_phantom")]
# Values that change neither a shape nor which code runs; one leaf stands for all that differ in them alone.
VALUES = ("neg_weight", "keep_prob", "pos_iou_thr", "score_thr", "experts", "calibrated")


def _networks() -> list[Path]:
    """One leaf for each network."""

    def without_values(node):
        if isinstance(node, dict):
            return {key: without_values(value) for key, value in node.items() if key not in VALUES}
        return [without_values(item) for item in node] if isinstance(node, (list, tuple)) else node

    found: dict[str, Path] = {}
    # Calibrated experts cannot predict before they are fitted; the same network without stands for them.
    for path in sorted(LEAVES, key=lambda path: "calibrated" in path.stem):
        model = load_config(path).model.to_dict()
        found.setdefault(str(without_values(model)), path)
    return list(found.values())


def _steps() -> list[ParameterSet]:
    """Each network with and without a box.

    Long are full-size networks without a box (their twins stay) and converted ones of 7 slices (those of 3 stay).
    """

    def is_long(path: Path, num_boxes: int) -> bool:
        converted = path.parent.name == "legacy"
        other_proposals = path.parent.name == "lens" and not path.stem.startswith("lens-afp")
        return path not in TWINS and (num_boxes == 0 or other_proposals or (converted and "_3s_" not in path.stem))

    return [
        pytest.param(path, boxes, id=f"{path.stem}-{boxes}", marks=[pytest.mark.slow] if is_long(path, boxes) else [])
        for path in _networks()
        for boxes in (0, 1)
    ]


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope("mmpluld"):
        yield


def test_names_are_unique_and_follow_the_rule():
    assert LEAVES
    assert len(set(IDS)) == len(IDS)
    for name in IDS:
        assert name == name.lower()
        assert name.split("_")[-1] in {"deeplesion", "phantom"}


@pytest.mark.parametrize("path", LEAVES, ids=IDS)
def test_accepted_and_portable(path):
    config = load_config(path)
    check_config(config)
    assert config.default_scope == "mmpluld"
    assert not Path(config.data_root).is_absolute()
    assert Config.fromstring(config.pretty_text, ".py").model == config.model
    with torch.device("meta"):
        MODELS.build(config.model)


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


@pytest.mark.parametrize(("path", "num_boxes"), _steps())
def test_one_training_step_and_one_prediction(path, num_boxes):
    torch.manual_seed(0)
    config = load_config(path)
    model = MODELS.build(config.model)
    model.init_weights()
    size = 64
    data = {
        "inputs": [torch.rand(config.num_slices, size, size) * 255 - 50],
        "data_samples": _samples(num_boxes, size, config.model.to_dict()),
    }
    batch = model.data_preprocessor(data, training=True)
    losses = model(**batch, mode="loss")
    total, parts = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    assert all(parameter.grad is None or torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    if num_boxes == 0:
        assert float(parts["loss_bbox"].detach()) == 0.0
    model.eval()
    with torch.no_grad():
        (result,) = model(**model.data_preprocessor(data, training=False), mode="predict")
    found = result.pred_instances
    assert found.bboxes.shape[1] == 4
    if "tags" in data["data_samples"][0].gt_instances:
        assert found.tag_scores.shape == (len(found), _first(config.model.to_dict(), "num_tags"))


def test_every_row_has_its_twin_and_the_other_way_round():
    epochs = re.compile(r"_\d+e_deeplesion$")
    rows = [path for path in LEAVES if epochs.search(path.stem)]
    assert {(path.parent, epochs.sub("", path.stem)) for path in rows} == {
        (path.parent, path.stem.removesuffix("_phantom")) for path in TWINS
    }


@pytest.mark.parametrize("end", ["20e_deeplesion", "phantom"])
def test_rows_of_the_partial_label_paper(end):
    def row(name):
        (path,) = ROOT.rglob(f"{name}_{end}.py")
        return load_config(path)

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
    rates = [row(f"{a3d}{name}_7s").optim_wrapper.optimizer.lr for name in ("", "_lr-0.002", "_lr-0.0002", "_paper")]
    assert rates == pytest.approx([rates[0], rates[0] / 10, rates[0] / 100, rates[0] / 10])


def test_paper_variant():
    config = load_config(ROOT / "pluld/pluld-a3d_densenet121-fpn_paper_7s_20e_deeplesion.py")
    base = load_config(ROOT / "pluld/pluld-a3d_densenet121-fpn_7s_20e_deeplesion.py")
    train = config.train_dataloader.dataset.pipeline
    before = [step for step in base.train_dataloader.dataset.pipeline if step.type != "ShiftScaleRotate"]
    assert [step.type for step in train] == [step.type for step in before]
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert tuple(loader.dataset.pipeline[1].window_hu) == (-1024, 3071)
    assert config.param_scheduler[1].milestones == [12, 14]
    assert config.model == base.model


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_twin_keeps_what_its_paper_row_is_about(path):
    """A twin is smaller; loss, mixer, sampling of anchors and the kind of every part stay those of the paper config."""
    twin = load_config(path)
    (row,) = path.parent.glob(path.stem.replace("_phantom", "_*_deeplesion.py"))
    paper = load_config(row)
    networks = [config.model.get("detector", config.model) for config in (twin, paper)]  # one of several equal ones
    heads = [network.get("rpn_head", network.get("bbox_head")) for network in networks]
    heads = [head.get("head", head) for head in heads]
    losses = [{key: value for key, value in head.items() if key.startswith("loss_")} for head in heads]
    assert losses[0] == losses[1] != {}
    assert twin.num_slices == paper.num_slices
    for key in ("slice_mixer", "slices_as", "num_slices", "domain_attention"):
        assert networks[0].backbone.get(key) == networks[1].backbone.get(key)
    for loader in ("train_dataloader", "test_dataloader"):
        datasets = [config[loader].dataset for config in (twin, paper)]
        loads = [dataset.get("datasets", [dataset])[0].pipeline[0] for dataset in datasets]
        for key in ("type", "num_slices", "slice_gap_mm", "interp"):
            assert loads[0][key] == loads[1][key]
    settings = [network.train_cfg or {} for network in networks]  # FCOS has none
    assigners = [setting.get("rpn", setting).get("assigner") for setting in settings]
    assert assigners[0] == assigners[1]
    assert twin.model.keys() == paper.model.keys()
    for part in ("data_preprocessor", "backbone", "neck", "rpn_head", "roi_head", "bbox_head"):
        assert networks[0].get(part, {}).get("type") == networks[1].get(part, {}).get("type")
    assert heads[0].type == heads[1].type
