"""The share of negatives on unmarked lesions: measured right, and without a trace in the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmpluld.datasets.converters import convert_deeplesion
from mmpluld.engine.config import load_config
from mmpluld.engine.negatives import NegativesHook, _on_lesions, _watch_points, bbox_overlaps
from mmpluld.engine.run import train
from mmpluld.phantom import write_deeplesion_layout
from mmpluld.registry import DATASETS, MODELS
from mmpluld.structures import AnnotationSet

TRUTH = "deeplesion/truth/train_key_slices.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a phantom ``deeplesion``: one training patient, crowded with lesions of which half are marked."""
    folder = tmp_path_factory.mktemp("negatives")
    settings = {"size": 64, "max_slices": 12, "lesions_per_series": 24, "min_long_mm": 14}
    write_deeplesion_layout(folder / "deeplesion", (1, 0, 1), seed=1, workers=1, **settings)
    convert_deeplesion(folder / "deeplesion")
    return folder


def data_options(name: str, root: Path) -> list[str]:
    """Options that make a twin train on the phantom."""
    return [f"data_root={root}" if "lens" in name else f"data_root={root / 'deeplesion'}"]


def run(name: str, root: Path, folder: Path, *options: str) -> tuple[dict[str, torch.Tensor], Path]:
    """Weights after one epoch of a twin, and its work folder."""
    shrink = ["train_cfg.max_epochs=1", "train_dataloader.batch_size=2", "log_level=ERROR"]
    shrink += ["val_dataloader=None", "val_evaluator=None", "val_cfg=None", "default_hooks.checkpoint.save_best=None"]
    shrink += ["train_dataloader.sampler.batch_size=2"] if "lens" in name else []
    train(name, work_dir=folder, cfg_options=[*data_options(name, root), *shrink, *options])
    (path,) = folder.glob("epoch_1.pth")
    return torch.load(path, weights_only=True)["state_dict"], folder


@pytest.mark.parametrize(
    "name",
    [
        "a3d_densenet121-fpn_7s_phantom",
        "retinanet-a3d_densenet121-fpn_7s_phantom",
        "fcos-a3d_densenet121-fpn_7s_phantom",
        "lens-afp_densenet121_9s_phantom",
    ],
)
def test_training_is_the_same_bit_for_bit_and_the_shares_are_written(name: str, root: Path, tmp_path: Path) -> None:
    truth = str(root / TRUTH)
    hook = ["default_hooks.negatives.type=NegativesHook", f"default_hooks.negatives.truth={truth}"]
    without, _ = run(name, root, tmp_path / "without")
    watched, folder = run(name, root, tmp_path / "watched", *hook, "default_hooks.negatives.interval=1")
    assert without.keys() == watched.keys()
    assert all(torch.equal(without[key], watched[key]) for key in without)
    report = json.loads((folder / "negatives.json").read_text())
    stages = ["rpn", "roi"] if "lens" in name or name.startswith("a3d") else ["rpn"]
    assert report.keys() == {"images", *(stage + end for stage in stages for end in ("", "_centre", "_negatives"))}
    assert report["images"] > 0
    for stage in stages:
        assert 0 <= report[stage] <= report[f"{stage}_centre"] <= 1
        assert report[f"{stage}_negatives"] > report["images"]
    if not name.startswith("a3d"):  # which samples few of its negatives; the others take all
        assert report["rpn_centre"] > 0


def dataset(name: str, root: Path, ann_file: str, twin: bool) -> Any:
    """The training set of a config on the phantom, without masks."""
    config = load_config(name, data_options(name, root), twin=twin)
    settings = config.train_dataloader.dataset
    if "datasets" in settings:
        settings = {**settings.shared, **settings.datasets["deeplesion"]}
    settings["pipeline"]["truth"]["with_mask"] = False
    if settings["pipeline"].get("flip"):
        settings["pipeline"]["flip"]["prob"] = 0.5
    return DATASETS.build({**settings, "ann_file": ann_file})


@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("name", ["a3d_densenet121-fpn_7s_20e_deeplesion", "lens-afp_densenet121_9s_8e_deeplesion"])
def test_truth_follows_the_geometry_of_the_sample(name: str, twin: bool, root: Path) -> None:
    """Complete truth as training set: what the pipeline makes of its boxes is what the hook makes of them."""
    prefix = "" if "lens" in name else "../"
    samples = dataset(name, root, f"{prefix}deeplesion/truth/train_key_slices.json".replace("../deeplesion/", ""), twin)
    torch.manual_seed(0)
    hook, matched, moved = NegativesHook(TRUTH), 0, False
    for _ in range(3):
        for number in range(len(samples)):
            info = samples.get_data_info(number)
            boxes = torch.tensor([item["bbox"] for item in info["instances"] if not item["ignore_flag"]])
            hook._unmarked = {(info["volume_id"], info["key_slice"]): boxes.float()}
            packed = samples[number]["data_samples"]
            mapped, own = hook._in_image(packed.metainfo), packed.gt_instances.bboxes
            own = own.tensor if hasattr(own, "tensor") else own
            height, width = packed.metainfo["img_shape"][:2]
            centre = (own[:, :2] + own[:, 2:]) / 2
            # Boxes cut by the edge have their centre elsewhere.
            whole = ((own[:, :2] > 1) & (own[:, 2:] < torch.tensor([width, height]) - 1)).all(1) & (centre > 0).all(1)
            assert (bbox_overlaps(own[whole], mapped).amax(1) > 0.97).all() if whole.any() else True
            matched += int(whole.sum())
            moved |= len(boxes) > 0 and len(mapped) > 0 and not torch.allclose(boxes[0].float(), mapped[0])
    assert matched > 5 and moved


