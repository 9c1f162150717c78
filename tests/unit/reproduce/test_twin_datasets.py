"""The four phantoms of LENS' twins, and the dataset configs that read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmpluld.cli.main import main
from mmpluld.engine.config import load_config
from mmpluld.errors import InputError
from mmpluld.reproduce.runner import _annotation_files
from mmpluld.reproduce.twin_datasets import (
    LENS_PATIENTS,
    LENS_SETTINGS,
    describe_lens_phantoms,
    ensure_lens_phantoms,
)
from mmpluld.structures import AnnotationSet

PATIENTS = {"deeplesion": (2, 1, 1), "luna16": (1,), "lits": (3,), "nih-ln": (2,)}
SETTINGS = {"size": 64, "max_slices": 16, "lesions_per_series": 25, "min_long_mm": 14, "pad_mm": 4}
TYPES = {"luna16": {"lung"}, "lits": {"liver"}, "nih-ln": {"lymph node"}}


def command(arguments: list[str], log: Path) -> None:
    assert log.suffix == ".log"
    assert main(arguments) == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lens") / "phantoms"
    ensure_lens_phantoms(folder, command, PATIENTS, SETTINGS)
    return folder


def test_each_dataset_labels_its_own_kind(root):
    for name, types in TYPES.items():
        train = AnnotationSet.load(root / name / "annotations" / "train.json")
        assert train.dataset["name"] == name
        assert len(train.volumes) == PATIENTS[name][0]
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
        ensure_lens_phantoms(root, never, PATIENTS, {**SETTINGS, "pad_mm": 3})
    with pytest.raises(InputError, match=r"lits/phantom.json: this phantom was made with other settings"):
        ensure_lens_phantoms(root, never, {"lits": (2,)}, SETTINGS)


def test_description(root, tmp_path):
    assert describe_lens_phantoms(tmp_path) is None
    text = describe_lens_phantoms(root)
    assert "nih-ln" in text
    truth = AnnotationSet.load(root / "deeplesion" / "truth" / "test_subvolumes.json")
    count = sum(not lesion.ignore for lesion in truth.lesions)
    assert count > 0
    assert text.endswith(f"Test: all {count} lesions in sub-volumes of 1 patient, in 3D.")


def test_command_takes_no_settings(tmp_path, capsys):
    assert main(["phantom", "lens", str(tmp_path), "--patients", "3"]) == 2
    assert "takes no options" in capsys.readouterr().err


def test_annotation_files_of_several_datasets(root):
    config = load_config("lens-afp_densenet121_4datasets_9s_phantom")
    files = _annotation_files(config, root, calibrated=False)
    assert files == [root / name / "annotations" / "train.json" for name in LENS_PATIENTS] + [
        root / "deeplesion" / "truth" / "test_subvolumes.json"
    ]
    assert all(file.is_file() for file in files)
    validation = root / "deeplesion" / "truth" / "val_key_slices.json"
    assert set(_annotation_files(config, root, calibrated=True)) - set(files) <= {
        validation,
        root / config.val_dataloader.dataset.ann_file,
    }
    assert len(_annotation_files(config, root, calibrated=True)) == len(files) + 1


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
    found = batches(loader("4datasets", root, batch_size=2, **{"sampler.batch_size": 2}))
    assert all(len(batch) == 2 and len({sample.dataset for sample in batch}) == 1 for batch in found)
    assert {batch[0].dataset for batch in found} == set(LENS_PATIENTS)
    counts = dict.fromkeys(LENS_PATIENTS, 0)
    for batch in found:
        for sample in batch:
            assert sample.dataset != "deeplesion" or len(sample.gt_instances)  # it has no negatives
            counts[sample.dataset] += not len(sample.gt_instances)
    assert all(count > 0 for name, count in counts.items() if name != "deeplesion")


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
    assert LENS_SETTINGS["pad_mm"] == 4
