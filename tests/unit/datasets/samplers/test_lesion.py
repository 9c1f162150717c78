"""LesionSampler: proportions, one slice per lesion, epochs, processes."""

from __future__ import annotations

from collections import Counter

import pytest
from torch.utils.data import ConcatDataset

from mmpluld.datasets import CTLesionDataset
from mmpluld.datasets.samplers import LesionSampler
from mmpluld.errors import InputError


@pytest.fixture
def dataset(write_annotations):
    """14 slices; 6 with lesions (0, 1, 2 on volume a, 3 on volume b), 8 without."""
    lesions = [
        {"volume": "a", "box": (4, 5, 0, 10, 12, 4)},
        {"volume": "a", "box": (20, 5, 2, 26, 12, 3)},
        {"volume": "a", "box": (20, 20, 9, 26, 26, 10)},
        {"volume": "b", "box": (1, 2, 22, 7, 9, 23)},
        {"volume": "b", "box": (1, 2, 20, 7, 9, 21), "ignore": True},
    ]
    root = write_annotations(lesions)
    return CTLesionDataset("annotations/train.json", str(root), sampling={"policy": "all_slices"})


POSITIVES = {0, 1, 2, 3, 9, 12}


def epochs(sampler, count):
    drawn = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        drawn.append(list(sampler))
    return drawn


def test_every_slice_with_a_lesion_once(dataset):
    sampler = LesionSampler(dataset, seed=0)
    assert len(sampler) == 6
    for drawn in epochs(sampler, 3):
        assert sorted(drawn) == sorted(POSITIVES)


def test_two_with_to_one_without(dataset):
    sampler = LesionSampler(dataset, positive_ratio=2, seed=0)
    assert len(sampler) == 9
    seen = set()
    for drawn in epochs(sampler, 12):
        assert sorted(set(drawn) & POSITIVES) == sorted(POSITIVES)
        negatives = [index for index in drawn if index not in POSITIVES]
        assert len(set(negatives)) == len(negatives) == 3
        seen |= set(negatives)
    assert seen == set(range(14)) - POSITIVES


def test_more_negatives_than_there_are_come_round_again(dataset):
    drawn = list(LesionSampler(dataset, positive_ratio=0.25, seed=0))
    counts = Counter(index for index in drawn if index not in POSITIVES)
    assert sum(counts.values()) == 24
    assert set(counts.values()) == {3}


def test_one_slice_for_every_lesion(dataset):
    groups = {0: {0, 1, 2, 3}, 1: {2}, 2: {9}, 3: {12}}
    sampler = LesionSampler(dataset, one_per_lesion=True, seed=0)
    assert len(sampler) == 4
    picked = Counter()
    for drawn in epochs(sampler, 400):
        rest = sorted(drawn)
        for group in (1, 2, 3):
            rest.remove(*groups[group])
        (first,) = rest
        picked[first] += 1
    assert set(picked) == groups[0]
    assert min(picked.values()) > 70


