"""Scores after false-positive reduction."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpluld.engine.config import load_config
from mmpluld.engine.config_digest import CONFIG_SHA256, config_digest
from mmpluld.errors import InputError
from mmpluld.inference.lesions_3d import Lesion3D
from mmpluld.inference.rescore import (
    Rescorer,
    combined_scores,
    load_rescorer,
    rescore_detections,
    rescorer_of_test,
)
from mmpluld.inference.settings import DetectionSettings
from mmpluld.io.array_store import NPYSliceSource
from mmpluld.postprocess import Box3D
from mmpluld.publish.publish import Reduction, publish
from mmpluld.registry import build_model
from mmpluld.structures import AnnotationSet, Detections, DetectionSet, VolumeRecord


@pytest.fixture(scope="module")
def config():
    return load_config("fpr_resnet18_phantom")


@pytest.fixture(scope="module")
def bright(config, tmp_path_factory):
    """Weights that score a patch by the brightness of the box alone, near 0 where it is dark and near 1 else."""
    from mmengine.registry import DefaultScope

    from mmpluld.registry import MODELS

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        model = MODELS.build(config.model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.backbone.conv1.weight[0, 0, 0, 3, 3] = 1  # grey values go on to the first map of the first block
        model.backbone.bn1.weight[0] = model.backbone.bn1.running_var[0].add(1e-5).sqrt()
        model.fcs[0].weight[0, :18] = 1 / 18  # their mean over the 18 cells of the box
        model.logit.weight[0, 0], model.logit.bias[0] = 12, -6
    path = tmp_path_factory.mktemp("weights") / "bright.pth"
    meta = {"experiment_name": "fpr_resnet18_phantom_20260101_000000"}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, path)
    return path


@pytest.fixture
def volume(tmp_path):
    """A volume, dark but for a bright cube; the window of the miniature maps -200 to -1 and 300 to 1."""
    array = np.full((12, 32, 32), -200, np.int16)
    array[4:8, 8:16, 8:16] = 300
    np.save(tmp_path / "a.npy", array)
    return VolumeRecord("a", "p", "1", "1", {"kind": "npy", "path": "a.npy"}, 0, 12, (32, 32), (2.0, 2.8, 2.8))


def source_of(tmp_path, volume):
    return NPYSliceSource(tmp_path / "a.npy", volume.spacing_mm, 0)


BRIGHT, DARK = (9, 9, 4, 15, 15, 8), (22, 22, 4, 28, 28, 8)


def finding(box, score):
    return Lesion3D(Box3D(np.array(box, float), score, int(box[2]), np.array(box, float)[[0, 1, 3, 4]]))


def test_average_and_alone():
    detector, own = np.array([0.8, 0.2]), np.array([0.4, 1.0])
    np.testing.assert_allclose(combined_scores(detector, own), [0.6, 0.6])
    np.testing.assert_allclose(combined_scores(detector, own, "alone"), own)


def test_scores_of_boxes_do_not_depend_on_the_batch(tmp_path, config, bright, volume):
    boxes = np.array([DARK, BRIGHT, DARK], float)
    for batch_size in (1, 2, 32):
        rescorer = Rescorer(config, bright, batch_size=batch_size)
        found = rescorer.scores(source_of(tmp_path, volume), np.arange(12), boxes, "a")
        low, high = 1 / (1 + math.exp(6)), 1 / (1 + math.exp(-6))
        np.testing.assert_allclose(found, [low, high, low], atol=1e-4)


@pytest.mark.gpu
@pytest.mark.usefixtures("full_precision")
def test_a_gpu_gives_the_same_scores(tmp_path, config, bright, volume):
    boxes = np.array([DARK, BRIGHT, DARK], float)
    cpu, gpu = (
        Rescorer(config, bright, device=device).scores(source_of(tmp_path, volume), np.arange(12), boxes, "a")
        for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(gpu, cpu, atol=1e-4)


def test_findings_are_sorted_and_dropped_by_their_new_score(tmp_path, config, bright, volume):
    given = [finding(DARK, 0.7), finding(BRIGHT, 0.4), finding((*DARK[:5], 7), 0.1)]
    settings = DetectionSettings(score_thr=0.3)
    source = source_of(tmp_path, volume)
    found = Rescorer(config, bright).rescored(given, source, np.arange(12), settings, "a")
    assert [item.found.score for item in found] == pytest.approx([0.7, 0.35], abs=2e-3)
    assert [tuple(item.found.box) for item in found] == [BRIGHT, DARK]
    last = replace(settings, score_thr=found[-1].found.score)
    assert Rescorer(config, bright).rescored(given, source, np.arange(12), last, "a") == found
    alone = Rescorer(config, bright, "alone").rescored(given, source, np.arange(12), settings, "a")
    assert [item.found.score for item in alone] == pytest.approx([1.0], abs=3e-3)
    one = replace(settings, max_boxes=1)
    assert len(Rescorer(config, bright).rescored(given, source, np.arange(12), one, "a")) == 1
    assert Rescorer(config, bright).rescored([], source, np.arange(12), one, "a") == []


def records(tmp_path, volume, **changes):
    """Write detections and annotations of the volume."""
    found = Detections(
        np.array([DARK, BRIGHT], float),
        np.array([0.6, 0.5]),
        key_slices=np.array([5, 6]),
        tags=({"x": 0.5}, {"y": 0.5}),
        frame=volume.frame,
    )
    DetectionSet({"a": replace(found, **changes)}).save(tmp_path / "detections.json")
    AnnotationSet({"name": "deeplesion", "label_scope": "any"}, [volume]).save(tmp_path / "ann.json")
    return tmp_path / "detections.json", tmp_path / "ann.json", tmp_path


def test_a_record_is_rescored_row_by_row(tmp_path, bright, volume):
    found = rescore_detections(*records(tmp_path, volume), load_rescorer(bright)).volumes["a"]
    assert found.boxes.tolist() == [list(BRIGHT), list(DARK)]
    assert found.scores.tolist() == pytest.approx([0.75, 0.3], abs=2e-3)
    assert found.key_slices.tolist() == [6, 5]
    assert found.tags == ({"y": 0.5}, {"x": 0.5})
    told = r"mean of the detector's and those of fpr_resnet18_phantom \(SHA-256 \w{16}\), weights bright.pth \(SHA-256"
    assert re.search(told, found.history[-1])


def test_a_record_is_not_rescored_twice(tmp_path, bright, volume):
    paths = records(tmp_path, volume)
    rescore_detections(*paths, load_rescorer(bright)).save(paths[0])
    with pytest.raises(
        InputError, match=r"detections\.json: the scores of volume 'a' are of false-positive reduction al"
    ):
        rescore_detections(*paths, load_rescorer(bright))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"frame": "file-voxels"}, "boxes of volume 'a' are in file-voxels"), ({"scores": None}, "has no scores")],
)
def test_records_that_do_not_fit_are_refused(tmp_path, config, bright, volume, changes, message):
    with pytest.raises(InputError, match=message):
        rescore_detections(*records(tmp_path, volume, **changes), Rescorer(config, bright))


def test_settings_are_checked(tmp_path, config, bright, volume):
    with pytest.raises(InputError, match="mode of false-positive reduction is 'mean'; allowed are average and alone"):
        Rescorer(config, bright, "mean")
    with pytest.raises(InputError, match="is no config of false-positive reduction"):
        Rescorer(load_config("lens-afp_densenet121_9s_phantom"), bright)
    with pytest.raises(InputError, match=r"test_cfg.fpr.chekpoint: nothing reads it; did you mean 'checkpoint'"):
        rescorer_of_test({"chekpoint": "x"}, "cpu", "fp32")
    with pytest.raises(InputError, match="test_cfg.fpr has no checkpoint"):
        rescorer_of_test({"mode": "alone"}, "cpu", "fp32")
    state = torch.load(bright, weights_only=True)["state_dict"]
    torch.save(state, tmp_path / "bare.pth")
    with pytest.raises(InputError, match=r"bare.pth: does not tell the config"):
        load_rescorer(tmp_path / "bare.pth")
    unknown = replace(volume, spacing_mm=(float("nan"), 2.8, 2.8))
    with pytest.raises(InputError, match=r"a: voxels are \[nan, 2.8, 2.8\] mm"):
        Rescorer(config, bright).scores(source_of(tmp_path, unknown), np.arange(12), np.array([BRIGHT], float), "a")


def test_weights_of_other_settings_than_the_zoos_are_refused(tmp_path, config, bright):
    """A patch cut in another way has a score, too, but not what the network has learnt."""
    content = torch.load(bright, weights_only=True)
    others = load_config("fpr_resnet18_phantom", ["test_dataloader.dataset.pipeline.load.voxel_mm=(2.0, 1.4, 1.4)"])
    for name, cfg in (("own.pth", config), ("other.pth", others)):
        torch.save({**content, "meta": content["meta"] | {CONFIG_SHA256: config_digest(cfg)}}, tmp_path / name)
    assert load_rescorer(tmp_path / "own.pth").mode == "average"
    with pytest.raises(InputError, match=r"other.pth: was trained with other settings than fpr_resnet18_phantom has"):
        load_rescorer(tmp_path / "other.pth")
    own = tmp_path / "fpr_resnet18_phantom.py"
    others.dump(own)
    with pytest.raises(InputError, match=re.escape(f"give its own config, {own}")):
        load_rescorer(tmp_path / "other.pth")
    load_rescorer(tmp_path / "other.pth", own)


def test_a_bundle_has_its_own_mode(tmp_path, bright):
    detector = "lens-afp_densenet121_9s_phantom"
    torch.manual_seed(0)
    torch.save({"state_dict": build_model(load_config(detector)).state_dict()}, tmp_path / "weights.pth")
    for mode in ("alone", "average"):
        reduction = Reduction(bright, mode=mode)
        bundle = publish(tmp_path / "weights.pth", tmp_path, detector, data="none", reduction=reduction).bundle
        assert load_rescorer(bundle).mode == mode
        assert rescorer_of_test({"checkpoint": bundle}, "cpu", "fp32").mode == mode
    assert load_rescorer(bundle, mode="alone").mode == "alone"
