"""Trunks: every row of a table has one, they are trained once, and others' are refused."""

from __future__ import annotations

import json

import pytest
import torch

from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.registry import MODELS
from mmpluld.reproduce.children import Resources, run_command
from mmpluld.reproduce.start import backbones
from mmpluld.reproduce.tables import TABLES
from mmpluld.reproduce.trunks import _identity, _is_there, _known, ensure_trunks, trunk_name

pytestmark = pytest.mark.usefixtures("mmpluld_scope")

ROW = "faster-rcnn_r50-fpn_3s_phantom"
TRUNK = "trunk-faster-rcnn_r50_3s_phantom"


ROWS = {
    ROW: TRUNK,
    "pluld-alignshift_densenet121-fpn_7s_phantom": "trunk-alignshift_densenet121_7s_phantom",
    "retinanet-a3d_densenet121-fpn_7s_phantom": "trunk-a3d_densenet121_7s_phantom",
    "25d_densenet121-fpn_7s_phantom": "trunk-25d_densenet121_7s_phantom",
    "tsm_densenet121-fpn_7s_phantom": "trunk-tsm_densenet121_7s_phantom",
    "mulan_densenet121_9s_phantom": "trunk-lens_densenet121_9s_phantom",
    "lens-afp_densenet121_separate_9s_phantom": "trunk-lens_densenet121_9s_phantom",
    "lens-afp_densenet121_4datasets-attention_9s_phantom": "trunk-lens-attention_densenet121_9s_phantom",
}


def test_rows_find_the_trunk_of_their_backbone():
    for row, trunk in ROWS.items():
        config = load_config(row)
        assert trunk_name(row, config) == trunk
        (wanted,) = {str(backbone) for backbone in backbones(config).values()}
        assert wanted == str(load_config(trunk).model.backbone.to_dict())
    assert set(ROWS.values()) == set(_known().values())


@pytest.mark.slow
def test_every_row_has_a_trunk():
    for row in {row.config: row for table in TABLES.values() for row in table.rows}.values():
        assert trunk_name(row.key, load_config(row.config_name(True))) in ROWS.values()


def test_row_without_a_trunk_is_named():
    config = load_config(ROW, ["model.backbone.base_channels=8"])
    with pytest.raises(InputError, match=r"faster-rcnn: no trunk has its backbone \(ResNet\); add a config"):
        trunk_name("faster-rcnn", config)
    config = load_config(ROW, ["model.backbone.init_cfg.type=Pretrained", "model.backbone.init_cfg.checkpoint=x"])
    assert trunk_name("faster-rcnn", config) is None


@pytest.fixture
def trained(tmp_path):
    """A folder with the record of a finished trunk."""
    for name in ("phantom.json", "annotations/train.json"):
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "data" / name).write_text("{}")
    root = tmp_path / "trunks"
    (root / TRUNK).mkdir(parents=True)
    (root / f"{TRUNK}.pth").write_bytes(b"weights")
    identity = _identity(TRUNK, tmp_path / "data", ())
    sha256 = "9b5b60d3a0ee56ad3b5ab44c3e1a1c3ee1ae0a3c0d2bd2f5e3b5b3ed7f0b3c44"
    (root / TRUNK / "trunk.json").write_text(json.dumps({"identity": identity, "sha256": sha256}))
    return root, identity


def test_trunk_of_another_config_and_changed_weights_are_refused(trained):
    root, identity = trained
    with pytest.raises(InputError, match=r"pth: is not the trunk that was trained here"):
        _is_there(root, TRUNK, identity)
    with pytest.raises(InputError, match="of another version of its config or its phantom"):
        _is_there(root, TRUNK, {**identity, "config_sha256": "0"})
    (root / f"{TRUNK}.pth").unlink()
    assert not _is_there(root, TRUNK, identity)


@pytest.mark.slow
def test_trunk_is_trained_once_and_starts_a_row(tmp_path):
    wanted = [("faster-rcnn", load_config(ROW))]
    resources, small = Resources(1, 1), {"size": 64, "max_slices": 4}
    options = ["train_cfg.max_epochs=1", "train_cfg.val_interval=1", "train_dataloader.batch_size=2"]

    def ensure(folder):
        return ensure_trunks(wanted, folder, resources, run_command, (2, 1), small, options)

    start = ensure(tmp_path)(wanted[0][1])
    file = tmp_path / "trunks" / f"{TRUNK}.pth"
    before = file.stat().st_mtime_ns
    assert ensure(tmp_path)(wanted[0][1]) == start
    assert file.stat().st_mtime_ns == before
    assert ensure(tmp_path / "again")(wanted[0][1]).sha256 == start.sha256
    model = MODELS.build(load_config(ROW, list(start.options)).model)
    model.init_weights()
    state = torch.load(file, weights_only=True)["state_dict"]
    for key, value in model.backbone.state_dict().items():
        torch.testing.assert_close(value, state[f"backbone.{key}"], rtol=0, atol=0)
    with pytest.raises(InputError, match="other settings than the trunks'"):
        ensure_trunks(wanted, tmp_path, resources, run_command, (3, 1), small, options)
