"""Which rules a config carries, what changes do to them, and what is refused."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mmpluld.cli.detect import RULES
from mmpluld.engine.config import load_config
from mmpluld.engine.config_check import check_config
from mmpluld.errors import InputError
from mmpluld.inference import DetectionSettings


def volumes(**settings):
    return Config({"test_cfg": {"type": "VolumeTestLoop", **settings}})


@pytest.mark.parametrize("kind", ["VolumeTestLoop", "mmpluld.VolumeTestLoop"])
def test_a_config_detects_as_it_is_tested(kind):
    config = volumes(type=kind, iou_thr=0.3, max_gap=1, link_score_thr=0.02, precision="bf16", batch_size=4)
    expected = DetectionSettings(link_score_thr=0.02, iou_thr=0.3, max_gap=1)
    assert DetectionSettings.from_config(config) == expected
    assert DetectionSettings.from_config(config, max_gap=2) == DetectionSettings(0.02, iou_thr=0.3, max_gap=2)


@pytest.mark.parametrize("config", [{}, {"test_cfg": None}, {"test_cfg": {"type": "TestLoop"}}])
def test_a_config_tested_on_slices_takes_the_defaults(config):
    assert DetectionSettings.from_config(Config(config)) == DetectionSettings()
    assert DetectionSettings.from_config(Config(config), iou_thr=0.3).iou_thr == 0.3


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("pluld-a3d_densenet121-fpn_7s_phantom", 0.05),
        ("lens-afp_densenet121_4datasets_9s_phantom", 0.05),
        ("lens-afp_densenet121_4datasets-calibrated_9s_phantom", 0.005),
    ],
)
def test_configs_of_the_zoo(name, link):
    settings = DetectionSettings.from_config(load_config(name))
    assert settings == DetectionSettings(link_score_thr=link, score_thr=0.3)


def test_a_test_counts_every_box_unless_told():
    assert DetectionSettings.of_test({}) == DetectionSettings(0.05, 0.05)
    assert DetectionSettings.of_test({"link_score_thr": 0.2}) == DetectionSettings(0.2, 0.2)
    assert DetectionSettings.of_test({"score_thr": 0.5, "max_gap": 1}) == DetectionSettings(0.05, 0.5, max_gap=1)
    assert DetectionSettings.of_test({"score_thr": 0.01}) == DetectionSettings(0.01, 0.01)


def test_low_scores_of_findings_lower_that_of_linking():
    assert DetectionSettings.from_config(volumes(), score_thr=0.01) == DetectionSettings(0.01, 0.01)
    assert DetectionSettings.from_config(volumes(link_score_thr=0.1), score_thr=0.02) == DetectionSettings(0.02, 0.02)
    assert DetectionSettings.from_config(volumes(score_thr=0.01), score_thr=0.4) == DetectionSettings(0.01, 0.4)
    assert DetectionSettings.from_config(volumes(link_score_thr=0.4)) == DetectionSettings(0.4, 0.4)
    with pytest.raises(InputError, match="link_score_thr is 0.5, above score_thr 0.3: .* lower link_score_thr"):
        DetectionSettings.from_config(volumes(), link_score_thr=0.5)
    with pytest.raises(InputError, match="link_score_thr is 0.2, above score_thr 0.1"):
        DetectionSettings.of_test({"link_score_thr": 0.2, "score_thr": 0.1})


def test_new_scores_have_a_threshold_of_their_own():
    """With false-positive reduction, that of linking is of the detector's scores."""
    assert DetectionSettings.of_test({}, rescored=True) == DetectionSettings(0.05, 0.0)
    assert DetectionSettings.of_test({"score_thr": 0.01}, rescored=True) == DetectionSettings(0.05, 0.01)
    carried = volumes(link_score_thr=0.4)
    assert DetectionSettings.from_config(carried, rescored=True) == DetectionSettings(0.4, 0.3)
    assert DetectionSettings.from_config(volumes(), rescored=True, score_thr=0.01) == DetectionSettings(0.05, 0.01)
    both = {"link_score_thr": 0.2, "score_thr": 0.1}
    assert DetectionSettings.from_config(volumes(), rescored=True, **both) == DetectionSettings(0.2, 0.1)
    DetectionSettings.check_changes(both, rescored=True)
    for refused in (DetectionSettings.check_changes, DetectionSettings.of_test):
        with pytest.raises(InputError, match="link_score_thr is 0.2, above score_thr 0.1"):
            refused(both)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score_thr": 1.5}, "score_thr is 1.5; allowed is 0 to 1"),
        ({"link_score_thr": -0.1}, "link_score_thr is -0.1; allowed is 0 to 1"),
        ({"tag_thr": float("nan")}, "tag_thr is nan; allowed is 0 to 1"),
        ({"score_thr": "high"}, "score_thr is high; allowed is 0 to 1"),
        ({"iou_thr": 1.0}, "iou_thr is 1.0; allowed is 0 to below 1"),
        ({"max_gap": -1}, "max_gap is -1; allowed is 0 or more"),
        ({"max_gap": 0.5}, "max_gap is 0.5; allowed is 0 or more, in whole numbers"),
        ({"min_slices": None}, "min_slices is None; allowed is 1 or more"),
        ({"max_boxes": 0}, "max_boxes is 0; allowed is 1 or more"),
        ({"link_order": "best"}, "link_order is 'best'; allowed are iou, score"),
        ({"score_rule": "sum"}, "score_rule is 'sum'; allowed are max, mean"),
        ({"grid_rule": None}, "grid_rule is None; allowed are covered, nearest"),
    ],
)
def test_bad_values(settings, message):
    for make in (lambda: DetectionSettings(**settings), lambda: DetectionSettings.from_config(volumes(**settings))):
        with pytest.raises(InputError, match=message):
            make()


def test_the_check_of_configs_knows_the_settings():
    check_config(volumes(iou_thr=0.3, max_gap=1, tag_thr=0.2, batch_size=2))
    with pytest.raises(InputError, match="test_cfg.iou_thre: VolumeTestLoop has no such argument; did you mean 'iou_t"):
        check_config(volumes(iou_thre=0.3))


def test_description_names_what_is_not_usual():
    assert DetectionSettings().describe() == (
        "2D boxes scored 0.05 or more, linked at IoU above 0.5; findings scored 0.3 or more"
    )
    text = DetectionSettings(iou_thr=0.3, max_gap=1, score_rule="mean").describe()
    assert "IoU above 0.3, max_gap 1, score_rule mean;" in text


@pytest.mark.parametrize("name", RULES)
def test_help_of_the_command_says_the_defaults(name):
    default = getattr(DetectionSettings(), name)
    said = RULES[name][1].rpartition("(")[2]
    assert said.removesuffix(")").split(",")[0] == ("all" if default is None else str(default))
