"""LENS detectors on batches of one dataset: who is trained, who is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

from mmpluld.errors import InputError
from mmpluld.registry import MODELS

DATASETS = ["deeplesion", "luna16", "lits", "nih-ln"]
VARIANTS = ["afp-4datasets", "rpn-4datasets", "centernet-4datasets", "fcos-4datasets", "fcos-1stage-4datasets"]
VARIANTS += ["afp-4datasets-separate", "afp-4datasets-gate"]
BASES = Path(__file__).parents[3] / "configs/_base_/models"


def wrapper(model: torch.nn.Module, kind: str = "SGD") -> OptimWrapper:
    settings = {"SGD": {"momentum": 0.9}, "RAdam": {}}[kind]
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.01, weight_decay=1e-2, **settings)
    return OptimWrapper(optimizer, clip_grad={"max_norm": 1.0})


def step(model: Any, optim: OptimWrapper, data: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    torch.manual_seed(seed)
    return model.train().train_step(data, optim)


def owner(key: str) -> str | None:
    """The dataset a tensor of the state belongs to; None for shared ones."""
    found = [name for name in DATASETS if f".{name}." in f".{key}"]
    return found[0] if found else None


@pytest.mark.parametrize(("name", "kind"), [*((name, "SGD") for name in VARIANTS), ("afp-4datasets", "RAdam")])
def test_a_batch_moves_the_parts_of_its_dataset_alone(lens, name, kind):
    model = lens.model(name)
    optim = wrapper(model, kind)
    step(model, optim, lens.batch("deeplesion", "deeplesion"))  # its parts now have momentum
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for seed in (1, 2):
        step(model, optim, lens.batch("luna16", "luna16", seed=seed), seed)
    after = model.state_dict()
    others = [key for key in before if owner(key) not in (None, "luna16")]
    assert len(others) >= 12
    assert [key for key in others if not torch.equal(before[key], after[key])] == []
    names = [key for key, _ in model.named_parameters()]
    assert [key for key in names if owner(key) == "luna16" and torch.equal(before[key], after[key])] == []
    shared = [key for key in names if owner(key) is None]
    assert [key for key in shared if torch.equal(before[key], after[key])] == []
    assert (not shared) == (name == "afp-4datasets-separate")


@pytest.mark.parametrize("name", VARIANTS)
def test_all_are_asked_in_the_test(lens, name):
    model = lens.model(name).eval()
    everything = {"fusion": {"type": "nms", "iou_threshold": 1.0}, "max_per_img": 1000, "score_thr": -1.0}
    if name.endswith("separate"):
        model.fusion, model.max_per_img = everything["fusion"], 1000
    elif "1stage" not in name:
        model.roi_head.test_cfg.update(everything)
    if "centernet" in name:
        for head in model.rpn_head.heads.values():
            torch.nn.init.constant_(head.wh_head[-1].bias, 4.0)  # untrained, it proposes boxes without area
    with torch.no_grad():
        results = model.test_step(lens.batch(None, None))
    for result in results:
        found = result.pred_instances
        assert len(found)
        assert len(set(found.expert.tolist())) == 4
        assert (found.scores[:-1] >= found.scores[1:]).all()
        assert found.labels.tolist() == [0] * len(found)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("lesions", [0, 1])
def test_losses_are_finite_with_and_without_lesions(lens, name, lesions):
    logs = step(lens.model(name), wrapper(torch.nn.Linear(1, 1)), lens.batch("lits", lesions=lesions))
    assert torch.isfinite(logs["loss"])


@pytest.mark.parametrize("name", ["afp-4datasets", "fcos-1stage-4datasets", "afp-4datasets-separate"])
def test_mixed_batches_are_refused(lens, name):
    model = lens.model(name)
    with pytest.raises(InputError, match="a batch holds samples of lits and luna16"):
        step(model, wrapper(model), lens.batch("lits", "luna16"))


def test_without_proposals_the_result_is_empty(lens):
    model = lens.model("afp-4datasets").eval()
    model.rpn_head.test_cfg.min_bbox_size = 1e6
    for head in model.rpn_head.heads.values():
        head.test_cfg.min_bbox_size = 1e6
    with torch.no_grad():
        (result,) = model.test_step(lens.batch(None))
    assert result.pred_instances.bboxes.shape == (0, 4)
    assert result.pred_instances.expert.shape == (0,)


def test_gate_leaves_the_detector_alone(lens):
    """The same bits after training with and without, while gradients are clipped."""
    states = []
    for name in ("afp-4datasets", "afp-4datasets-gate"):
        model = lens.model(name)
        optim = wrapper(model)
        for seed, dataset in enumerate(("lits", "luna16", "lits", "deeplesion")):
            logs = step(model, optim, lens.batch(dataset, dataset, seed=seed), seed)
        states.append(model.state_dict())
    plain, gated = states
    assert logs["gate_ce"] > 0
    assert [key for key in plain if not torch.equal(plain[key], gated[key])] == []
    assert {key for key in gated if key not in plain} == {f"roi_head.gate.{k}" for k in ("weight", "bias", "seen")}
    assert gated["roi_head.gate.seen"].tolist() == [2, 2, 3, 1]
    assert gated["roi_head.gate.weight"].abs().max() > 0


def test_four_datasets_make_the_model_a_tenth_larger():
    """Table V: 1.1 times the size of a single dataset's, and 4 times for separate models."""
    sizes = {}
    for name in ("afp", "afp-4datasets", "afp-4datasets-separate"):
        with DefaultScope.overwrite_default_scope("mmpluld"), torch.device("meta"):
            model = MODELS.build(Config.fromfile(BASES / f"lens_densenet121_{name}.py").model)
        sizes[name] = sum(p.numel() for p in model.parameters())
    assert sizes["afp-4datasets"] / sizes["afp"] == pytest.approx(1.111, abs=5e-4)
    assert sizes["afp-4datasets-separate"] == 4 * sizes["afp"]
