"""Calibration of a small LENS detector, from the annotation file to the checkpoint and its test."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmpluld.cli.main import main
from mmpluld.engine import load_weights
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.io.array_store import write_array
from mmpluld.registry import MODELS
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord, pairwise_overlap
from mmpluld.weights.calibration import calibrate, fit_platt, log_loss

BASES = Path(__file__).parents[2] / "configs/_base_/models"
NAMES = ["deeplesion", "luna16", "lits", "nih-ln"]
SIZE, SLICES = 64, 6
BUFFERS = [f"roi_head.bbox_head.{part}" for part in ("scale", "bias")]

# What leaves of this name change.
OWN = {
    "calibrated": {"model.test_cfg.rcnn.calibrated": True},
    "gate": {"model.roi_head.gate": {"type": "ExpertGate", "lr": 1.0}},
}
CONFIG = """
_base_ = [{base!r}]
default_scope = "mmpluld"
model = dict(
    backbone=dict(growth_rate=8, block_config=(1, 1, 1), stem_channels=8),
    neck=dict(in_channels=(16, 16, 16), out_channels=16),
    rpn_head={rpn},
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=24)
    ),
    test_cfg=dict(rpn=dict(max_per_img=40), rcnn=dict(score_thr=0.3)),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CTLesionDataset",
        data_root={root!r},
        ann_file="val.json",
        sampling=dict(policy="all_slices"),
        test_mode=True,
        pipeline=[
            dict(type="LoadSliceStack", num_slices=9, slice_gap_mm=2.0),
            dict(type="WindowHU", window_hu=(-160, 240), out_range=(0, 255), offset=-50),
            dict(type="Resize", scale_factor=2.0),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(
                type="PackDetInputs",
                meta_keys=(
                    "img_id", "volume_id", "key_slice", "ori_shape", "img_shape", "scale_factor", "dataset"
                ),
            ),
        ],
    ),
)
"""


def write_config(folder: Path, base: str = "afp-4datasets") -> Path:
    """A small detector like a twin of LENS, and data in the folder."""
    rpn: dict = {"in_channels": 16, "feat_channels": 16}
    rpn = {"head": rpn} if "4datasets" in base else rpn
    path = folder / f"{base}.py"
    stem, _, own = base.partition("-4datasets-")
    model = load_config(BASES / f"lens_densenet121_{stem}{'-4datasets' if own else ''}.py", twin=True)
    model.merge_from_dict(OWN.get(own, {}))
    model.dump(folder / f"base-{base}.py")
    path.write_text(CONFIG.format(base=f"base-{base}.py", root=str(folder), rpn=rpn))
    return path


def write_lesions(folder: Path, lesions: list[tuple[tuple[float, ...], int, bool]]) -> None:
    """Annotation file with lesions as 2D box, slice, and whether it is to be ignored."""
    volume = VolumeRecord(
        "v", "v", "1", "1", {"kind": "npy", "path": "v.npy"}, 0, SLICES, (SIZE, SIZE), (2.0, 1.0, 1.0)
    )
    records = [
        LesionRecord(i, "v", (x1, y1, z, x2, y2, z + 1), key_slice=z, ignore=ignore)
        for i, ((x1, y1, x2, y2), z, ignore) in enumerate(lesions)
    ]
    AnnotationSet({"name": "deeplesion", "label_scope": "universal-partial"}, [volume], records).save(
        folder / "val.json"
    )


def detections(config: Path, weights: Path, **settings: object) -> list:
    """Data samples of all slices with what the detector finds, with test settings of the second stage changed."""
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        model = MODELS.build(cfg.model).eval()
        load_weights(model, weights)
        model.roi_head.test_cfg.update(settings)
        with torch.no_grad():
            return [sample for data in Runner.build_dataloader(cfg.val_dataloader) for sample in model.test_step(data)]


def spread_scores(model, batches) -> None:
    """Give the experts of untrained weights margins of standard deviation 2 around 0, 1.5, -1 and far below 0."""
    head, features = model.roi_head.bbox_head, []
    handle = head.shared_fcs[-1].register_forward_hook(lambda _, __, out: features.append(out.relu()))
    with torch.no_grad():
        for data in batches:
            model.test_step(data)
    handle.remove()
    deviation = torch.cat(features).std(0).clamp(min=1e-3)
    mean = torch.cat(features).mean(0)
    for name, centre in zip(NAMES, (0.0, 1.5, -1.0, -60.0), strict=True):
        for layer, size in ((head.fc_cls[name], 2.0), (head.fc_reg[name], 0.2)):
            weight = torch.randn_like(layer.weight) / deviation * size / len(deviation) ** 0.5
            layer.weight.data, layer.bias.data = weight, -weight @ mean
        head.fc_cls[name].bias.data[0] += centre


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A detector with random weights whose last expert finds nothing, and lesions where the others look."""
    folder = tmp_path_factory.mktemp("calibrate")
    array = np.random.default_rng(0).integers(-160, 240, (SLICES, SIZE, SIZE)).astype(np.int16)
    write_array(folder / "v.npy", array)
    write_lesions(folder, [])
    config = write_config(folder)
    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmpluld"):
        model = MODELS.build(cfg.model).eval()
        model.init_weights()
        spread_scores(model, Runner.build_dataloader(cfg.val_dataloader))
    checkpoint = {"meta": {"epoch": 3}, "state_dict": model.state_dict(), "optimizer": {"state": {0: torch.ones(2)}}}
    torch.save(checkpoint, folder / "epoch_3.pth")
    lesions = []
    for z, sample in enumerate(detections(config, folder / "epoch_3.pth")):
        found = sample.pred_instances.bboxes.double()
        found = found[(found[:, 2:] - found[:, :2] > 2).all(1)][::3].tolist()
        lesions += [(tuple(box), z, i == 2) for i, box in enumerate(found[:4])]
    write_lesions(folder, lesions)
    return folder


