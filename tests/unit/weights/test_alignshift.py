"""Conversion of published checkpoints, from files made after the published layout."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmpluld.cli.main import main
from mmpluld.engine.checkpoint import load_weights
from mmpluld.engine.config import find_config, load_config
from mmpluld.errors import InputError
from mmpluld.registry import MODELS
from mmpluld.weights.alignshift import convert_alignshift, convert_state_dict

VARIANTS = ("a3d", "alignshift", "tsm", "25d")


@pytest.fixture
def tiny_config(published: SimpleNamespace) -> Callable[[Path, str], Path]:
    """Function that writes the zoo's 3-slice config of a variant, with narrow parts, into a folder."""

    def make(folder: Path, variant: str) -> Path:
        return published.tiny_config(find_config(f"legacy-{variant}_densenet121-fpn_3s_deeplesion").path, folder)

    return make


def write(folder: Path, content: object, old_format: bool = True) -> Path:
    path = folder / "epoch_20.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not old_format)
    return path


class TestLayout:
    @pytest.mark.parametrize(("variant", "total"), [("a3d", 644), ("alignshift", 557), ("tsm", 557), ("25d", 554)])
    def test_published_counts(self, published: SimpleNamespace, variant: str, total: int) -> None:
        names = published.layout(variant, 7)
        assert len(names) == total
        if variant == "alignshift":
            assert sum(name.startswith("backbone.") for name in names) == 531

    @pytest.mark.parametrize("num_slices", [3, 7])
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_full_size_fits_the_config_of_the_zoo(
        self, published: SimpleNamespace, variant: str, num_slices: int
    ) -> None:
        weights = {
            name: torch.empty(shape, device="meta") for name, shape in published.layout(variant, num_slices).items()
        }
        converted, renamed, reduced, dropped = convert_state_dict(weights)
        config = load_config(find_config(f"legacy-{variant}_densenet121-fpn_{num_slices}s_deeplesion"))
        with torch.device("meta"):
            model = MODELS.build(config.model)
        expected = {name: value.shape for name, value in model.state_dict().items()}
        assert {name: value.shape for name, value in converted.items()} == expected
        assert len(dropped) == (3 if variant == "a3d" else 0)
        assert len(reduced) == 6
        assert len(renamed) == 26 + (84 if variant == "a3d" else 0)


