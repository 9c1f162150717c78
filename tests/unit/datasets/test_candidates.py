"""Candidates as a dataset, from slices to batches."""

import numpy as np
import pytest

from mmpluld.datasets import CandidateDataset
from mmpluld.datasets.samplers import LesionSampler
from mmpluld.errors import InputError
from mmpluld.registry import DATASETS, TRANSFORMS
from mmpluld.structures import VolumeRecord
from mmpluld.structures.candidates import Candidate, CandidateSet

PIPELINE = [
    {"type": "LoadPatch", "size": (4, 8, 8), "voxel_mm": (2.0, 1.0, 1.0)},
    {"type": "WindowHU", "window_hu": (0, 1000), "out_range": (0, 1), "offset": 0},
    {"type": "PackPatch"},
]


@pytest.fixture
def write(tmp_path, mmpluld_scope):
    """Function that writes a volume and candidates in it; returns the folder."""

    def write(candidates, spacing_mm=(2.0, 1.0, 1.0)):
        (tmp_path / "volumes").mkdir()
        np.save(tmp_path / "volumes" / "a.npy", np.full((6, 16, 16), 500, np.int16))
        volume = VolumeRecord("a", "p", "1", "1", {"kind": "npy", "path": "volumes/a.npy"}, 0, 6, (16, 16), spacing_mm)
        head = {"name": "deeplesion", "label_scope": "any"}
        CandidateSet(head, [volume], candidates, [{}], {}).save(tmp_path / "candidates.json")
        return tmp_path

    return write


CANDIDATES = [Candidate("a", (6, 4, 2, 10, 8, 4), 0.5, 3)] + [
    Candidate("a", (x, 0, 0, x + 2, 2, 6), 0.25, None) for x in range(5)
]


def test_samples(write):
    dataset = CandidateDataset("candidates.json", str(write(CANDIDATES)), pipeline=PIPELINE)
    assert len(dataset) == 6
    item = dataset[0]
    assert item["inputs"].shape == (1, 4, 8, 8)
    assert (item["inputs"] == 0.5).all()
    assert item["boxes"].tolist() == [2, 2, 1, 6, 6, 3]
    assert [dataset[index]["labels"].item() for index in range(6)] == [1, 0, 0, 0, 0, 0]
    assert dataset[1]["boxes"].tolist() == [3, 3, 0, 5, 5, 4]  # the part within the patch
    assert dataset.sample_groups() == ({0: [0]}, [1, 2, 3, 4, 5])


def test_two_false_positives_for_each_lesion_drawn_anew(write):
    dataset = DATASETS.build(
        {"type": "CandidateDataset", "ann_file": "candidates.json", "data_root": str(write(CANDIDATES))}
    )
    sampler = LesionSampler(dataset, positive_ratio=0.5, seed=0)
    epochs = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        epochs.append(sorted(sampler))
    assert all(len(set(epoch)) == 3 and epoch[0] == 0 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_what_cannot_be_trained_on_is_refused(write, tmp_path):
    with pytest.raises(InputError, match=r"no such file of candidates; write it with `mmpluld harvest"):
        CandidateDataset("candidates.json", str(tmp_path))
    root = write([])
    with pytest.raises(InputError, match="no candidates; harvest"):
        CandidateDataset("candidates.json", str(root))


def test_lesions_alone_teach_nothing(write):
    dataset = CandidateDataset("candidates.json", str(write(CANDIDATES[:1])))
    with pytest.raises(InputError, match=r"candidates.json has no false positives, .* lower --min-score"):
        LesionSampler(dataset, positive_ratio=0.5, seed=0)
    assert list(LesionSampler(dataset, seed=0)) == [0]


def test_unknown_voxel_sizes_are_refused(write):
    root = write(CANDIDATES, spacing_mm=(float("nan"), 1.0, 1.0))
    with pytest.raises(InputError, match=r"voxels of volume 'a' are \[nan, 1.0, 1.0\] mm"):
        CandidateDataset("candidates.json", str(root))


def test_flips_move_the_box():
    patch = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    flip = TRANSFORMS.build({"type": "FlipPatch", "prob": (1, 0, 1)})
    found = flip({"img": patch, "roi": np.array([1, 0, 0, 2, 2, 1], np.float32)})
    np.testing.assert_array_equal(found["img"], patch[::-1, :, ::-1])
    assert found["roi"].tolist() == [2, 0, 1, 3, 2, 2]
    again = flip(found)
    np.testing.assert_array_equal(again["img"], patch)
    assert again["roi"].tolist() == [1, 0, 0, 2, 2, 1]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "LoadPatch", "size": (4, 8)}, r"size is \(4, 8\); needed are three"),
        ({"type": "LoadPatch", "voxel_mm": (2.0, 0.8, 0.0)}, "voxel_mm is"),
        ({"type": "LoadPatch", "beyond": "edges"}, "beyond is 'edges'; allowed are edge, air; did you mean 'edge'"),
        ({"type": "FlipPatch", "prob": (0.5, 0.5, 2)}, "prob is"),
    ],
)
def test_settings_of_transforms_are_checked(step, message, mmpluld_scope):
    with pytest.raises(InputError, match=message):
        TRANSFORMS.build(step)
