"""Tests on whole volumes, from the annotation file to metrics and the detection record."""

from __future__ import annotations

import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from mmpluld.cli.main import main
from mmpluld.engine.config import find_config, load_config
from mmpluld.engine.config_digest import config_digest
from mmpluld.engine.run import test as run_test
from mmpluld.errors import InputError
from mmpluld.evaluation.evaluate import evaluate_files
from mmpluld.evaluation.operating_points import measure_operating_points
from mmpluld.inference import DetectionSettings, Detector, VolumeDetector
from mmpluld.inputs import sha256_of
from mmpluld.io import write_volume
from mmpluld.io.array_store import write_array
from mmpluld.publish.publish import Reduction, Validation, publish
from mmpluld.registry import MODELS
from mmpluld.structures import AnnotationSet, CTVolume, DetectionSet, LesionRecord, VolumeRecord
from mmpluld.structures.model_line import LinkingLine, ModelLine

# Name: first slice, number of slices, slice interval, lesions as x1 y1 z1 x2 y2 z2 in slices of the series.
VOLUMES = {
    "a": (103, 14, 2.0, [(10, 12, 106, 22, 20, 110)]),
    "b": (0, 6, 5.0, [(30, 8, 1, 40, 20, 3), (6, 30, 4, 18, 40, 5)]),
    "c": (7, 5, 4.0, []),
}
SIZE = 48


@MODELS.register_module(force=True)
class HalvesDetector(BaseModel):
    """Reports what is bright in the left and the right half of a stack's middle slice, a box each."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode="predict"):
        for stack, sample in zip(inputs, data_samples, strict=True):
            boxes = []
            for low, high in ((0, SIZE // 2 + 1), (SIZE // 2 + 1, SIZE)):
                ys, xs = torch.nonzero(stack[len(stack) // 2, :, low:high] > 100, as_tuple=True)
                if len(xs):
                    boxes.append([xs.min() + low, ys.min(), xs.max() + low + 1, ys.max() + 1])
            boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
            scores = 0.9 * self.scale.detach() * torch.ones(len(boxes))
            sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=torch.zeros(len(boxes)).long())
        return data_samples


@pytest.fixture
def data_root(tmp_path):
    """An annotation file whose volumes lie in a store, with numbers of the whole series."""
    (tmp_path / "annotations").mkdir()
    volumes, lesions = [], []
    for name, (first, depth, interval, boxes) in VOLUMES.items():
        array = np.full((depth, SIZE, SIZE), -1000, dtype=np.int16)
        for x1, y1, z1, x2, y2, z2 in boxes:
            array[z1 - first : z2 - first, y1:y2, x1:x2] = 2050
            lesions.append(LesionRecord(len(lesions), name, (x1, y1, z1, x2, y2, z2)))
        write_array(tmp_path / f"{name}.npy", array)
        source = {"kind": "npy", "path": f"{name}.npy"}
        volumes.append(VolumeRecord(name, name, "1", "1", source, first, depth, (SIZE, SIZE), (interval, 1.0, 1.0)))
    AnnotationSet({"name": "test", "label_scope": "complete"}, volumes, lesions).save(
        tmp_path / "annotations" / "test.json"
    )
    return tmp_path


@pytest.fixture
def config(data_root):
    path = data_root / "halves.py"
    path.write_text(
        f"""
