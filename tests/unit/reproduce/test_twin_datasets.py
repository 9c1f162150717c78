"""The four phantoms of LENS' twins, and the dataset configs that read them."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmpluld.cli.main import main
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.phantom import PhantomSpec
from mmpluld.reproduce.plan import _annotation_files
from mmpluld.reproduce.tables import TABLES
from mmpluld.reproduce.twin_data import SEED
from mmpluld.reproduce.twin_datasets import (
    LENS_PATIENTS,
    LENS_SETTINGS,
    describe_lens_phantoms,
    ensure_lens_phantoms,
)
from mmpluld.structures import AnnotationSet

PATIENTS = {"deeplesion": (2, 1, 1), "luna16": (3,), "lits": (6,), "nih-ln": (3,)}
HELD_OUT = {"luna16": 1, "lits": 2, "nih-ln": 1}
COMMON = {"size": 64, "max_slices": 16, "lesions_per_series": 18, "min_long_mm": 14, "pad_mm": 11}  # 2 px
SETTINGS = {
    layout: {**COMMON, "phases": (phase,)}
    for layout, phase in zip(PATIENTS, ("portal", "native", "arterial", "portal"), strict=True)
}
ROW = TABLES["lens-table2"].row("lens")
SETTINGS["lits"]["lesion_mix"] = {"liver": 5, "abdomen": 1}
TYPES = {"luna16": {"lung"}, "lits": {"liver"}, "nih-ln": {"lymph node"}}


def command(arguments: list[str], log: Path) -> None:
    assert log.suffix == ".log"
    assert main(arguments) == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lens") / "phantoms"
    ensure_lens_phantoms(folder, command, PATIENTS, SETTINGS)
    return folder


@pytest.mark.parametrize(("config", "length"), [("4datasets-mined", 392), ("mined", 920)])
def test_lengths_of_mined_twins_were_counted_on_these_phantoms(config, length):
    """388 samples of DeepLesion, 96 + 48, 144 + 72 and 109 + 54 of the others, each filled up to batches of 8.

    Phantoms of other patients or settings, or other batches, have other numbers: count the samples of
    lens-afp_densenet121_4datasets_9s_phantom and ..._longer_9s_phantom in an epoch anew, then the digest.
    """
    phantoms = json.dumps([SEED, LENS_PATIENTS, LENS_SETTINGS, asdict(PhantomSpec())], sort_keys=True)
    assert hashlib.sha256(phantoms.encode()).hexdigest()[:16] == "7a768f6b6f7a1655"
    loader = load_config(f"lens-afp_densenet121_{config}_9s_phantom").train_dataloader
    assert loader.sampler.lengths == {"deeplesion": length}
    samples = (388, 96 + 48, 144 + 72, 109 + 54)
    filled = [math.ceil(count / loader.batch_size) * loader.batch_size for count in samples]
    assert length == (filled[0] if config == "4datasets-mined" else sum(filled))


def test_each_dataset_labels_its_own_kind(root):
    for name, types in TYPES.items():
        train = AnnotationSet.load(root / name / "annotations" / "train.json")
        assert train.dataset["name"] == name
        test = AnnotationSet.load(root / name / "annotations" / "test.json")
        assert len(train.volumes) == PATIENTS[name][0] - HELD_OUT[name]
        assert len(test.volumes) == HELD_OUT[name]
        assert not {volume.patient for volume in train.volumes} & {volume.patient for volume in test.volumes}
        assert {lesion.type for lesion in train.lesions} == types
        complete = AnnotationSet.load(root / name / "truth" / "complete.json")
        assert len(complete.lesions) > len(train.lesions)
    marked = AnnotationSet.load(root / "deeplesion" / "annotations" / "train.json")
    everything = AnnotationSet.load(root / "deeplesion" / "truth" / "train.json")
    assert marked.dataset["name"] == "deeplesion"
    assert 0 < len(marked.lesions) < len(everything.lesions)


def test_they_are_made_once(root):
    def never(arguments: list[str], log: Path) -> None:
        raise AssertionError(arguments)

    ensure_lens_phantoms(root, never, PATIENTS, SETTINGS)
    with pytest.raises(InputError, match=r"deeplesion/phantom.json: this phantom was made with other settings"):
        ensure_lens_phantoms(root, never, PATIENTS, SETTINGS | {"deeplesion": {**COMMON, "pad_mm": 3}})
    with pytest.raises(InputError, match=r"lits/phantom.json: this phantom was made with other settings"):
        ensure_lens_phantoms(root, never, {"lits": (2,)}, SETTINGS)


def test_description(root, tmp_path):
    assert describe_lens_phantoms(tmp_path) is None
    text = describe_lens_phantoms(root)
    assert "nih-ln" in text
    truth = AnnotationSet.load(root / "deeplesion" / "truth" / "test_subvolumes.json")
    count = sum(not lesion.ignore for lesion in truth.lesions)
    assert count > 0
    assert f"All lesions in sub-volumes of test patients, in 3D: {count} lesions (" in text
    assert text.endswith(" in 1 volume.")
    assert describe_lens_phantoms(root, held_out=True).endswith("Each dataset is tested on its held-out part, in 3D.")
    lits = AnnotationSet.load(root / "lits" / "annotations" / "train.json")
    count = sum(not lesion.ignore for lesion in lits.lesions)
    assert f"lits {count} lesions ({count} liver) in 4 volumes, held out " in text
    marked = AnnotationSet.load(root / "deeplesion" / "annotations" / "train.json")
    assert f"deeplesion {len(marked.lesions)} lesions (" in text


def test_boxes_of_masks_are_padded_as_deeplesions(root):
    """In mm, so that a phantom with finer pixels has the same boxes."""
    truth = AnnotationSet.load(root / "lits" / "truth" / "complete.json")
    found = AnnotationSet.load(root / "lits" / "annotations" / "train.json")
    spacing = {volume.id: volume.spacing_mm for volume in truth.volumes}
    checked = 0
    for lesion in found.lesions:
        pad = 11 / spacing[lesion.volume][2]
        x1, _, z1, x2, _, z2 = lesion.box
        for other in truth.lesions:
            a1, _, c1, a2, _, c2 = other.box
            if other.volume == lesion.volume and abs(a1 + a2 - x1 - x2) < 1e-6 and (c1, c2) == (z1, z2):
                assert x2 - x1 == pytest.approx(a2 - a1 + 2 * pad)
                checked += 1
    assert checked


def test_training_ignores_what_the_truth_says(root):
    config = load_config("a3d_densenet121-fpn_7s_phantom", [f"data_root={root / 'deeplesion'}"])
    seen = {}
    for name in ("train_key_slices", "train_unmarked_ignored"):
        file = root / "deeplesion" / "truth" / f"{name}.json"
        config.train_dataloader.dataset.ann_file = str(file)
        with DefaultScope.overwrite_default_scope("mmpluld"):
            data = Runner.build_dataloader(config.train_dataloader, seed=0).dataset
        samples = [data[index]["data_samples"] for index in range(len(data))]
        lesions = AnnotationSet.load(file).lesions
        assert all(lesion.mask for lesion in lesions)
        assert len(samples) == len({(lesion.volume, lesion.key_slice) for lesion in lesions})
        assert any(len(sample.ignored_instances) for sample in samples) == any(lesion.ignore for lesion in lesions)
        seen[name] = (
            {
                (lesion.volume, lesion.key_slice, lesion.box): lesion.ignore or not lesion.attributes["marked"]
                for lesion in lesions
            },
            sum(len(sample.gt_instances) for sample in samples),
        )
    assert seen["train_key_slices"][0] == seen["train_unmarked_ignored"][0]
    assert seen["train_unmarked_ignored"][1] < seen["train_key_slices"][1]


@pytest.mark.parametrize("layout", ["twins", "lens"])
def test_command_takes_no_settings(layout, tmp_path, capsys):
    assert main(["phantom", layout, str(tmp_path), "--patients", "3"]) == 2
    assert "takes no options" in capsys.readouterr().err


def test_annotation_files_of_several_datasets(root):
    config = load_config("lens-afp_densenet121_4datasets_9s_phantom")
    files = _annotation_files(config, root, ROW)
    assert files == [root / name / "annotations" / "train.json" for name in LENS_PATIENTS] + [
        root / "deeplesion" / "truth" / "test_subvolumes.json"
    ]
    assert all(file.is_file() for file in files)
    validation = root / "deeplesion" / "truth" / "val_key_slices.json"
    assert set(_annotation_files(config, root, replace(ROW, calibrated=True))) - set(files) <= {
        validation,
        root / config.val_dataloader.dataset.ann_file,
    }
    assert len(_annotation_files(config, root, replace(ROW, calibrated=True))) == len(files) + 1


def loader(name: str, root: Path, which: str = "train", **changes: object):
    config = load_config(f"lens-afp_densenet121_{name}_9s_phantom", [f"data_root={root}"])
    config.merge_from_dict({f"{which}_dataloader.{key}": value for key, value in changes.items()})
    with DefaultScope.overwrite_default_scope("mmpluld"):
        return Runner.build_dataloader(config[f"{which}_dataloader"], seed=0)


def batches(data) -> list[list]:
    return [batch["data_samples"] for batch in data]


def ignores_everything(sample) -> bool:
    return bool((sample.ignored_instances.bboxes.tensor[:, 2:] > 1000).any())


@pytest.mark.filterwarnings("ignore")
def test_batches_of_one_dataset(root):
    data = loader("4datasets", root, batch_size=2, **{"sampler.batch_size": 2})
    found = batches(data)
    assert all(len(batch) == 2 and len({sample.dataset for sample in batch}) == 1 for batch in found)
    assert {batch[0].dataset for batch in found} == set(LENS_PATIENTS)
    counts = dict.fromkeys(LENS_PATIENTS, 0)
    for batch in found:
        for sample in batch:
            assert sample.dataset != "deeplesion" or len(sample.gt_instances)  # it has no negatives
            counts[sample.dataset] += not len(sample.gt_instances)
    empty = {part.name for part in data.sampler._parts if len(part.negatives)}  # small scans may be full of lesions
    assert empty and {name for name, count in counts.items() if count} == empty


@pytest.mark.filterwarnings("ignore")
def test_pooled_batches_mix_them(root):
    found = batches(loader("pooled", root))
    assert any(len({sample.dataset for sample in batch}) > 1 for batch in found)
    assert {sample.dataset for batch in found for sample in batch} == set(LENS_PATIENTS)
    assert not any(ignores_everything(sample) for batch in found for sample in batch)


@pytest.mark.filterwarnings("ignore")
def test_positive_pooling_ignores_the_background_of_three(root):
    samples = [sample for batch in batches(loader("positive-pooled", root)) for sample in batch]
    assert {sample.dataset for sample in samples} == set(LENS_PATIENTS)
    for sample in samples:
        assert len(sample.gt_instances)
        assert ignores_everything(sample) == (sample.dataset != "deeplesion")


@pytest.mark.filterwarnings("ignore")
def test_test_data_are_sub_volumes_with_all_lesions(root):
    data = loader("4datasets", root, "test")
    truth = AnnotationSet.load(root / "deeplesion" / "truth" / "test_subvolumes.json")
    assert len(data.dataset) == sum(volume.num_slices for volume in truth.volumes)
    shown = {item["lesion_id"] for i in range(len(data.dataset)) for item in data.dataset.get_data_info(i)["instances"]}
    assert shown == {lesion.id for lesion in truth.lesions}
    assert data.dataset[0]["data_samples"].dataset == "phantom"


def test_size_of_the_twins_data():
    assert LENS_PATIENTS["deeplesion"][2] >= 60
    assert {PhantomSpec.from_settings(settings).pad_mm for settings in LENS_SETTINGS.values()} == {4}
    assert LENS_SETTINGS.keys() == LENS_PATIENTS.keys()
