"""Proposals of tiny detectors with random weights, from the annotation file to shards, in one process and in two."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmpluld.atomic import TEMPORARY
from mmpluld.cli.main import main
from mmpluld.datasets.folds import fold_of_patients
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.inference import DetectionSettings, VolumeDetector
from mmpluld.inference.propose import propose
from mmpluld.inference.volumes import Examined
from mmpluld.io.array_store import write_array
from mmpluld.io.proposals import ProposalStore, VolumeProposals
from mmpluld.io.slice_sources import open_source
from mmpluld.postprocess import GridMap, Tracklet, tracklet_to_box3d
from mmpluld.registry import MODELS
from mmpluld.structures import AnnotationSet, LesionRecord, VolumeRecord

REPOSITORY = Path(__file__).parents[2]
EXPERTS = ("deeplesion", "luna16", "lits", "nih-ln")
SIZE = 48
SPACING = (5.0, 2.8, 2.8)
# Kind -> its row of the zoo, and what makes it smaller still than its miniature.
_TRUNK = ["backbone.growth_rate=8", "backbone.block_config=(1,1,1)", "backbone.stem_channels=8"]
_TRUNK += ["neck.in_channels=(16,16,16)", "neck.out_channels=16"]
_STAGES = [*_TRUNK, "roi_head.bbox_roi_extractor.out_channels=16", "roi_head.bbox_head.in_channels=16"]
_STAGES += ["roi_head.bbox_head.fc_out_channels=24", "test_cfg.rpn.max_per_img=20"]
_STAGES += ["test_cfg.rcnn.max_per_img=6", "test_cfg.rcnn.score_thr=0.05"]
_ONE_HEAD = ["rpn_head.in_channels=16", "rpn_head.feat_channels=16"]
_ONE_STAGE = ["bbox_head.head.in_channels=16", "bbox_head.head.feat_channels=32", "test_cfg.score_thr=0.05"]
KINDS = {
    "experts": (
        "lens-afp_densenet121_4datasets_9s_phantom",
        [*_STAGES, "rpn_head.head.in_channels=16", "rpn_head.head.feat_channels=16"],
    ),
    "separate": (
        "lens-afp_densenet121_separate_9s_phantom",
        [*(f"detector.{option}" for option in [*_STAGES, *_ONE_HEAD]), "max_per_img=6"],
    ),
    "one-stage": (
        "lens-fcos-1stage_densenet121_4datasets_9s_phantom",
        [*_TRUNK, *_ONE_STAGE, "test_cfg.max_per_img=6"],
    ),
    "single": ("lens-afp_densenet121_9s_phantom", [*_STAGES, *_ONE_HEAD]),
}
# So that scores differ, and boxes of neighbouring slices overlap.
SPREAD = {"conv_cls": 30, "fc_cls": 5, "conv_reg": 3, "fc_reg": 30}
LINK = 0.35


def scan(seed: int, depth: int) -> np.ndarray:
    """Tissue with bright balls, (z, y, x) in HU."""
    draw = np.random.default_rng(seed)
    array = draw.normal(20, 20, (depth, SIZE, SIZE))
    z, y, x = np.indices(array.shape)
    for _ in range(4):
        centre = draw.uniform(0, (depth, SIZE, SIZE))
        reach = ((z - centre[0]) * 2) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        array[reach < draw.uniform(16, 60)] += 150
    return array.astype(np.int16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training set of two patients: a whole volume, a part of a series of PNGs with a gap, and a thin volume."""
    root = tmp_path_factory.mktemp("propose")
    data = root / "data" / "deeplesion"
    folder = data / "Images_png" / "b"
    folder.mkdir(parents=True)
    write_array(data / "a.npy", scan(0, 5))
    for number, image in zip([3, 10, 11, 12, 14, 15, 20], scan(1, 7), strict=True):
        cv2.imwrite(str(folder / f"{number:03d}.png"), (image.astype(np.int32) + 32768).astype(np.uint16))
    write_array(data / "c.npy", scan(2, 7))
    shape = (SIZE, SIZE)
    volumes = [
        VolumeRecord("a", "p", "1", "1", {"kind": "npy", "path": "a.npy"}, 0, 5, shape, SPACING),
        VolumeRecord("b/10", "q", "1", "1", {"kind": "png16", "path": "Images_png/b"}, 10, 6, shape, SPACING),
        VolumeRecord("c", "q", "1", "1", {"kind": "npy", "path": "c.npy"}, 0, 7, shape, (1.0, *SPACING[1:])),
    ]
    lesions = [LesionRecord(0, "a", (10, 10, 2, 20, 20, 3), key_slice=2)]
    (data / "annotations").mkdir()
    path = data / "annotations" / "train.json"
    AnnotationSet({"name": "deeplesion", "label_scope": "universal-partial"}, volumes, lesions).save(path)
    return root