class TestConversion:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_loads_strictly_with_the_right_numbers(
        self, tiny_config: Callable[[Path, str], Path], published: SimpleNamespace, tmp_path: Path, variant: str
    ) -> None:
        weights = published.weights(variant, 3)
        wrapped = OrderedDict((f"module.{name}", value) for name, value in weights.items())
        source = write(tmp_path, published.checkpoint(wrapped))
        config = tiny_config(tmp_path, variant)
        operator = variant if variant in ("alignshift", "tsm") else None
        report = convert_alignshift(source, tmp_path / "new.pth", operator=operator, config=config)
        assert (report.variant, report.num_slices, report.config) == (variant, 3, config.stem)
        assert report.sha256 == hashlib.sha256((tmp_path / "new.pth").read_bytes()).hexdigest()
        assert set(report.dropped) == {
            name for name in weights if "adaptive" in name and ("conv0" in name or "transition" in name)
        }
        model = MODELS.build(load_config(config).model)
        load_weights(model, tmp_path / "new.pth")
        own = model.state_dict()
        assert len(own) == report.num_tensors == len(weights) - len(report.dropped)
        head = "roi_head.bbox_head"
        for part in ("weight", "bias"):
            published = weights[f"bbox_head.fc_cls.{part}"]
            assert torch.equal(own[f"{head}.fc_cls.{part}"], torch.stack([published[1], published[0]]))
            assert torch.equal(own[f"{head}.fc_reg.{part}"], weights[f"bbox_head.fc_reg.{part}"][4:8])
            assert torch.equal(
                own[f"roi_head.mask_head.conv_logits.{part}"], weights[f"mask_head.conv_logits.{part}"][1:2]
            )
            assert torch.equal(own[f"neck.lateral3.{part}"], weights[f"backbone.lateral3.{part}"])
            assert torch.equal(own[f"rpn_head.rpn_cls.{part}"], weights[f"rpn_head.rpn_cls.{part}"])

    def test_file_holds_weights_and_plain_metadata_only(
        self, tiny_config: Callable[[Path, str], Path], published: SimpleNamespace, tmp_path: Path
    ) -> None:
        source = write(tmp_path, published.checkpoint(published.weights("a3d", 3)))
        config = tiny_config(tmp_path, "a3d")
        convert_alignshift(source, tmp_path / "new.pth", config=config)
        content = torch.load(tmp_path / "new.pth", weights_only=True)
        assert set(content) == {"state_dict", "meta"}
        assert content["meta"]["config"] == config.stem
        assert content["meta"]["epoch"] == 20
        assert content["meta"]["dataset_meta"] == {"classes": ("lesion",)}
        assert "import os" not in str(content["meta"])
        # Rows that were left out are not in the file: its tensors own what they show and no more.
        assert all(v.untyped_storage().nbytes() == v.nbytes for v in content["state_dict"].values())

    def test_same_file_again_and_in_either_format(
        self, tiny_config: Callable[[Path, str], Path], published: SimpleNamespace, tmp_path: Path
    ) -> None:
        config = tiny_config(tmp_path, "25d")
        digests = set()
        for index, old_format in enumerate([True, False]):
            source = write(tmp_path, published.checkpoint(published.weights("25d", 3)), old_format)
            for again in range(2):
                target = tmp_path / f"new{index}{again}.pth"
                digests.add(convert_alignshift(source, target, config=config).sha256)
        assert len(digests) == 1

    def test_embedded_config_is_not_run(
        self,
        tiny_config: Callable[[Path, str], Path],
        published: SimpleNamespace,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        source = write(tmp_path, published.checkpoint(published.weights("tsm", 3), backbone="TruncTSM"))
        convert_alignshift(source, "new.pth", config=tiny_config(tmp_path, "tsm"))
        assert not (tmp_path / "executed").exists()


class TestVariant:
    @pytest.mark.parametrize(
        ("names", "variant"),
        [
            ({"backbone": "DenseNetCustomTrunc3dTSM"}, "tsm"),
            ({"backbone": "DenseNetCustomTrunc3dAlign"}, "alignshift"),
            ({"detector": "AlignShiftMaskRCNN"}, "alignshift"),
        ],
    )
    def test_from_the_types_in_the_config_text(
        self,
        tiny_config: Callable[[Path, str], Path],
        published: SimpleNamespace,
        tmp_path: Path,
        names: dict,
        variant: str,
    ) -> None:
        """RoIAlign and what stands in comments do not count."""
        source = write(tmp_path, published.checkpoint(published.weights(variant, 3), **names))
        report = convert_alignshift(source, tmp_path / "new.pth", config=tiny_config(tmp_path, variant))
        assert report.variant == variant
        assert report.evidence == "the model types in its config text"

    @pytest.mark.parametrize(
        ("names", "found"), [({}, "names neither"), ({"backbone": "TSM", "detector": "AlignNet"}, "names both")]
    )
    def test_text_that_does_not_tell(self, published: SimpleNamespace, tmp_path: Path, names: dict, found: str) -> None:
        source = write(tmp_path, published.checkpoint(published.weights("tsm", 3), **names))
        with pytest.raises(InputError, match=rf"{found}; say which with --operator alignshift or --operator tsm"):
            convert_alignshift(source, tmp_path / "new.pth")

    def test_option_against_the_weights(self, published: SimpleNamespace, tmp_path: Path) -> None:
        source = write(tmp_path, published.checkpoint(published.weights("a3d", 3)))
        with pytest.raises(InputError, match="holds a3d weights, not tsm; leave --operator out"):
            convert_alignshift(source, tmp_path / "new.pth", operator="tsm")
        with pytest.raises(InputError, match="operator is 'acs'; allowed are alignshift, tsm"):
            convert_alignshift(source, tmp_path / "new.pth", operator="acs")

    def test_slices_without_a_config(self, published: SimpleNamespace, tmp_path: Path) -> None:
        source = write(tmp_path, published.checkpoint(published.weights("a3d", 9)))
        with pytest.raises(InputError, match=r"a3d weights for 9 slices, which no config .* with --config"):
            convert_alignshift(source, tmp_path / "new.pth")


@pytest.fixture
def convert(tmp_path: Path, tiny_config: Callable[[Path, str], Path]) -> Callable[[object], Path]:
    """Function that writes a published file, converts it as A3D weights, and returns the result."""
    config = tiny_config(tmp_path, "a3d")

    def run(content: object, overwrite: bool = False) -> Path:
        convert_alignshift(write(tmp_path, content), tmp_path / "new.pth", config=config, overwrite=overwrite)
        return tmp_path / "new.pth"

    return run


class TestRefusals:
    def test_missing_unexpected_and_misshapen(
        self, published: SimpleNamespace, convert: Callable[[object], Path], tmp_path: Path
    ) -> None:
        weights = published.weights("a3d", 3)
        del weights["rpn_head.rpn_cls.bias"], weights["bbox_head.shared_fcs.1.weight"]
        weights["backbone.extra.weight"] = torch.zeros(1)
        weights["backbone.lateral2.weight"] = torch.zeros(8, 5, 1, 1)
        with pytest.raises(InputError) as error:
            convert({"state_dict": weights})
        text = str(error.value)
        assert "2 missing (rpn_head.rpn_cls.bias, roi_head.bbox_head.shared_fcs.1.weight)" in text
        assert "1 unexpected (backbone.extra.weight)" in text
        assert "1 of another shape (backbone.lateral2.weight)" in text
        assert "\n" not in text
        assert not (tmp_path / "new.pth").exists()

    def test_head_of_another_number_of_classes(
        self, published: SimpleNamespace, convert: Callable[[object], Path], tmp_path: Path
    ) -> None:
        weights = published.weights("a3d", 3)
        weights["bbox_head.fc_cls.weight"] = torch.zeros(81, 16)
        with pytest.raises(InputError, match=r"bbox_head\.fc_cls\.weight has shape \(81, 16\); expected are 2 rows"):
            convert({"state_dict": weights})

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"model": 1}, r"has no state_dict of tensors \(it holds model\)"),
            ({"state_dict": {}}, "has no state_dict of tensors"),
            ({"state_dict": {"weight": "text"}}, "has no state_dict of tensors"),
            ({"state_dict": {"backbone.conv1.weight": torch.zeros(1)}}, "first tensor is backbone.conv1.weight"),
        ],
    )
    def test_other_checkpoints(
        self, convert: Callable[[object], Path], tmp_path: Path, content: dict, message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            convert(content)

    def test_result_of_a_conversion(
        self, published: SimpleNamespace, convert: Callable[[object], Path], tmp_path: Path
    ) -> None:
        first = convert(published.checkpoint(published.weights("a3d", 3)))
        with pytest.raises(InputError, match="not of this package or another"):
            convert_alignshift(first, tmp_path / "again.pth")

    def test_existing_target(
        self, published: SimpleNamespace, convert: Callable[[object], Path], tmp_path: Path
    ) -> None:
        content = published.checkpoint(published.weights("a3d", 3))
        target = convert(content)
        before = target.read_bytes()
        target.write_bytes(b"mine")
        with pytest.raises(InputError, match=r"new\.pth: exists already; .* --overwrite"):
            convert(content)
        assert target.read_bytes() == b"mine"
        convert(content, overwrite=True)
        assert target.read_bytes() == before


class Intruder:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch intruded",)


class TestOldPickles:
    @pytest.mark.parametrize("old_format", [True, False])
    def test_dates_and_dicts_with_attributes(
        self, tiny_config: Callable[[Path, str], Path], published: SimpleNamespace, tmp_path: Path, old_format: bool
    ) -> None:
        content = published.checkpoint(published.weights("a3d", 3))
        content["meta"] |= {"date": datetime.datetime(2021, 9, 6), "cfg": Config({"model": {"type": "X"}})._cfg_dict}
        source = write(tmp_path, content, old_format)
        report = convert_alignshift(source, tmp_path / "new.pth", config=tiny_config(tmp_path, "a3d"))
        assert report.variant == "a3d"

    def test_code_is_refused_and_not_run(
        self,
        tiny_config: Callable[[Path, str], Path],
        published: SimpleNamespace,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        content = published.checkpoint(published.weights("a3d", 3))
        content["meta"]["hook"] = Intruder()
        with pytest.raises(InputError, match=r"refused, because reading it would run '\w+\.system'") as error:
            convert_alignshift(write(tmp_path, content), "new.pth", config=tiny_config(tmp_path, "a3d"))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "intruded").exists()


class TestCommand:
    def test_says_what_it_did(
        self,
        tiny_config: Callable[[Path, str], Path],
        published: SimpleNamespace,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        source = write(tmp_path, published.checkpoint(published.weights("a3d", 3)))
        config = tiny_config(tmp_path, "a3d")
        target = tmp_path / "new.pth"
        assert main(["convert-checkpoint", "alignshift", str(source), str(target), "--config", str(config)]) == 0
        out = capsys.readouterr().out
        assert "a3d weights for 3 slices, recognised by its weights" in out
        assert "left out: backbone.conv0.adaptive_align_weights, backbone.transition1.conv" in out
        assert f"SHA-256 {hashlib.sha256(target.read_bytes()).hexdigest()}" in out
        assert f"mmpluld test {config} {target}" in out

    def test_bad_input_is_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["convert-checkpoint", "alignshift", str(tmp_path / "no.pth"), str(tmp_path / "new.pth")]) == 2
        assert capsys.readouterr().err.strip() == f"mmpluld: error: {tmp_path / 'no.pth'}: no such checkpoint"