def slow_marks(samples: list) -> tuple[np.ndarray, np.ndarray]:
    """Margins and hits of all boxes, lesion by lesion."""
    margins, hits = [], []
    for sample in samples:
        found = sample.pred_instances
        boxes, scores = found.bboxes.double().numpy(), found.scores.double().numpy()
        overlaps = pairwise_overlap(boxes, sample.gt_instances.bboxes.double().numpy())
        aside = pairwise_overlap(boxes, sample.ignored_instances.bboxes.double().numpy())
        best = {
            max(np.flatnonzero(column >= 0.5), key=lambda i, s=scores: s[i])
            for column in overlaps.T
            if (column >= 0.5).any()
        }
        for i in range(len(boxes)):
            if i in best or not (aside[i] >= 0.5).any():
                margins.append(np.log(scores[i] / (1 - scores[i])))
                hits.append(i in best)
    return np.array(margins), np.array(hits, dtype=bool)


def test_command_writes_the_fits_of_all_experts(home, capsys):
    config, source, out = home / "afp-4datasets.py", home / "epoch_3.pth", home / "new/out.pth"
    before = source.read_bytes()
    assert main(["calibrate", str(config), str(source), str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert source.read_bytes() == before
    old, new = (torch.load(path, weights_only=True) for path in (source, out))
    assert old.keys() == new.keys()
    assert new["meta"] == old["meta"]
    assert torch.equal(new["optimizer"]["state"][0], torch.ones(2))
    old, new = old["state_dict"], new["state_dict"]
    assert list(old) == list(new)
    assert [key for key in old if not torch.equal(old[key], new[key])] == BUFFERS
    assert [new[key].dtype for key in BUFFERS] == [torch.float32] * 2
    seen, left_out = [], 0
    for i, name in enumerate(NAMES):
        samples = detections(
            config, source, experts=[name], max_per_img=1000, fusion={"type": "nms", "iou_threshold": 1.0}
        )
        margins, hits = slow_marks(samples)
        scale, bias = fit_platt(margins, hits)
        assert [new[key][i].item() for key in BUFFERS] == pytest.approx([scale, bias], abs=1e-3)
        printed = re.fullmatch(
            rf"{name}: (\d+) boxes, (\d+) hits, scale (\S+), bias (\S+), log loss (\S+) before, (\S+) after", lines[i]
        )
        assert [int(value) for value in printed.groups()[:2]] == [len(margins), hits.sum()]
        wanted = [scale, bias, log_loss(margins, hits), log_loss(margins, hits, scale, bias)]
        assert [float(value) for value in printed.groups()[2:]] == pytest.approx(wanted, abs=1e-3, nan_ok=True)
        seen.append((len(margins), int(hits.sum())))
        left_out += sum(len(sample.pred_instances) for sample in samples) - len(margins)
    assert min(hits for _, hits in seen[:3]) >= 3
    assert min(boxes - hits for boxes, hits in seen[:3]) >= 10
    assert seen[3] == (0, 0)
    assert left_out >= 3  # boxes on ignored lesions
    assert [new[key][3].item() for key in BUFFERS] == [1, 0]
    assert len({tuple(new[key][i].item() for key in BUFFERS) for i in range(4)}) == 4
    assert lines[4].endswith(f"mmpluld test {config} {out} --cfg-options model.test_cfg.rcnn.calibrated=True")


@pytest.fixture(scope="module")
def calibrated(home):
    calibrate(home / "afp-4datasets.py", home / "epoch_3.pth", home / "calibrated.pth")
    return home / "calibrated.pth"


def test_calibrated_config_takes_the_fitted_weights_alone(home, calibrated):
    config = write_config(home, "afp-4datasets-calibrated")
    with pytest.raises(InputError, match="run `mmpluld calibrate CONFIG CHECKPOINT OUT`"):
        detections(config, home / "epoch_3.pth")
    weights = torch.load(calibrated, weights_only=True)["state_dict"]
    scale, bias = (weights[key].double() for key in BUFFERS)
    everything = {"fusion": None, "max_per_img": 1000, "score_thr": 0.0}
    plain, fitted = (
        detections(config, calibrated, calibrated=False, **everything),
        detections(config, calibrated, **everything),
    )
    for old, new in zip(plain, fitted, strict=True):
        old, new = old.pred_instances, new.pred_instances
        for i in range(3):
            a, b = old[old.expert == i], new[new.expert == i]
            assert len(a) > 10
            assert torch.equal(a.bboxes, b.bboxes)
            wanted = torch.sigmoid(scale[i] * torch.logit(a.scores.double()) + bias[i])
            assert torch.allclose(b.scores.double(), wanted, atol=1e-3)  # the margin is that of a rounded score
        assert (new.scores[:-1] >= new.scores[1:]).all()


TRAINING = """
_base_ = [{base!r}]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="CTLesionDataset",
        data_root={root!r},
        ann_file="val.json",
        sampling=dict(policy="key_slices"),
        pipeline=[
            dict(type="LoadSliceStack", num_slices=9, slice_gap_mm=2.0),
            dict(type="WindowHU", window_hu=(-160, 240), out_range=(0, 255), offset=-50),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="PackDetInputs", meta_keys=("img_id", "ori_shape", "img_shape", "dataset")),
        ],
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1, val_interval=1)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="FROCMetric", protocol="deeplesion-2d")
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=1e-4), clip_grad=dict(max_norm=1))
default_hooks = dict(checkpoint=dict(type="SafeCheckpointHook", interval=1))
load_from = {root!r} + "/epoch_3.pth"  # of the experts, one is trained on
"""


def test_calibrated_config_trains_to_its_end(home, capsys):
    """Its validation is that of the config without calibration, which follows the training; its test still needs it."""
    scores = {}
    for base in ("afp-4datasets", "afp-4datasets-calibrated"):
        write_config(home, base)
        config = home / f"train-{base}.py"
        config.write_text(TRAINING.format(base=f"{base}.py", root=str(home)))
        assert main(["train", str(config), "--seed", "0", "--work-dir", str(home / f"work-{base}")]) == 0
        said = capsys.readouterr().out
        assert ("validations are without calibration" in said) == base.endswith("calibrated")
        scores[base] = re.findall(r"froc/avg: (\S+)", said)
        meta = torch.load(home / f"work-{base}" / "epoch_1.pth", weights_only=True)["meta"]
        (seen,) = meta["trained_patients"].values()
        assert seen["fold"] is None and len(seen["patients"]) > 0
    assert scores["afp-4datasets"] == scores["afp-4datasets-calibrated"] != []
    written = home / "work-afp-4datasets-calibrated"
    assert "calibrated=True" in (written / "train-afp-4datasets-calibrated.py").read_text()
    with pytest.raises(InputError, match="run `mmpluld calibrate CONFIG CHECKPOINT OUT`"):
        detections(written / "train-afp-4datasets-calibrated.py", written / "epoch_1.pth")


def test_fit_does_not_depend_on_test_settings_of_the_joining(home, calibrated):
    """Nor on values fitted before: fitting again gives the same file."""
    config = write_config(home, "afp-4datasets-calibrated")
    options = ["model.test_cfg.rcnn.max_per_img=1", "model.test_cfg.rcnn.fusion.iou_threshold=0.01"]
    options += ["model.test_cfg.rcnn.experts=[lits]"]
    calibrate(config, calibrated, home / "again.pth", cfg_options=options)
    assert (home / "again.pth").read_bytes() == calibrated.read_bytes()


def test_gate_takes_no_part_in_the_fit(home, calibrated):
    checkpoint = torch.load(home / "epoch_3.pth", weights_only=True)
    gate = {"weight": torch.randn(4, 24), "bias": torch.tensor([0.0, -2.0, 0.0, 3.0]), "seen": torch.ones(4)}
    checkpoint["state_dict"].update({f"roi_head.gate.{key}": value for key, value in gate.items()})
    torch.save(checkpoint, home / "gated.pth")
    calibrate(write_config(home, "afp-4datasets-gate"), home / "gated.pth", home / "gated_out.pth")
    plain, gated = (torch.load(path, weights_only=True)["state_dict"] for path in (calibrated, home / "gated_out.pth"))
    assert all(torch.equal(plain[key], gated[key]) for key in BUFFERS)
    assert torch.equal(gated["roi_head.gate.bias"], gate["bias"])


def test_bad_input_is_one_line(home, capsys):
    config, source = str(home / "afp-4datasets.py"), str(home / "epoch_3.pth")
    one = write_config(home, "afp")

    def refused(*arguments: str) -> str:
        capsys.readouterr()
        assert main(["calibrate", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    (home / "there.pth").write_bytes(b"kept")
    (home / "link.pth").hardlink_to(source)
    before = sorted(home.iterdir())
    new = str(home / "never.pth")
    assert "add --overwrite" in refused(config, source, str(home / "there.pth"))
    for itself in (source, str(home / "link.pth")):
        assert "named twice" in refused(config, source, itself, "--overwrite")
    assert "is a folder" in refused(config, source, str(home), "--overwrite")
    assert "is no ExpertBBoxHead" in refused(str(one), source, new)
    assert "no such checkpoint" in refused(config, str(home / "missing.pth"), new)
    assert "of another model" in refused(
        config,
        source,
        new,
        "--cfg-options",
        "model.neck.out_channels=16",
        "model.roi_head.bbox_head.fc_out_channels=20",
    )
    assert "device is 'gpu'" in refused(config, source, new, "--device", "gpu")
    assert "device is 'cuda:99'" in refused(config, source, new, "--device", "cuda:99")
    high = ["--cfg-options", "model.test_cfg.rcnn.score_thr=1.0"]
    assert "no expert has boxes to fit (0 in all); lower model.test_cfg.rcnn.score_thr" in refused(
        config, source, new, *high
    )
    assert "elsewhere/val.json: no such annotation file" in refused(
        config, source, new, "--cfg-options", f"val_dataloader.dataset.data_root={home}/elsewhere"
    )
    assert "num_classes is 2" in refused(config, source, new, "--cfg-options", "model.roi_head.bbox_head.num_classes=2")
    assert sorted(home.iterdir()) == before
    assert (home / "there.pth").read_bytes() == b"kept"


def test_data_without_lesions_or_without_a_loader(home, tmp_path, capsys):
    write_array(tmp_path / "v.npy", np.zeros((SLICES, SIZE, SIZE), np.int16))
    config, source, out = write_config(tmp_path), home / "epoch_3.pth", tmp_path / "out.pth"
    write_lesions(tmp_path, [((10, 10, 20, 20), 2, True)])  # to be ignored, so it does not count
    with pytest.raises(InputError, match=f"none of the {SLICES} slices of val_dataloader has a lesion"):
        calibrate(config, source, out)
    write_lesions(tmp_path, [((10, 10, 20, 20), 2, False)])
    config.write_text(config.read_text().replace('dict(type="LoadAnnotations", with_bbox=True),', ""))
    with pytest.raises(InputError, match="its pipeline has LoadAnnotations"):
        calibrate(config, source, out)
    config.write_text(config.read_text() + "\nval_dataloader = None\n")
    with pytest.raises(InputError, match="has no val_dataloader"):
        calibrate(config, source, out)
    assert not out.exists()


def test_overwrite_replaces_the_file(home, calibrated):
    target = home / "old.pth"
    target.write_bytes(b"old")
    config = home / "afp-4datasets.py"
    calibrate(config, home / "epoch_3.pth", target, overwrite=True)
    assert target.read_bytes() == calibrated.read_bytes()
    assert not [path for path in home.iterdir() if path.name.startswith(".tmp")]