def test_touching_and_centred() -> None:
    lesions = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    boxes = torch.tensor(
        [[10.0, 10.0, 30.0, 29.0], [10.0, 10.0, 30.0, 19.0], [12.0, 12.0, 24.0, 24.0], [30, 30, 40, 40]]
    )
    touching, centred = _on_lesions(boxes, lesions)
    assert touching.tolist() == [True, False, False, False]  # IoU 0.95, 0.45, 0.36, 0
    assert centred.tolist() == [True, True, True, False]
    points = torch.tensor([[20.0, 20.0], [14.0, 20.0], [16.0, 24.0], [31.0, 20.0]])
    touching, centred = _on_lesions(points, lesions)
    assert touching.tolist() == [True, False, True, False]
    assert centred.tolist() == [True, True, True, False]
    assert [part.tolist() for part in _on_lesions(points, lesions[:0])] == [[False] * 4] * 2


@pytest.mark.usefixtures("mmpluld_scope")
@pytest.mark.parametrize("kind", ["AFPHead", "IgnoreAwareFCOSHead"])
def test_cells_on_an_uncertain_lesion_are_no_negatives(kind: str) -> None:
    more = {"strides": [4]} if kind == "AFPHead" else {"strides": [4], "regress_ranges": ((-1, 1e8),), "norm_cfg": None}
    head = MODELS.build({"type": kind, "num_classes": 1, "in_channels": 4, "feat_channels": 4, **more})
    sample = DetDataSample(metainfo={"img_shape": (64, 64), "batch_input_shape": (64, 64), "pad_shape": (64, 64)})
    for name, box in (("gt_instances", [8.0, 8, 28, 24]), ("ignored_instances", [36.0, 36, 60, 60])):
        setattr(sample, name, InstanceData(bboxes=torch.tensor([box]), labels=torch.zeros(1, dtype=torch.long)))
    found: list[tuple[int, torch.Tensor]] = []
    undo = _watch_points(head, found)
    head.loss((torch.randn(1, 4, 16, 16),), [sample])
    undo()
    ((image, points),) = found
    inside = ((points > 42) & (points < 54)).all(1)
    assert (image, int(inside.sum())) == (0, 0)
    assert len(points) > 150


def test_marked_lesions_and_those_to_ignore_do_not_count(root: Path, tmp_path: Path) -> None:
    truth = AnnotationSet.load(root / TRUTH)
    marked = [lesion.attributes["marked"] for lesion in truth.lesions if not lesion.ignore]
    assert 0 < sum(marked) < len(marked)
    samples = dataset("a3d_densenet121-fpn_7s_20e_deeplesion", root, "annotations/train.json", True)

    class Runner:
        class train_dataloader:
            dataset = samples

        class message_hub:
            get_info = staticmethod(lambda key: None)

    def unmarked(path: Path) -> int:
        hook = NegativesHook(str(path))
        hook.before_train(Runner)
        return sum(len(boxes) for boxes in hook._unmarked.values())

    assert unmarked(root / TRUTH) == marked.count(False)
    for lesion in truth.lesions:
        lesion.ignore = True
    truth.save(tmp_path / "ignored.json")
    assert unmarked(tmp_path / "ignored.json") == 0


def test_refusals(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="interval is 0; it is a number of iterations from 1"):
        NegativesHook("truth.json", interval=0)
    with pytest.raises(ValueError, match="truth is None; it is the path of an annotation file"):
        NegativesHook(None)
    name = "a3d_densenet121-fpn_7s_phantom"
    hook = "default_hooks.negatives.type=NegativesHook"
    with pytest.raises(ValueError, match=r"truth/none.json: no such file; give an annotation file with all lesions"):
        run(name, root, tmp_path / "a", hook, "default_hooks.negatives.truth=truth/none.json")
    other = AnnotationSet({"name": "other", "label_scope": "universal-complete"}, [], [])
    other.save(tmp_path / "other.json")
    with pytest.raises(ValueError, match="holds no volume of the training set"):
        run(name, root, tmp_path / "b", hook, f"default_hooks.negatives.truth={tmp_path / 'other.json'}")
    keys = "train_dataloader.dataset.pipeline.pack.meta_keys=('img_id','volume_id','key_slice')"
    with pytest.raises(ValueError, match="add 'homography_matrix' to meta_keys of PackDetInputs"):
        run(name, root, tmp_path / "c", hook, f"default_hooks.negatives.truth={root / TRUTH}", keys)
