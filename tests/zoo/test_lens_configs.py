"""What the rows of LENS' tables differ in, at both sizes."""

from pathlib import Path

import pytest
from mmengine.config import ConfigDict

from mmpluld.datasets.named_concat import dataset_settings
from mmpluld.datasets.steps import pipeline_steps
from mmpluld.engine.config import load_config
from mmpluld.reproduce import TABLES

ROOT = Path(__file__).resolve().parents[2] / "configs"
SIZES = ["paper", "twin"]
DATASETS = ["deeplesion", "luna16", "lits", "nih-ln"]


def row(name, size):
    return load_config(ROOT / f"lens/lens-{name}_9s_8e_deeplesion.py", twin=size == "twin")


def parts(config):
    return [ConfigDict(part) for part in dataset_settings(config.train_dataloader.dataset)]


@pytest.mark.parametrize("size", SIZES)
def test_every_row_is_tested_on_the_same_volumes_in_3d(size):
    tests = []
    seen = set()
    for table in TABLES.values():
        if table.phantom != "lens" or table.protocol != "lens-3d" or (table.twins_only and size == "paper"):
            continue
        if table.name.startswith("choose-"):  # with other rules of the test, or the same ones again
            continue
        for item in table.rows:
            known = (item.config_name(size == "twin"), item.options, item.calibrated)
            if known in seen:
                continue
            seen.add(known)
            config = load_config(item.config_name(size == "twin"), list(item.options))
            dataset = config.test_dataloader.dataset
            place = Path(dataset.data_root) / dataset.get("data_prefix", {}).get("img_path", "")
            test = Path(dataset.data_root) / dataset.ann_file
            if item.calibrated:  # whose scores are lower
                config.test_cfg.link_score_thr = 0.05
            tests.append((test, place, config.test_cfg.to_dict(), config.test_evaluator.to_dict()))
    first = tests[0]
    assert first[2]["type"] == "VolumeTestLoop"
    assert first[3] == {"type": "VolumeFROCMetric", "protocol": "lens-3d"}
    for test in tests:
        assert test == first


@pytest.mark.parametrize("size", SIZES)
def test_rows_learn_from_their_datasets(size):
    assert [part.data_prefix.img_path for part in parts(row("afp_densenet121", size))] == DATASETS[:1]
    names = ("4datasets", "4datasets-no-fusion", "4datasets-mined", "pooled", "positive-pooled", "separate")
    for name in names:
        assert [part.data_prefix.img_path for part in parts(row(f"afp_densenet121_{name}", size))] == DATASETS
    policies = [part.sampling.policy for part in parts(row("afp_densenet121_4datasets", size))]
    assert policies == ["key_slices", "all_slices", "all_slices", "all_slices"]
    (mined,) = parts(row("afp_densenet121_mined", size))
    assert (mined.ann_file, mined.sampling.policy) == ("deeplesion/annotations/train_mined.json", "lesion_slices")
    (unlabeled,) = parts(row("afp_densenet121_mined-unlabeled", size))
    assert (unlabeled.ann_file, unlabeled.sampling.policy) == (mined.ann_file, "all_slices")


@pytest.mark.parametrize("size", SIZES)
def test_batches_and_sampling(size):
    ours = row("afp_densenet121_4datasets", size).train_dataloader
    assert ours.sampler.batch_size == ours.batch_size
    assert (ours.sampler.one_per_lesion, ours.sampler.positive_ratio) == (True, 2)
    pooled = row("afp_densenet121_pooled", size).train_dataloader.sampler
    assert (pooled.batch_size, pooled.positive_ratio) == (None, 2)
    positive = row("afp_densenet121_positive-pooled", size)
    assert (positive.train_dataloader.sampler.batch_size, positive.train_dataloader.sampler.positive_ratio) == (
        None,
    ) * 2
    for part in parts(positive):
        (step,) = [step for step in pipeline_steps(part.pipeline) if step.type == "IgnoreBackground"]
        assert step.datasets == DATASETS[1:]


@pytest.mark.parametrize("size", SIZES)
def test_children_of_the_proposed_row_change_one_thing(size):
    ours = row("afp_densenet121_4datasets", size)
    mined = row("afp_densenet121_4datasets-mined", size)
    assert mined.model == ours.model
    truth = row("afp_densenet121_4datasets-mined-ignored-as-truth", size)
    assert [part.get("uncertain") for part in parts(mined)] == [None] * 4
    assert [part.get("uncertain") for part in parts(truth)] == ["truth", None, None, None]
    no_fusion = row("afp_densenet121_4datasets-no-fusion", size)
    assert no_fusion.model.test_cfg.rcnn.pop("experts") == ["deeplesion"]
    assert no_fusion.model == ours.model
    calibrated = row("afp_densenet121_4datasets-calibrated", size)
    assert calibrated.model.test_cfg.rcnn.pop("calibrated") is True
    assert calibrated.model == ours.model
    gate = row("afp_densenet121_4datasets-gate", size)
    assert gate.model.roi_head.pop("gate").type == "ExpertGate"
    assert gate.model == ours.model
    attention = row("afp_densenet121_4datasets-attention", size)
    assert attention.model.backbone.pop("domain_attention")
    assert attention.model == ours.model


