"""Values on the command line: what is meant, or a refusal in one line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.cli.main import main
from mmpluld.engine.config import load_config
from mmpluld.engine.option_values import parse_value, written
from mmpluld.errors import InputError

NAME = "pluld-a3d_densenet121-fpn_7s_20e_deeplesion"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-3", -3),
        ("1e-3", 0.001),
        ("2.5", 2.5),
        ("10_000", 10000),
        ("2024_11", "2024_11"),
        ("0x10", "0x10"),
        ("٣", "٣"),  # not a number in a config
        ("True", True),
        ("false", False),
        ("None", None),
        ("none", "none"),
        ("a,b", ["a", "b"]),
        ("1,2,3", [1, 2, 3]),
        ("1,", [1]),
        ("[1, 2]", [1, 2]),
        ("(1, 2)", (1, 2)),
        ("(5,)", (5,)),
        ("[]", []),
        ("[(1, 2), [a, b], c]", [(1, 2), ["a", "b"], "c"]),
        ("(1,2),(3,4)", [(1, 2), (3, 4)]),
        ("{type: AdamW, lr: 1e-3, 'betas': (0.9, 0.99), x: {y: None}}",
         {"type": "AdamW", "lr": 0.001, "betas": (0.9, 0.99), "x": {"y": None}}),
        ("[a b, 'c, d']", ["a b", "c, d"]),
        ("x(1,2)", "x(1,2)"),
        ("sp ace", "sp ace"),
        (" x", " x"),
        ("'5'", "5"),
        ('"a, b"', "a, b"),
        ("''", ""),
        ("O'Brien", "O'Brien"),
        ("[O'Brien, 'a,b']", ["O'Brien", "a,b"]),
        ("x=y", "x=y"),
        ("#1 ü", "#1 ü"),
        ("torchvision://resnet50", "torchvision://resnet50"),
    ],
)  # fmt: skip
def test_values(text: str, value: object) -> None:
    found = parse_value("model.x", text)
    assert found == value
    assert type(found) is type(value)


def test_what_is_no_number() -> None:
    assert math.isnan(parse_value("x", "nan"))  # refused where a number is needed


@pytest.mark.parametrize(
    "text", ["a,b", "a (1, 2)/x", "(1, 2)/x", "sp ace/ph", "2024", "[a", "a]", "O'Brien, 2", "x=y", "#", "ä", " "]
)
def test_a_path_is_kept_as_it_is(text: str) -> None:
    for key in ("data_root", "train_dataloader.dataset.ann_file", "work_dir", "model.backbone.init_cfg.checkpoint"):
        assert parse_value(key, text) == text
    assert parse_value("load_from", "None") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,,b", "an element is missing"),
        ("[,]", "an element is missing"),
        ("a(,b", "brackets or quotes do not match"),
        ("[1,2", "brackets or quotes do not match"),
        ("(1, 2]", "."),
        ("[['a']", "."),
        ("'a", "a quote is not closed"),
        ("{a}", "'a' is no key: value"),
        ("{1: 2}", "the key 1 is no text"),
        ("dict(a=1)", "is neither a text nor a container"),
        ("a\udce9", "not valid UTF-8"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        parse_value("model.x", text)
    assert "\n" not in str(error.value)


@settings(max_examples=50)
@given(st.text(st.characters(codec="utf-8", exclude_characters="'"), min_size=1))
def test_any_path_can_be_written(text: str) -> None:
    assert parse_value("data_root", written(text)) == text


@settings(max_examples=50)
@given(st.text("[]() {},:'\"a1=.", max_size=12))
def test_anything_is_a_value_or_one_line(text: str) -> None:
    for key in ("data_root", "model.x"):
        try:
            parse_value(key, text)
        except InputError as error:
            assert "\n" not in str(error)


def test_in_a_config() -> None:
    config = load_config(NAME, ["data_root=sp ace/a, (b)", "param_scheduler.1.milestones=[3, 4]"])
    assert config.train_dataloader.dataset.data_root == "sp ace/a, (b)"
    assert config.param_scheduler[1].milestones == [3, 4]
    with pytest.raises(InputError, match=r"data_root is \['a', 'b'\]; allowed is a path; in quotes"):
        load_config(NAME, ["data_root=[a, b]"])
    with pytest.raises(InputError, match="write key=value"):
        load_config(NAME, ["model..x=1"])


def test_below_a_part_that_is_none() -> None:
    """As the documentation gives ImageNet weights."""
    options = ["model.backbone.init_cfg.type=DenseNetImageNet", "model.backbone.init_cfg.checkpoint=a b.pth"]
    found = load_config(NAME, options).model.backbone.init_cfg
    assert found == {"type": "DenseNetImageNet", "checkpoint": "a b.pth"}


def test_options_given_twice_both_count(capsys) -> None:
    assert main(["config", NAME, "--cfg-options", "work_dir=a b", "--cfg-options", "data_root=c,d"]) == 0
    printed = capsys.readouterr().out
    assert "work_dir = 'a b'" in printed
    assert "data_root='c,d'" in printed


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("num_slices=abc", "num_slices is 'abc'; allowed is whole numbers from 1"),
        ("num_slices=0", "num_slices is 0"),
        ("window_hu=5", "window_hu is 5; allowed is two numbers of HU, the lower first"),
        ("window_hu=(240, -160)", "the lower first"),
        ("neg_weight=nan", "neg_weight is nan"),
        ("keep_prob=2", "keep_prob is 2; allowed is numbers from 0 to 1"),
        ("data_root=None", "data_root is None"),
    ],
)
def test_shared_values_that_no_place_can_use(option: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_config(NAME, [option])
    name, _, value = option.partition("=")
    path = tmp_path / "mine.py"
    text = value if value[0] in "(0123456789N" else "float('nan')" if value == "nan" else repr(value)
    path.write_text(f"_base_ = 'mmpluld::pluld/{NAME}.py'\n{name} = {text}\n".replace(
        "mmpluld::", str(Path(load_config(NAME).filename).parents[1]) + "/"
    ))  # fmt: skip
    with pytest.raises(InputError, match=message):
        load_config(path)