default_scope = "mmpluld"
data_root = {str(data_root)!r}
model = dict(type="HalvesDetector", data_preprocessor=dict(type="DetDataPreprocessor"))
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CTLesionDataset",
        data_root=data_root,
        ann_file="annotations/test.json",
        test_mode=True,
        pipeline=[
            dict(type="LoadSliceStack", num_slices=9, slice_gap_mm=2.0),
            dict(type="WindowHU"),
            dict(type="Resize", scale_factor=1.0),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="PackDetInputs", meta_keys=("img_shape", "scale_factor")),
        ],
    ),
)
test_cfg = dict(type="VolumeTestLoop", score_thr=0.5)
test_evaluator = dict(type="VolumeFROCMetric", protocol="lens-3d")
"""
    )
    torch.save({"state_dict": {"scale": torch.ones(1)}}, data_root / "weights.pth")
    return path


def run(config, *options):
    folder = config.parent
    metrics = run_test(
        config, folder / "weights.pth", folder / "work", out=folder / "found.json", cfg_options=[*options]
    )
    return metrics, DetectionSet.load(folder / "found.json").volumes


def test_finds_all_lesions_in_slices_of_the_series(config):
    metrics, found = run(config)
    assert list(found) == list(VOLUMES)
    for name, (_, _, interval, boxes) in VOLUMES.items():
        got = found[name].boxes[np.lexsort(found[name].boxes.T)]
        wanted = np.array(boxes, dtype=float).reshape(-1, 6)[np.lexsort(np.array(boxes, dtype=float).reshape(-1, 6).T)]
        np.testing.assert_allclose(got[:, [0, 1, 3, 4]], wanted[:, [0, 1, 3, 4]], atol=1e-4)
        # Between two slices the brightness is interpolated: the grid can see a lesion less than a slice too far.
        assert (np.abs(got[:, [2, 5]] - wanted[:, [2, 5]]) <= (0 if interval == 2.0 else 1)).all()
        frame = "series-slices" if VOLUMES[name][0] else "canonical-voxels"
        assert (found[name].frame, found[name].first_slice) == (frame, VOLUMES[name][0])
        assert ((found[name].key_slices >= got[:, 2].min(initial=0)) & (found[name].key_slices < 200)).all()
    assert metrics["froc3d/avg"] == metrics["froc3d/sens@0.125"] == metrics["froc3d/strict_avg"] == 1.0


def test_boxes_lie_in_the_world_where_the_file_has_the_geometry(config, data_root):
    path = data_root / "annotations" / "test.json"
    annotations = AnnotationSet.load(path)
    turned = np.array([[0.0, -1, 0, 7], [-1, 0, 0, -20], [0, 0, -2, 300], [0, 0, 0, 1]])  # of volume a, 2 mm slices
    annotations.volumes[0].affine_lps = tuple(map(tuple, turned.tolist()))
    annotations.save(path)
    _, found = run(config)
    assert found["b"].world_lps is None
    (box,), (hull,) = found["a"].boxes, found["a"].world_lps
    # Edges are half a voxel beyond centres; x of the volume is -y of the world, and slice 103 lies at 300 mm.
    np.testing.assert_allclose(box, [10, 12, 106, 22, 20, 110], atol=1e-4)
    wanted = [7 - 19.5, -20 - 21.5, 300 - 2 * (110 - 103 - 0.5), 7 - 11.5, -20 - 9.5, 300 - 2 * (106 - 103 - 0.5)]
    np.testing.assert_allclose(hull, wanted, atol=1e-3)


def test_metrics_are_those_of_the_evaluate_command(config):
    # Boxes of one grid slice are dropped, so one of the lesions of volume b may be missing.
    metrics, _ = run(config, "test_cfg.min_slices=4")
    folder = config.parent
    result = evaluate_files(folder / "found.json", folder / "annotations" / "test.json", "lens-3d")
    strict = evaluate_files(folder / "found.json", folder / "annotations" / "test.json", "lens-3d", strict=True)
    assert 0 < result["average"] < 1
    assert metrics["froc3d/avg"] == pytest.approx(result["average"])
    assert metrics["froc3d/strict_avg"] == pytest.approx(strict["average"])
    assert [metrics[f"froc3d/sens@{level:g}"] for level in result["levels"]] == pytest.approx(result["sensitivity"])


def test_settings_reach_the_detector(config):
    _, found = run(config, "test_cfg.max_boxes=1")
    assert [len(item.boxes) for item in found.values()] == [1, 1, 0]
    _, found = run(config, "test_cfg.score_thr=0.95")
    assert [len(item.boxes) for item in found.values()] == [0, 0, 0]
    # The lesion from 6 to 12 mm is on the grid slices at 6 and 12 mm, which cover 3 to 15 mm.
    wide = "test_dataloader.dataset.pipeline.0.slice_gap_mm=6.0"
    for rule, extent in (("covered", [105, 111]), ("nearest", [106, 110])):
        _, found = run(config, wide, f"test_cfg.grid_rule={rule}")
        assert found["a"].boxes[0, [2, 5]].tolist() == extent
    with pytest.raises(InputError, match="min_slices is 0; allowed is 1 or more"):
        run(config, "test_cfg.min_slices=0")
    with pytest.raises(InputError, match="link_order is 'best'; allowed are iou, score"):
        run(config, "test_cfg.link_order=best")


def test_a_scan_is_detected_in_as_its_config_is_tested(config, data_root, capsys):
    """Settings of ``test_cfg`` hold for ``mmpluld detect`` too, and its options come before them."""
    array = np.full((14, SIZE, SIZE), -1000, dtype=np.int16)
    array[3:9, 12:20, 2:14] = 2050  # along z the lesion has a hole, and then moves: its boxes overlap by 0.33
    array[5] = -1000
    array[7:9] = np.roll(array[7:9], 6, axis=2)
    write_array(data_root / "a.npy", array)
    path = data_root / "annotations" / "test.json"
    annotations = AnnotationSet.load(path)
    volume = VolumeRecord("a", "a", "1", "1", {"kind": "npy", "path": "a.npy"}, 0, 14, (SIZE, SIZE), (2.0, 1.0, 1.0))
    AnnotationSet(annotations.dataset, [volume], []).save(path)
    scan = data_root / "a.nii.gz"
    write_volume(CTVolume.from_canonical(array, (2.0, 1.0, 1.0)), scan)
    text = config.read_text()

    def extents(record):
        (found,) = DetectionSet.load(record).volumes.values()
        # The scan's file may count slices the other way round, so lengths are compared.
        return sorted((found.boxes[:, 5] - found.boxes[:, 2]).tolist())

    for settings, lengths in (("", [1, 2, 2]), ("iou_thr=0.3, max_gap=1", [6])):
        config.write_text(text.replace("score_thr=0.5", settings))
        run(config)
        assert extents(data_root / "found.json") == lengths
        Detector(config=config, checkpoint=data_root / "weights.pth")(scan, units="hu").save(
            data_root / "out", overwrite=True
        )
        assert extents(data_root / "out" / "detections.json") == lengths
    command = ["detect", str(scan), "--config", str(config), "--checkpoint", str(data_root / "weights.pth")]
    command += ["--out", str(data_root / "out"), "--overwrite", "--units", "hu"]
    assert main([*command, "--max-gap", "0"]) == 0
    assert extents(data_root / "out" / "detections.json") == [2, 3]
    assert "linked at IoU above 0.3;" in (data_root / "out" / "detections.json").read_text()
    assert main([*command, "--iou-thr", "0.5", "--cfg-options", "test_cfg.min_slices=3"]) == 0
    assert extents(data_root / "out" / "detections.json") == [4]
    capsys.readouterr()
    for options, message in (
        (["--cfg-options", "test_cfg.score_thr=1.5"], "score_thr is 1.5; allowed is 0 to 1"),
        (["--link-score-thr", "0.4"], "link_score_thr is 0.4, above score_thr 0.3"),
        (["--cfg-options", "test_cfg.max_gaps=2"], "did you mean 'max_gap'?"),
    ):
        assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err


def test_volume_without_known_slice_interval(config, data_root):
    path = data_root / "annotations" / "test.json"
    path.write_text(path.read_text().replace("[5.0, 1.0, 1.0]", "[null, 1.0, 1.0]"))
    with pytest.raises(InputError, match="the slice interval of [0-9]+ volumes is unknown"):
        run(config)
    assert not (data_root / "found.json").exists()


def test_file_without_lesions_still_gives_the_record(config, data_root):
    path = data_root / "annotations" / "test.json"
    annotations = AnnotationSet.load(path)
    annotations.lesions.clear()
    annotations.save(path)
    metrics, found = run(config)
    assert np.isnan(metrics["froc3d/avg"]) and len(found["b"].boxes) == 2


def test_processes_share_the_volumes(config, monkeypatch):
    from mmengine.runner import Runner

    import mmpluld.inference.loop as module

    settings = load_config(config)
    settings.work_dir = str(config.parent / "work")
    taken = []
    for rank in (0, 1):
        monkeypatch.setattr(module, "get_world_size", lambda: 2)
        monkeypatch.setattr(module, "get_rank", lambda rank=rank: rank)
        settings.experiment_name = f"rank{rank}"
        loop = Runner.from_cfg(settings).build_test_loop(settings.test_cfg)
        taken.append([volume.id for volume in loop.dataloader])
    assert taken == [["a", "c"], ["b", "a"]]


def test_2d_protocol_is_refused(config):
    with pytest.raises(InputError, match="protocol 'deeplesion-2d' is 2D"):
        run(config, "test_evaluator.protocol=deeplesion-2d")


# ----------------------------------------------------------------------------------------- false-positive reduction
@pytest.fixture(scope="module")
def reduction(tmp_path_factory, mmpluld_scope):
    """Random weights of false-positive reduction, as a training leaves them."""
    torch.manual_seed(1)
    model = MODELS.build(load_config("fpr_resnet18_phantom").model)
    model.logit.weight.data *= 20  # so that scores differ
    path = tmp_path_factory.mktemp("fpr") / "fpr.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {"experiment_name": "fpr_resnet18_phantom"}}, path)
    return path


def scores(record):
    return {name: found.scores.tolist() for name, found in DetectionSet.load(record).volumes.items()}


def test_false_positive_reduction_is_the_same_in_the_test_and_afterwards(config, data_root, reduction, capsys):
    """Also of boxes whose new score is below the threshold from which 2D boxes are linked."""
    config.write_text(config.read_text().replace(", score_thr=0.5", ""))
    torch.save({"state_dict": {"scale": torch.tensor([0.6 / 9])}}, data_root / "weights.pth")
    weights = torch.load(reduction, weights_only=True)
    weights["state_dict"]["logit.bias"] -= 6
    reduction = data_root / "fpr.pth"
    torch.save(weights, reduction)
    run(config)
    plain, annotations = data_root / "plain.json", str(data_root / "annotations" / "test.json")
    (data_root / "found.json").rename(plain)
    command = ["rescore", str(plain), annotations, "--data-root", str(data_root), "--fpr", str(reduction)]
    command += ["--out", str(data_root / "rescored.json"), "--fpr-mode"]
    given = [f"test_cfg.fpr.checkpoint={reduction}"]
    for mode in ("alone", "average"):
        assert main([*command, mode]) == 0
        after = scores(data_root / "rescored.json")
        _, found = run(config, *given, f"test_cfg.fpr.mode={mode}")
        assert {name: pytest.approx(item.scores.tolist(), abs=1e-6) for name, item in found.items()} == after
        if mode == "alone":
            own = after
    assert len({score for some in own.values() for score in some}) == 3
    assert scores(plain)["b"] == pytest.approx([0.06, 0.06])
    assert after["b"] == pytest.approx([(0.06 + score) / 2 for score in own["b"]], abs=1e-6)
    assert 0 < after["b"][1] < 0.05
    result = evaluate_files(data_root / "rescored.json", annotations, "lens-3d")
    assert result["num_lesions"] == 3
    assert "scores are the mean of the detector's and those of fpr_resnet18_phantom" in capsys.readouterr().out


@pytest.fixture
def scan(data_root):
    array = np.full((14, SIZE, SIZE), -1000, dtype=np.int16)
    array[3:9, 12:20, 2:14] = 2050
    write_volume(CTVolume.from_canonical(array, (2.0, 1.0, 1.0)), data_root / "scan.nii.gz")
    return data_root / "scan.nii.gz"


def test_a_scan_is_detected_in_with_false_positive_reduction(config, data_root, scan, reduction, capsys):
    command = ["detect", str(scan), "--config", str(config), "--checkpoint", str(data_root / "weights.pth")]
    command += ["--out", str(data_root / "out"), "--overwrite", "--units", "hu", "--score-thr", "0.05"]

    def score(*options):
        assert main([*command, *options]) == 0
        ((value,),) = scores(data_root / "out" / "detections.json").values()
        return value

    plain, alone = score(), score("--fpr", str(reduction), "--fpr-mode", "alone")
    assert plain == pytest.approx(0.9)
    assert score("--fpr", str(reduction)) == pytest.approx((plain + alone) / 2)
    assert "weights fpr.pth" in (data_root / "out" / "detections.json").read_text()
    config.write_text(config.read_text().replace("score_thr=0.5", f"fpr=dict(checkpoint={str(reduction)!r})"))
    assert score() == pytest.approx((plain + alone) / 2)
    assert score("--no-fpr") == pytest.approx(plain)
    capsys.readouterr()
    for options, message in (
        (["--no-fpr", "--fpr", str(reduction)], "--no-fpr contradicts"),
        (["--fpr", str(data_root / "missing.pth")], "missing.pth"),
        (["--fpr", str(data_root / "weights.pth")], "does not tell the config"),
        (["--fpr", str(data_root / "weights.pth"), "--fpr-config", "fpr_resnet18_phantom"], "weights of another model"),
    ):
        assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err


def bundled(config, data_root, reduction, validation):
    """A bundle of the model with false-positive reduction and operating points."""
    parts = {"reduction": Reduction(reduction, mode="alone"), "validation": validation}
    weights = data_root / "weights.pth"
    return publish(weights, data_root / "zoo", "halves", data="none", config=config, **parts).bundle


def test_a_bundle_finds_what_config_and_weights_find(config, data_root, scan, reduction, validation):
    """Also with the false-positive reduction that it carries, with its rules, and with other rules."""
    bundle = bundled(config, data_root, reduction, Validation(*validation))

    def found(**options):
        return Detector(**options)(scan, units="hu").detections.volumes["scan"]

    for options in ({}, {"score_thr": 0.0}, {"no_fpr": True}, {"fpr_mode": "average", "score_thr": 0.0}):
        fpr = {"fpr": reduction, "fpr_mode": "alone"} if "no_fpr" not in options else {}
        plain = found(config=config, checkpoint=data_root / "weights.pth", **{**fpr, **options})
        of_bundle = found(model=bundle, **options)
        assert np.array_equal(of_bundle.boxes, plain.boxes)
        assert np.array_equal(of_bundle.scores, plain.scores)
    assert len(plain.scores) == 1
    assert any(f"bundle {bundle.name}" in line for line in of_bundle.history)
    changed = found(model=bundle, no_fpr=True, cfg_options=["test_cfg.score_thr=0.95"])
    assert len(changed.scores) == 0


@pytest.fixture
def measured(config, data_root, validation):
    """Files of the same operating points, by what they say of their origin."""
    run(config)  # a record that names these weights and rules
    history = DetectionSet.load(data_root / "found.json").volumes["a"].history
    made, linked = ModelLine.find(history, "test"), LinkingLine.find(history, "test")
    own_rules = DetectionSettings.from_config(load_config(config))
    own_weights = sha256_of(data_root / "weights.pth")[:16]
    assert made == ModelLine(config.stem, own_weights, config_digest(load_config(config))[:16])
    assert linked.rules == own_rules.linking()
    plain = measure_operating_points(*validation, "lens-3d")
    own = replace(plain, model=made.name, weights=made.digest, config=made.config)
    files = {
        "nothing told": plain,
        "own": own,
        "another": replace(plain, model="another"),
        "retrained": replace(own, weights="0" * 16),
        "averaged": replace(own, fpr="average", fpr_network="other"),
        "without": replace(own, fpr="none"),
        "linked": replace(own, linking=own_rules.linking()),
        "wider": replace(own, linking=replace(own_rules, max_gap=2).linking()),
    }
    for name, points in files.items():
        points.save(data_root / f"{name}.json")
    return {name: data_root / f"{name}.json" for name in files}


def test_operating_points_hold_for_what_they_were_measured_with(
    config, data_root, scan, reduction, validation, measured
):
    bundle = bundled(config, data_root, reduction, Validation(*validation))
    own = {"config": config, "checkpoint": data_root / "weights.pth"}
    for options, points in (
        ({"model": bundle}, None),
        ({"model": bundle, "no_fpr": True}, "nothing told"),
        ({"model": bundle, "no_fpr": True}, "own"),  # of the checkpoint, under its own name
        (own, "own"),
        (own, "without"),
        (own, "linked"),
        (own | {"fpr": reduction}, "averaged"),
        (own | {"max_gap": 2}, "wider"),
    ):
        file = {} if points is None else {"operating_points": measured[points]}
        at_rate = Detector(**options, **file, fp_rate=1)(scan, units="hu")
        assert at_rate.details["Score threshold"] == "0.7"
        assert "(asked for: 1) and sensitivity 0.50 on 4 validation volumes" in at_rate.details["Operating point"]
        assert f"score threshold 0.7: {at_rate.details['Operating point']}" in at_rate.volume.history
    for options, points, message in (
        ({"model": bundle}, "another", "were measured with another, whose scores"),
        (own, "retrained", "weights.pth: the operating points .*, weights with SHA-256 0000000000000000"),
        (own, "averaged", "reduction: average, asked for is none; use --fpr WEIGHTS --fpr-mode av"),
        (own | {"fpr": reduction, "fpr_mode": "alone"}, "averaged", "average, asked for is alone"),
        (own | {"fpr": reduction}, "without", "none, asked for is average; use --no-fpr"),
        (own, "wider", r"max_gap 2, asked for is .* above 0.5; use the rules of the test"),
    ):
        with pytest.raises(InputError, match=message):
            Detector(**options, operating_points=measured[points], fp_rate=1)(scan, units="hu")


def test_operating_points_of_a_bundle(config, data_root, scan, reduction, validation, capsys):
    bundle = bundled(config, data_root, reduction, Validation(*validation, default_rate=1))
    for options, threshold, measured in (
        ({}, "0.7", True),
        ({"fp_rate": 0.25}, "0.8", True),
        ({"score_thr": 0.4}, "0.4", False),
        ({"no_fpr": True}, "0.5", False),  # the config's own
        ({"cfg_options": ["test_cfg.iou_thr=0.5"]}, "0.7", True),  # as it is, and no matter of scores
        ({"cfg_options": ["test_cfg.score_thr=0.6"]}, "0.6", False),
        ({"cfg_options": ["model.data_preprocessor.pad_size_divisor=1"]}, "0.5", False),
    ):
        details = Detector(bundle, **options)(scan, units="hu").details
        assert (details["Score threshold"], "Operating point" in details) == (threshold, measured)
    capsys.readouterr()
    Detector(bundle, max_gap=2)(scan, units="hu")
    assert "IoU above 0.5, asked for is 0.05 or more, linked at IoU above 0.5, max_gap 2; th" in capsys.readouterr().err
    Detector(bundle, no_fpr=True)(scan, units="hu")
    assert "its score threshold of 0.7 does not hold with --no-fpr and is not used" in capsys.readouterr().err
    own = {"config": config, "checkpoint": data_root / "weights.pth"}
    for options, message in (
        ({"model": bundle, "fp_rate": 1, "no_fpr": True}, "its operating points do not hold with --no-fpr"),
        (
            {"model": bundle, "fp_rate": 1, "cfg_options": ["model.data_preprocessor.pad_size_divisor=1"]},
            "do not hold with --cfg-options",
        ),
        ({"model": bundle, "fp_rate": 9}, "allowed are 0.25 to 1.5 false positives per volume"),
        (own | {"fp_rate": 1}, "has no operating points"),
        ({"model": bundle, "fp_rate": 1, "score_thr": 0.5}, "--fp-rate 1 and --score-thr 0.5 both give the threshold"),
        ({"model": bundle, "operating_points": "x.json"}, "choose nothing without --fp-rate"),
        ({"model": bundle, "twin": True}, "--twin makes a config its miniature"),
        ({"model": own["checkpoint"]}, "is no bundle; a checkpoint is given as --checkpoint"),
    ):
        with pytest.raises(InputError, match=message):
            Detector(**options)(scan, units="hu")


# ----------------------------------------------------------------------------------------------- shared features
@pytest.fixture(scope="module")
def lens():
    """The LENS twin with random weights whose scores differ from slice to slice."""
    config = load_config(find_config("lens-afp_densenet121_9s_phantom"))
    VolumeDetector(config, torch.nn.Linear(1, 1))  # sets the scope
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model.train().extract_feat(torch.rand(2, 9, 64, 64) * 255 - 50)
        model.roi_head.bbox_head.fc_reg.weight.mul_(0.1)
    return config, model


@pytest.mark.parametrize(
    ("interval", "depth", "batch_size", "precision"),
    [(2.0, 14, 1, "fp32"), (5.0, 7, 1, "fp32"), (2.0, 11, 4, "fp32"), (2.0, 10, 1, "bf16")],
)
def test_sharing_does_not_change_a_bit(interval, depth, batch_size, precision, lens):
    config, model = lens
    array = np.random.default_rng(0).integers(-200, 300, (depth, 50, 44)).astype(np.int16)
    volume = CTVolume.from_canonical(array, (interval, 2.8, 2.8))
    everything = DetectionSettings(link_score_thr=0.0, score_thr=0.0)
    settings = {"settings": everything, "batch_size": batch_size, "precision": precision}
    calls = []
    compute = type(model.backbone).image_features
    model.backbone.image_features = lambda *args: (calls.append(1), compute(model.backbone, *args))[1]
    try:
        shared = VolumeDetector(config, model, **settings).detect(volume)
        shared_calls = len(calls)
        alone = VolumeDetector(config, model, share=False, **settings).detect(volume)
    finally:
        del model.backbone.image_features
    assert len({finding.score for finding in shared}) > 20
    assert shared == alone
    # One image for each grid slice, and what the repeated slices at the ends add.
    count = len(VolumeDetector(config, model).grid(volume).indices)
    assert count <= shared_calls <= count + 8
    if batch_size == 1:
        assert len(calls) - shared_calls == 3 * count


def test_slices_prepared_alone_are_those_of_the_stack(lens):
    """Preparing slice by slice gives what the test pipeline gives, but for rounding in the resizing."""
    config, model = lens
    detector = VolumeDetector(config, model)
    array = np.random.default_rng(1).integers(-200, 300, (12, 40, 52)).astype(np.int16)
    grid = detector.grid(CTVolume.from_canonical(array, (2.0, 1.9, 2.3)))
    for index in (0, 2, 6, 11):
        sample = {"slice_source": grid, "key_slice": index, "img_id": index, "volume_id": "v", "slice_interval_mm": 2.0}
        whole = detector.stacks.pipeline(dict(sample))
        alone = detector.stacks.load(dict(sample), detector.stacks.recent())
        assert whole["inputs"].shape == alone["inputs"].shape
        assert torch.allclose(whole["inputs"], alone["inputs"], atol=1e-3)
        assert whole["data_samples"].metainfo.keys() == alone["data_samples"].metainfo.keys()
        assert whole["data_samples"].scale_factor == alone["data_samples"].scale_factor
        assert whole["data_samples"].key_slice == alone["data_samples"].key_slice == index


def test_volumes_examined_at_the_same_time_do_not_mix(lens):
    """Step by step in turns, and in two threads; and nothing stays of a volume when it is done."""
    config, model = lens
    detector = pickle.loads(pickle.dumps(VolumeDetector(config, model, DetectionSettings(0.0, 0.0))))
    volumes = [
        CTVolume.from_canonical(
            np.random.default_rng(seed).integers(-200, 300, (12, 40, 52)).astype(np.int16), (2.0, 1.9, 2.3)
        )
        for seed in range(2)
    ]
    grids = [detector.grid(volume) for volume in volumes]
    alone = [[boxes.boxes.tolist() for boxes in detector.examine(grid, "v")] for grid in grids]
    assert alone[0] != alone[1]
    in_turns = zip(*(detector.examine(grid, "v") for grid in grids), strict=True)
    turns = [[boxes.boxes.tolist() for boxes in turn] for turn in in_turns]
    assert [list(volume) for volume in zip(*turns, strict=True)] == alone
    found = [[(item.score, item.box_canonical) for item in detector.detect(volume)] for volume in volumes]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(detector.detect, volumes * 2))
    assert [[(item.score, item.box_canonical) for item in items] for items in both] == found * 2
    kept = weakref.ref(volumes[1].array)
    del volumes, grids, in_turns, both
    gc.collect()
    assert kept() is None


def test_few_features_are_kept(lens):
    config, model = lens
    volume = CTVolume.from_canonical(np.zeros((40, 32, 32), dtype=np.int16), (2.0, 2.8, 2.8))
    kept = []
    import mmpluld.inference.volume_detector as module

    class Watched(module.SharedFeatures):
        def features(self, inputs, plans):
            found = super().features(inputs, plans)
            kept.append(len(self._images._values))
            return found

    original, module.SharedFeatures = module.SharedFeatures, Watched
    try:
        VolumeDetector(config, model, DetectionSettings(score_thr=1.0)).detect(volume)
    finally:
        module.SharedFeatures = original
    assert len(kept) == 40
    assert max(kept) == 9