class Made(NamedTuple):
    """A detector: its config with changes, and its weights."""

    config: str
    changes: list[str]
    weights: Path

    def load(self) -> Config:
        return load_config(self.config, self.changes)

    def propose(self, out: Path, **settings: Any) -> Examined:
        changes = [*self.changes, *settings.pop("cfg_options", [])]
        return propose(self.config, self.weights, out, cfg_options=changes, **{"link_score_thr": LINK, **settings})

    def command(self, out: Path, *more: str) -> list[str]:
        """Arguments of the command; those given more come last."""
        start = ["propose", self.config, str(self.weights), "--out", str(out), "--link-score-thr", str(LINK)]
        return [*start, "--cfg-options", *self.changes, *more]


@pytest.fixture(scope="module")
def made(root: Path, mmpluld_scope: None) -> dict[str, Made]:
    """A detector of each kind."""
    found = {}
    for kind, (config, changes) in KINDS.items():
        one = Made(config, [f"data_root={root}/data", *(f"model.{change}" for change in changes)], root / f"{kind}.pth")
        torch.manual_seed(0)
        model = MODELS.build(one.load().model)
        model.init_weights()
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 1.0
        with torch.no_grad():
            model.train().extract_feat(torch.rand(2, 9, 64, 64) * 255 - 50)
            for name, weight in model.named_parameters():
                if weight.ndim > 1:
                    weight.mul_(next((factor for part, factor in SPREAD.items() if part in name), 1))
                elif "conv_cls" in name:
                    weight.zero_()
        torch.save({"state_dict": model.state_dict()}, one.weights)
        found[kind] = one
    return found


@pytest.fixture(scope="module")
def stores(root: Path, made: dict[str, Made]) -> dict[str, ProposalStore]:
    """Proposals of each kind."""
    found = {}
    for kind, one in made.items():
        done = one.propose(root / f"store-{kind}")
        assert (done.num_volumes, done.num_found, done.num_made) == (3, 0, 3)
        found[kind] = ProposalStore(done.store)
    return found


def volumes_of(root: Path) -> list[VolumeRecord]:
    return AnnotationSet.load(root / "data/deeplesion/annotations/train.json").volumes


def tracklets(found: VolumeProposals) -> list[tuple[int, Tracklet]]:
    """Run and chain of each tracklet."""
    result = []
    for number in range(found.num_tracklets):
        rows = np.flatnonzero(found.tracklet == number)
        (run,) = set(found.run[rows].tolist())
        result.append((run, Tracklet(found.grid[rows], found.boxes[rows], found.scores[rows])))
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_tracklets_are_what_the_test_finds(kind, root, made, stores):
    """Merged to 3D boxes they are those of a detector that fuses; and nothing else survives."""
    store = stores[kind]
    assert store.experts == (EXPERTS if kind != "single" else ("deeplesion",))
    assert store.volumes == ["a", "b/10", "c"]
    assert store.header.settings == {"link_score_thr": LINK, "iou_thr": 0.5, "max_gap": 0, "link_order": "iou"}
    settings = DetectionSettings(link_score_thr=LINK, score_thr=LINK)
    detector = VolumeDetector(made[kind].load(), made[kind].weights, settings)
    count = 0
    for volume in volumes_of(root):
        source = open_source(volume, root / "data/deeplesion")
        wanted = detector.detect_slices(source, volume.first_slice, volume.num_slices, volume.id)
        found = store.load(volume.id)
        boxes, scores = [], []
        for run, chain in tracklets(found):
            assert (np.diff(chain.slices) == 1).all()
            grid = GridMap(int(found.runs[run, 1]), found.interval_mm, found.gap_mm)
            merged = tracklet_to_box3d(chain)
            (box,) = grid.boxes_to_scan([merged.box])
            boxes.append(box + np.array([0, 0, found.runs[run, 0]] * 2))
            scores.append(merged.score)
        order = np.lexsort((*np.round(np.array(boxes).reshape(-1, 6), 3).T[::-1], -np.array(scores)))
        assert len(wanted) == len(boxes)
        count += len(boxes)
        np.testing.assert_allclose(np.array(scores)[order], [item.found.score for item in wanted], rtol=1e-6)
        if boxes:
            np.testing.assert_allclose(np.array(boxes)[order], [item.found.box for item in wanted], atol=1e-3)
    assert count > 3