@pytest.mark.parametrize("size", SIZES)
def test_deeplesion_alone_has_the_steps_of_four_datasets(size):
    ours, longer = row("afp_densenet121_4datasets", size), row("afp_densenet121_longer", size)
    assert longer.train_dataloader.sampler.pop("only") == "deeplesion"
    for part in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"):
        assert longer[part] == ours[part]
    assert longer.model == row("afp_densenet121", size).model


@pytest.mark.parametrize("size", SIZES)
def test_figure_7_tests_each_dataset_on_its_held_out_part(size):
    for item in (row for row in TABLES["lens-figure7"].rows if row.x in (25, 100)):
        config = load_config(item.config_name(size == "twin"), list(item.options))
        dataset = next(name for name in DATASETS[1:] if f"-{name}-" in f"{item.key}")
        joint, percent = "joint" in item.key, int(item.x)
        test = config.test_dataloader.dataset
        assert (test.data_prefix.img_path, test.ann_file) == (dataset, f"{dataset}/annotations/test.json")
        assert (config.test_evaluator.type, config.test_evaluator.protocol) == ("VolumeFROCMetric", "centre-3d")
        assert config.train_dataloader.sampler.get("only") == (None if joint else dataset)
        assert config.model.test_cfg.rcnn.get("experts") == ([dataset] if joint else None)
        shares = [part.get("fraction", 1) for part in parts(config)]
        assert shares == ([percent / 100] if "-own-" in item.key else [1, *[percent / 100] * 3])
        for part in parts(config):  # no patient is tested on whom a detector has seen
            assert part.ann_file == f"{part.data_prefix.img_path}/annotations/train.json"


@pytest.mark.parametrize("size", SIZES)
def test_proposal_networks_differ_in_the_head_alone(size):
    ours = row("afp_densenet121_4datasets", size).model
    for name, kind in (
        ("rpn", "SharedCountRPNHead"),
        ("centernet", "CenterNetProposalHead"),
        ("fcos", "IgnoreAwareFCOSHead"),
    ):
        other = row(f"{name}_densenet121_4datasets", size).model
        assert other.rpn_head.head.type == kind
        assert other.rpn_head.datasets == DATASETS
        for key in ("backbone", "neck", "roi_head", "test_cfg"):
            assert other[key] == ours[key]
    one_stage = row("fcos-1stage_densenet121_4datasets", size).model
    assert "roi_head" not in one_stage
    assert one_stage.bbox_head.head == row("fcos_densenet121_4datasets", size).model.rpn_head.head


MULAN = ["mulan_densenet121_9s", "mulan_densenet121_detection-only_9s", "mulan_densenet121_refine-features_9s"]


@pytest.mark.parametrize("name", [*MULAN, "mulan_densenet121_volumes_9s"])
def test_miniatures_of_mulan_are_trained_as_that_of_lens_on_one_dataset(name):
    """What is left between them is the method: masks and tags are read, boxes and images are the same."""
    mulan, lens = (load_config(f"{row}_phantom") for row in (name, "lens-afp_densenet121_9s"))
    for key in ("optim_wrapper", "param_scheduler", "train_cfg", "auto_scale_lr", "randomness"):
        assert mulan[key] == lens[key]
    loaders = [config.train_dataloader for config in (mulan, lens)]
    for key in ("batch_size", "sampler"):
        assert loaders[0][key] == loaders[1][key]
    (own,), (theirs,) = parts(mulan), parts(lens)
    assert own.sampling == theirs.sampling
    own_steps, steps = ([dict(step) for step in pipeline_steps(part.pipeline)] for part in (own, theirs))
    for step in own_steps:
        step.pop("with_mask", None)
        step["type"] = {"PackLesionInputs": "PackDetInputs"}.get(step["type"], step["type"])
    assert [step for step in own_steps if step["type"] != "LoadLesionTags"] == steps
    for key in ("backbone", "neck", "test_cfg"):
        mulan.model[key].pop("mask_thr_binary", None)
    assert (mulan.model.backbone, mulan.model.neck) == (lens.model.backbone, lens.model.neck)
    if name.startswith("mulan_densenet121_volumes"):
        assert Path(own.data_root) / own.ann_file == Path(theirs.data_root) / theirs.ann_file


def test_one_crop_and_one_smallest_box_for_all_miniatures():
    """They stand in one place, so that a change reaches every row and no row drops lesions that another keeps."""
    found = set()
    lens = ("lens-afp_densenet121_9s", "lens-afp_densenet121_4datasets_9s", "lens-afp_densenet121_positive-pooled_9s")
    for name in ("a3d_densenet121-fpn_7s", "pluld-faster-rcnn_r50-fpn_3s", *MULAN, *lens):
        for part in parts(load_config(f"{name}_phantom")):
            steps = [step for step in pipeline_steps(part.pipeline) if "Crop" in step.type or "Filter" in step.type]
            found.add(repr([step.to_dict() for step in steps]))
    (steps,) = found
    assert "CropAtLesion" in steps
    # The margin around the smallest lesion is about 3 px of 2.8 mm, and something of the lesion shows.
    assert "'min_gt_bbox_wh': (4, 4)" in steps