def test_epoch_and_seed_alone_decide(dataset):
    first = epochs(LesionSampler(dataset, True, 2, seed=5), 4)
    assert first == epochs(LesionSampler(dataset, True, 2, seed=5), 4)
    assert first != epochs(LesionSampler(dataset, True, 2, seed=6), 4)
    assert first[0] != first[1]


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_an_epoch(dataset, monkeypatch, world_size):
    whole = list(LesionSampler(dataset, positive_ratio=2, seed=0))
    parts = []
    for rank in range(world_size):
        monkeypatch.setattr("mmpluld.datasets.samplers.lesion.get_dist_info", lambda rank=rank: (rank, world_size))
        parts.append(list(LesionSampler(dataset, positive_ratio=2, seed=0)))
    assert {len(part) for part in parts} == {-(-9 // world_size)}
    merged = [index for group in zip(*parts, strict=True) for index in group]
    assert merged[:9] == whole
    assert merged[9:] == whole[: len(merged) - 9]


def test_several_datasets(dataset):
    both = ConcatDataset([dataset, dataset])
    drawn = sorted(LesionSampler(both, seed=0))
    assert drawn == sorted(POSITIVES | {index + 14 for index in POSITIVES})


def test_proportions_hold_in_each_dataset(dataset, key_slices):
    """The one without negatives gets none, and none are drawn elsewhere for its sake."""
    drawn = list(LesionSampler(ConcatDataset([key_slices, dataset]), positive_ratio=2, seed=0))
    start = len(key_slices)
    assert sum(index < start for index in drawn) == start == 3
    assert sum(index - start in POSITIVES for index in drawn) == 6
    assert sum(index >= start and index - start not in POSITIVES for index in drawn) == 3


@pytest.fixture
def key_slices(write_annotations, tmp_path):
    lesions = [{"volume": "a", "box": (4, 5, i, 10, 12, i + 1), "key_slice": i} for i in (2, 5, 7)]
    root = write_annotations(lesions)
    (root / "annotations" / "train.json").rename(root / "annotations" / "keys.json")
    return CTLesionDataset("annotations/keys.json", str(root))


@pytest.fixture
def several(key_slices, dataset):
    """3 samples of one dataset; 14 of the other, of which an epoch draws 6 with lesions and 3 without."""
    return ConcatDataset([key_slices, dataset])


@pytest.fixture
def named(several):
    """The same, where the second one is called ``second``."""
    second = several.datasets[1]
    second._metainfo["dataset"] = second._metainfo["dataset"] | {"name": "second"}
    return several


@pytest.mark.parametrize("interleave", ["shuffled", "even"])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 5])
def test_batches_of_one_dataset(several, batch_size, interleave):
    sampler = LesionSampler(several, False, 2, batch_size, interleave, seed=0)
    orders = set()
    for drawn in epochs(sampler, 6):
        batches = [drawn[i : i + batch_size] for i in range(0, len(drawn), batch_size)]
        assert len(drawn) == len(sampler) == batch_size * (-(-3 // batch_size) + -(-9 // batch_size))
        assert all(len({index < 3 for index in batch}) == 1 for batch in batches)
        # All lesions are shown, and what fills the last batch is of the same epoch's samples.
        assert {0, 1, 2} | {index + 3 for index in POSITIVES} <= set(drawn)
        assert len(set(drawn)) == 12
        orders.add(tuple(batch[0] < 3 for batch in batches))
    assert (len(orders) > 1) == (interleave == "shuffled")


def test_even_order_spreads_each_dataset(several):
    drawn = list(LesionSampler(several, False, 2, 1, "even", seed=0))
    assert [place for place, index in enumerate(drawn) if index < 3] == [1, 5, 9]


@pytest.mark.parametrize("interleave", ["shuffled", "even"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_draw_together_what_one_would(several, monkeypatch, world_size, interleave):
    size = 2
    settings = (several, True, 2)
    whole = epochs(LesionSampler(*settings, world_size * size, interleave, seed=3), 3)
    parts = []
    for rank in range(world_size):
        monkeypatch.setattr("mmpluld.datasets.samplers.lesion.get_dist_info", lambda rank=rank: (rank, world_size))
        sampler = LesionSampler(*settings, size, interleave, seed=3)
        parts.append(epochs(sampler, 3))
        assert {len(drawn) for drawn in parts[-1]} == {len(sampler)}
    for epoch in range(3):
        drawn = [part[epoch] for part in parts]
        steps = [[*map(tuple, zip(*[iter(part)] * size, strict=True))] for part in drawn]
        together = [index for step in zip(*steps, strict=True) for batch in step for index in batch]
        assert together == whole[epoch]


def test_no_negatives_there(write_annotations):
    root = write_annotations([{"volume": "a", "box": (4, 5, 0, 10, 12, 4)}])
    dataset = CTLesionDataset("annotations/train.json", str(root), sampling={"policy": "lesion_slices"})
    assert sorted(LesionSampler(dataset, positive_ratio=2, seed=0)) == [0, 1, 2, 3]


def test_no_lesions_there(write_annotations):
    dataset = CTLesionDataset("annotations/train.json", str(write_annotations([])), sampling={"policy": "all_slices"})
    with pytest.raises(InputError, match=r"no sample of .*train\.json shows a lesion; leave the dataset out"):
        LesionSampler(dataset)


def test_other_datasets_are_refused():
    with pytest.raises(InputError, match=r"dataset is a list; allowed are CTLesionDataset, CandidateDataset and"):
        LesionSampler([1, 2, 3])


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), float("inf")])
def test_ratio_is_checked(dataset, ratio):
    with pytest.raises(InputError, match=rf"positive_ratio is {ratio}; allowed is a positive number or None"):
        LesionSampler(dataset, positive_ratio=ratio)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; allowed is the data loader's, or None"),
        ({"interleave": "mixed"}, "interleave is 'mixed'; allowed are shuffled, even"),
    ],
)
def test_settings_are_checked(dataset, settings, message):
    with pytest.raises(InputError, match=message):
        LesionSampler(dataset, **settings)