@pytest.mark.parametrize("kind", ["experts", "separate", "one-stage"])
def test_boxes_of_all_experts_come_out_before_their_fusion(kind, root, made, stores):
    """Those of an expert are what it finds when it is asked alone; the fusion has suppressed some of them."""
    cfg = made[kind].load()
    (volume, *_) = volumes_of(root)
    found = stores[kind].load(volume.id)
    assert set(found.expert) == set(range(4))
    assert 0 < (found.tracklet >= 0).sum() < len(found.scores)
    detector = VolumeDetector(cfg, made[kind].weights)
    for number, name in enumerate(EXPERTS):
        only = VolumeDetector(cfg, _alone(detector.model, kind, name))
        grid = only.grids(open_source(volume, root / "data/deeplesion"), 0, volume.num_slices, "a")[0]
        for position, item in enumerate(only.examine(grid, "a")):
            rows = (found.expert == number) & (found.grid == position)
            order = np.lexsort((*item.boxes.T[::-1], -item.scores))
            np.testing.assert_allclose(found.scores[rows], item.scores[order], atol=1e-6)
            np.testing.assert_allclose(found.boxes[rows], item.boxes[order], atol=1e-4)


def _alone(model: torch.nn.Module, kind: str, name: str) -> torch.nn.Module:
    """A detector of which one expert alone is asked, with nothing lost in the fusion."""
    if kind == "experts":
        model.roi_head.test_cfg.update(experts=[name], max_per_img=10**6)
    elif kind == "separate":
        alone = model.detectors[name]
        alone.data_preprocessor = model.data_preprocessor
        return alone
    else:
        alone = copy.copy(model.bbox_head)
        alone._modules = {"heads": torch.nn.ModuleDict({name: model.bbox_head.heads[name]})}
        model = copy.copy(model)
        model._modules = {**model._modules, "bbox_head": alone}
    return model


def test_higher_threshold_of_boxes_leaves_the_tracklets(made, stores, tmp_path):
    """What the documentation says to save room: the weaker boxes suppress none of the stronger."""
    done = made["experts"].propose(tmp_path / "store", cfg_options=[f"model.test_cfg.rcnn.score_thr={LINK}"])
    for volume in stores["experts"].volumes:
        whole, small = stores["experts"].load(volume), ProposalStore(done.store).load(volume)
        assert len(small.scores) < len(whole.scores)
        for name in ("run", "grid", "expert", "boxes", "scores", "tracklet"):
            kept = [getattr(part, name)[part.tracklet >= 0] for part in (whole, small)]
            np.testing.assert_array_equal(*kept)


def test_runs_and_slices(root, stores):
    """Gaps in a series part it, and slices outside the volume are not looked at."""
    found = stores["experts"].load("b/10")
    assert found.runs.tolist() == [[10, 3], [14, 2]]
    assert (found.interval_mm, found.gap_mm) == (5.0, 2.0)
    grids = [GridMap(3, 5.0, 2.0), GridMap(2, 5.0, 2.0)]
    for run, grid in enumerate(grids):
        rows = found.run == run
        assert set(found.grid[rows]) == set(range(grid.num_grid_slices))
        assert (found.slice[rows] == grid.slices_to_scan(found.grid[rows]) + found.runs[run, 0]).all()
    thin = stores["experts"].load("c")
    assert (thin.interval_mm, thin.gap_mm, thin.runs.tolist()) == (1.0, 2.0, [[0, 7]])
    assert set(thin.slice) <= set(range(7))
    keys = np.column_stack([thin.run, thin.grid, thin.expert, -thin.scores])
    assert (np.lexsort(keys.T[::-1]) == np.arange(len(keys))).all()


