"""What the hook counts, and what it says where there is nothing to count."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmpluld.engine.tag_statistics import TagStatisticsHook
from mmpluld.errors import InputError

JoinedDatasets = Callable[..., Any]


class Dataset(list):
    """Samples as a CTLesionDataset lays them out."""

    def __init__(self, samples: list[list[dict[str, Any]]], header: dict[str, Any]) -> None:
        super().__init__(samples)
        self.metainfo = {"dataset": header}
        self.ann_file, self.data_root = "annotations/train.json", "data/deeplesion"

    def get_data_info(self, index: int) -> dict[str, Any]:
        return {"instances": self[index]}


def lesion(number: int, tags: list[int] | None, ignore: int = 0) -> dict[str, Any]:
    return {"lesion_id": number, "tags": tags, "ignore_flag": ignore}


def run(dataset: Any) -> list[Any]:
    found: list[Any] = []
    head = SimpleNamespace(set_tag_statistics=lambda *given: found.extend(given))
    model = SimpleNamespace(roi_head=head)
    runner = SimpleNamespace(
        train_dataloader=SimpleNamespace(dataset=dataset), model=model, logger=logging.getLogger("test")
    )
    TagStatisticsHook().before_train(runner)
    return found


HEADER = {"name": "deeplesion", "tags": {"terms": ["a", "b", "c"], "exclusive": [[1], [0], []]}}


def test_each_lesion_counts_once() -> None:
    samples = [
        [lesion(0, [0, 2]), lesion(1, None)],
        [lesion(0, [0, 2]), lesion(2, []), lesion(3, [1], ignore=1)],
        [lesion(4, [2])],
    ]
    counts, total, exclusive = run(Dataset(samples, HEADER))
    assert counts.tolist() == [1, 0, 2]
    assert total == 3  # one of them with an empty list: none of the terms holds
    assert torch.equal(exclusive, torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool))


def test_lesions_of_joined_datasets_with_the_same_numbers(joined_datasets: JoinedDatasets) -> None:
    tags = {"terms": ["a", "b", "c"], "exclusive": [[1], [0], []]}
    counts, total, exclusive = run(joined_datasets(one=tags, two=tags, three=None))
    assert counts.tolist() == [2, 2, 0]
    assert total == 4
    assert exclusive.nonzero().tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("other", [{"terms": ["b", "a"], "exclusive": [[], []]}, {"exclusive": [[1], [0]]}])
def test_joined_datasets_with_other_tags(joined_datasets: JoinedDatasets, other: dict[str, Any]) -> None:
    tags = {"terms": ["a", "b"], "exclusive": [[], []]}
    message = r"two\.json: its tags are not those of \S*one\.json, .* `mmpluld convert deeplesion \S+ --tags FILE"
    with pytest.raises(InputError, match=message):
        run(joined_datasets(one=tags, two={**tags, **other}))


def test_no_tags() -> None:
    with pytest.raises(InputError, match="annotations/train.json: has no tags; write them with .*--tags FILE"):
        run(Dataset([[lesion(0, None)]], {"name": "deeplesion"}))
    with pytest.raises(InputError, match="no lesion has tags"):
        run(Dataset([[lesion(0, None)]], HEADER))


def test_masked_tags_are_not_counted() -> None:
    samples = [[lesion(0, [0, 2]) | {"uncertain_tags": [2]}]]
    dataset = Dataset(samples, HEADER)
    assert run(dataset)[0].tolist() == [1, 0, 1]
    dataset.pipeline = SimpleNamespace(transforms=[SimpleNamespace(uncertain="masked")])
    assert run(dataset)[0].tolist() == [1, 0, 0]