def test_a_key_slice_comes_once_for_all_its_lesions(write_annotations):
    """However many are labelled on it: complete and partial labels of the same slices make equally many steps."""
    lesions = [{"volume": "a", "box": (x, 5, i, x + 6, 12, i + 1), "key_slice": i} for i in (2, 5) for x in (4, 20)]
    counts = []
    for labelled in (lesions, lesions[::2]):
        root = write_annotations(labelled)
        sampler = LesionSampler(CTLesionDataset("annotations/train.json", str(root)), True, seed=0)
        assert sorted(sampler) == [0, 1]
        counts.append(len(sampler))
    assert counts == [2, 2]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_one_dataset_alone_takes_the_steps_of_all(several, monkeypatch, batch_size, world_size):
    for part, name in zip(several.datasets, ("keys", "slices"), strict=True):
        part.full_init()
        part._metainfo["dataset"]["name"] = name
    ranks = []
    for rank in range(world_size):
        monkeypatch.setattr("mmpluld.datasets.samplers.lesion.get_dist_info", lambda rank=rank: (rank, world_size))
        steps = len(LesionSampler(several, False, 2, batch_size, seed=0))
        alone = LesionSampler(several, False, 2, batch_size, only="keys", seed=0)
        ranks.append(list(alone))
        assert len(alone) == steps == len(ranks[-1])
    shown = Counter(index for drawn in ranks for index in drawn)
    assert set(shown) == {0, 1, 2}
    assert max(shown.values()) - min(shown.values()) <= 1
    assert epochs(alone, 2)[0] != epochs(alone, 2)[1]


def test_alone_keeps_the_proportion_of_slices_without_lesions(several):
    several.datasets[0].full_init()
    several.datasets[0]._metainfo["dataset"]["name"] = "keys"
    name = several.datasets[1].metainfo["dataset"]["name"]
    drawn = list(LesionSampler(several, False, 2, 1, only=name, seed=0))
    assert len(drawn) == 12
    assert all(index >= 3 for index in drawn)
    assert sum(index - 3 in POSITIVES for index in drawn[:9]) == 6


def test_unknown_dataset_alone_is_refused(several):
    with pytest.raises(InputError, match="only is 'lunar16', which is none of the datasets; one of"):
        LesionSampler(several, only="lunar16")


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("length", [4, 40])
def test_a_dataset_of_given_length_goes_round_and_the_others_stay(named, batch_size, length):
    own = [index for index in LesionSampler(named, False, 2, batch_size, seed=0) if index >= 3]
    others = [index for index in LesionSampler(named, False, 2, batch_size, seed=0) if index < 3]
    sampler = LesionSampler(named, False, 2, batch_size, lengths={"second": length}, seed=0)
    first, second = epochs(sampler, 2)
    assert len(first) == len(sampler)
    assert first != second
    assert sum(index - 3 in POSITIVES for index in first) == length
    assert sum(index >= 3 for index in first) == length + length // 2, "slices without lesions come on top"
    assert {index for index in first if index < 3} == set(others)
    if length > len(own):
        assert {index for index in first if index >= 3} >= {index + 3 for index in POSITIVES}
    if batch_size:
        assert all((a < 3) == (b < 3) for a, b in zip(first[::2], first[1::2], strict=True)), "steps of one dataset"


def test_processes_draw_together_what_one_draws_with_larger_batches(named, monkeypatch):
    together = list(LesionSampler(named, False, 2, 4, lengths={"second": 24}, seed=0))
    ranks = []
    for rank in range(2):
        monkeypatch.setattr("mmpluld.datasets.samplers.lesion.get_dist_info", lambda rank=rank: (rank, 2))
        sampler = LesionSampler(named, False, 2, 2, lengths={"second": 24}, seed=0)
        ranks.append(list(sampler))
        assert len(sampler) == len(ranks[-1])
    steps = [ranks[step % 2][step // 2 * 2 : step // 2 * 2 + 2] for step in range(len(ranks[0]))]
    assert sum(steps, []) == together


def test_lengths_that_fit_nothing_are_refused(named):
    with pytest.raises(InputError, match="the length of second is 0; allowed is 1 or more"):
        LesionSampler(named, lengths={"second": 0})
    with pytest.raises(InputError, match="lengths has 'lunar16', which is none of the datasets; one of"):
        LesionSampler(named, lengths={"lunar16": 5})