def shards(folder: Path) -> dict[str, bytes]:
    """All files of a store, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_second_call_makes_what_is_missing(made, stores, capsys):
    store = stores["single"]
    before = shards(store.folder)
    assert len(before) == 4
    store.path("a").unlink()
    store.path("c").write_bytes(store.path("c").read_bytes()[:-100])
    (store.path("a").parent / f"{TEMPORARY}x-a.npz").write_bytes(b"half")  # as a killed process leaves it
    assert store.volumes == ["b/10", "c"]
    untouched = store.path("b/10").stat().st_mtime_ns
    done = made["single"].propose(store.folder)
    assert (done.num_found, done.num_made) == (1, 2)
    assert "1 damaged or outdated shard, made anew" in capsys.readouterr().err
    assert shards(store.folder) == before
    assert store.path("b/10").stat().st_mtime_ns == untouched
    assert main(made["single"].command(store.folder)) == 0
    assert "0 volumes of 3 examined by this process; 3 were there" in capsys.readouterr().out


def test_fold_takes_the_volumes_of_its_patients(root, made):
    store = ProposalStore(made["single"].propose(root / "fold", fold=(1, 2)).store)
    assert store.header.fold == (1, 2, 0)
    assert fold_of_patients(["p", "q"], 1, 2, 0) == {"q"}
    assert store.volumes == ["b/10", "c"]


def test_patients_that_a_detector_of_folds_was_trained_on_are_refused(made, tmp_path, capsys):
    """What the checkpoint says is what a training writes, see the tests of checkpoints."""
    state = torch.load(made["single"].weights, weights_only=True)

    def save(name, fold, patients):
        record = {"deeplesion": {"fold": fold, "patients": patients}}
        torch.save({**state, "meta": {"trained_patients": record}}, tmp_path / name)

    save("f.pth", [1, 2, 3, "out"], ["q"])
    one = made["single"]._replace(weights=tmp_path / "f.pth")
    own = fold_of_patients(["p", "q"], 1, 2, 3)
    assert own == {"p"}
    for out, fold, told in (
        (
            "all",
            [],
            "f.pth: was trained on all patients but those of fold 1/2, and so on 1 patient of those to examine (q)",
        ),
        ("other", ["--fold", "0/2", "--fold-seed", "3"], "surer than elsewhere; give --fold 1/2 --fold-seed 3\n"),
        ("own", ["--fold", "1/2", "--fold-seed", "3"], ""),
    ):
        status = main([*one.command(tmp_path / out), *fold])
        error = capsys.readouterr().err
        assert (status, told in error) == (2 if told else 0, True), error
    assert ProposalStore(tmp_path / "own").volumes == ["a"]
    assert not (tmp_path / "all").exists()
    fold = ["--fold", "1/2", "--fold-seed", "3"]
    for name, record in (("in.pth", [1, 2, 3, "in"]), ("all.pth", None), ("started.pth", [1, 2, 3, "out"])):
        save(name, record, ["p"] if name == "in.pth" else ["p", "q"])
        assert main([*made["single"]._replace(weights=tmp_path / name).command(tmp_path / "seen"), *fold]) == 2
        assert (
            f"{name}: was trained on, or began with weights that were trained on, 1 patient of those to examine (p), "
            "where it is surer than elsewhere; give weights that have not seen them"
        ) in capsys.readouterr().err
    assert not (tmp_path / "seen").exists()
    assert main(made["single"]._replace(weights=tmp_path / "all.pth").command(tmp_path / "whole")) == 0
    assert main([*made["single"].command(tmp_path / "untold"), *fold]) == 0
    assert "does not tell whom it was trained on; make sure that it has not seen fold 1/2" in capsys.readouterr().err
    assert main([*made["single"].command(tmp_path / "seed"), "--fold-seed", "3"]) == 2
    assert "--fold-seed 3: deals patients to folds; give --fold k/K" in capsys.readouterr().err


def test_other_inputs_are_refused(root, made, stores, tmp_path, capsys):
    folder = stores["single"].folder
    before = shards(folder)
    changed = tmp_path / "other.pth"
    state = torch.load(made["single"].weights, weights_only=True)
    next(iter(state["state_dict"].values())).add_(1e-3)
    torch.save(state, changed)
    annotations = AnnotationSet.load(root / "data/deeplesion/annotations/train.json")
    annotations.lesions.clear()
    annotations.save(tmp_path / "train.json")
    single, other = made["single"], made["experts"]
    call = single.command(folder)
    for arguments, told in (
        (single._replace(weights=changed).command(folder), 'of checkpoint "single.pth" (SHA-256 '),
        ([*call, "--annotations", str(tmp_path / "train.json")], "), another file of that name; choose"),
        ([*call, "model.test_cfg.rcnn.score_thr=0.4"], "), with other settings; choose"),
        ([*call, "--link-score-thr", "0.6"], 'of settings {"link_score_thr": 0.35'),
        ([*call, "--fold", "0/2"], "of fold null, not [0, 2, 0]"),
        ([*call, "--precision", "bf16"], 'of precision "fp32"'),
        (single._replace(weights=other.weights).command(folder), "weights of another model"),
        ([*call, "--annotations", str(tmp_path / "none.json")], "none.json: cannot be read (no such file)"),
        (single._replace(weights=tmp_path / "none.pth").command(folder), "none.pth: cannot be read (no such file)"),
        ([*call, "--data-root", str(tmp_path)], ""),  # all are there: nothing is read
    ):
        status = main(arguments)
        error = capsys.readouterr().err
        assert (status, error.count("\n")) == ((2, 1) if told else (0, 0)), error
        assert told in error
    assert shards(folder) == before
    new = tmp_path / "new"
    assert main(single.command(new, "--data-root", str(tmp_path))) == 2
    assert "c.npy" in capsys.readouterr().err
    assert [path.name for path in new.iterdir()] == ["proposals.json"]
    with pytest.raises(SystemExit) as stop:
        main([*call, "--fold", "2"])
    assert stop.value.code == 2 and "'2' is no fold; give k/K" in capsys.readouterr().err


def test_detector_without_experts_goes_by_its_training_set(root, made, tmp_path):
    other = AnnotationSet.load(root / "data/deeplesion/annotations/train.json")
    other.dataset["name"] = "elsewhere"
    other.volumes = other.volumes[:1]
    other.save(tmp_path / "other.json")
    done = made["single"].propose(tmp_path / "store", ann_file=tmp_path / "other.json")
    assert ProposalStore(done.store).experts == ("deeplesion",)
    away = [f"data_root={tmp_path}"]
    with pytest.raises(InputError, match="no such annotation file; a detector without experts goes by"):
        made["single"].propose(tmp_path / "x", ann_file=tmp_path / "other.json", cfg_options=away)
    assert not (tmp_path / "x").exists()
    named = [*away, "train_dataloader.dataset.datasets.deeplesion.name=mine"]
    done = made["single"].propose(
        tmp_path / "y",
        ann_file=tmp_path / "other.json",
        data_root=root / "data/deeplesion",
        cfg_options=named,
    )
    assert ProposalStore(done.store).experts == ("mine",)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_and_a_killed_one_make_the_same_store(root, made, stores):
    expected = shards(stores["experts"].folder)
    script = Path(__file__).with_name("propose_run.py")
    arguments = [str(made["experts"].weights), str(LINK), *made["experts"].changes]
    run = subprocess.run(
        [sys.executable, str(script), str(root / "processes"), made["experts"].config, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-6000:]
    told = json.loads(run.stdout.splitlines()[-1])
    assert sorted(told["made_by_two"]) == [1, 2]
    assert 1 <= told["left_by_killed"] < 3
    assert told["made_after"] == 3 - told["left_by_killed"]
    for name in ("two", "killed"):
        assert shards(root / "processes" / name) == expected
