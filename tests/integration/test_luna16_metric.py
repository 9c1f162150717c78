"""LUNA16's official metric from a test of the converted dataset: two commands, on a phantom of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpluld.cli.main import main
from mmpluld.engine.config import load_config
from mmpluld.io import read_volume
from mmpluld.registry import MODELS
from mmpluld.structures import AnnotationSet, DetectionSet

CONFIG = "lens-afp_densenet121_4datasets-luna16_9s_phantom"
SMALL = ["backbone.growth_rate=8", "backbone.block_config=(1,1,1)", "backbone.stem_channels=8"]
SMALL += ["neck.in_channels=(16,16,16)", "neck.out_channels=16", "roi_head.bbox_roi_extractor.out_channels=16"]
SMALL += ["rpn_head.head.in_channels=16", "rpn_head.head.feat_channels=16", "roi_head.bbox_head.in_channels=16"]
SMALL += ["roi_head.bbox_head.fc_out_channels=24"]


@pytest.fixture
def root(tmp_path: Path, mmpluld_scope: None) -> Path:
    """A converted phantom of LUNA16 in ``luna16``, and ``weights.pth`` that find something everywhere."""
    data = tmp_path / "luna16"
    small = ["size=64", "max_slices=10", "lesions_per_series=14", "min_long_mm=14"]
    assert main(["phantom", "luna16", str(data), "--patients", "5", "--set", *small]) == 0
    assert main(["convert", "luna16", str(data)]) == 0
    torch.manual_seed(0)
    model = MODELS.build(load_config(CONFIG, [f"model.{change}" for change in SMALL]).model)
    model.init_weights()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    return tmp_path


def test_dataset_level_test_gives_the_official_metric(root, capsys):
    found, scans = root / "found.json", root / "luna16" / "annotations" / "test.json"
    changes = [f"data_root={root}", "model.test_cfg.rcnn.max_per_img=4", *(f"model.{change}" for change in SMALL)]
    folders = ["--out", str(found), "--work-dir", str(root / "work")]
    assert main(["test", CONFIG, str(root / "weights.pth"), *folders, "--cfg-options", *changes]) == 0
    tested = AnnotationSet.load(scans).volumes
    record = DetectionSet.load(found).volumes
    assert list(record) == [volume.id for volume in tested]
    for name, item in record.items():
        (header,) = (root / "luna16").glob(f"subset*/{name}.mhd")
        # Edges count from the corner of a voxel, points from its centre.
        edges = read_volume(header, units="hu").points_from_world_lps(item.world_lps.reshape(-1, 2, 3)) + 0.5
        assert len(edges) > 0
        np.testing.assert_allclose(np.concatenate([edges.min(1), edges.max(1)], 1), item.boxes, atol=1e-3)

    command = ["evaluate", str(found), str(root / "luna16"), "--protocol", "luna16", "--json", str(root / "out.json")]
    assert main([*command, "--scans", str(scans)]) == 0
    result = json.loads((root / "out.json").read_text())
    assert (result["num_volumes"], result["missing_volumes"], result["extra_volumes"]) == (len(tested), [], [])
    assert 0 <= result["average"] <= 1
    assert main(command) == 0
    everything = json.loads((root / "out.json").read_text())
    assert everything["num_volumes"] == 5
    assert len(everything["missing_volumes"]) == 5 - len(tested)

    capsys.readouterr()
    assert main([*command, "--protocol", "centre-3d", "--scans", str(scans)]) == 2
    assert "--scans is not part of centre-3d" in capsys.readouterr().err
    other = AnnotationSet.load(scans)
    other.lesions.clear()
    other.volumes[0].id = "another"
    other.save(root / "other.json")
    assert main([*command, "--scans", str(root / "other.json")]) == 2
    assert "volume 'another' is no scan of" in capsys.readouterr().err
