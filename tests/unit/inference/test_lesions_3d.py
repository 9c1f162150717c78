"""From the 2D boxes of slices to findings."""

from __future__ import annotations

import numpy as np
import pytest

from mmpluld.inference import DetectionSettings
from mmpluld.inference.grid_source import GridSliceSource
from mmpluld.inference.lesions_3d import SliceBoxes, link_lesions
from mmpluld.io.slice_sources import VolumeSliceSource
from mmpluld.structures import CTVolume

SCORES = [0.01, 0.06, 0.2, 0.4, 0.9, 0.35, 0.1, 0.07, 0.02]  # one lesion, on slices 1 to 7 above 0.05
BOX = [10.0, 12.0, 20.0, 24.0]


@pytest.fixture
def grid():
    return GridSliceSource(
        VolumeSliceSource(CTVolume.from_canonical(np.zeros((9, 32, 32), np.int16), (2.0, 1.0, 1.0))), 2.0
    )


def slices(scores):
    return [SliceBoxes(np.array([BOX]), np.array([score])) for score in scores]


@pytest.mark.parametrize("score_thr", [0.05, 0.3, 0.5, 0.9])
def test_extent_does_not_depend_on_the_score_of_findings(score_thr, grid):
    (lesion,) = link_lesions(slices(SCORES), grid, DetectionSettings(score_thr=score_thr))
    np.testing.assert_allclose(lesion.found.box, [10, 12, 1, 20, 24, 8])
    assert (lesion.found.score, lesion.found.key_slice) == (0.9, 4)


def test_nothing_below_the_score_of_findings(grid):
    assert link_lesions(slices(SCORES), grid, DetectionSettings(score_thr=0.91)) == []


def test_linking_starts_where_it_is_told(grid):
    extents = [
        link_lesions(slices(SCORES), grid, DetectionSettings(link, 0.5))[0].found.box[[2, 5]].tolist()
        for link in (0.0, 0.05, 0.3, 0.5)
    ]
    assert extents == [[0, 9], [1, 8], [3, 6], [4, 5]]


def test_a_weak_box_belongs_to_a_finding_but_makes_none(grid):
    found = link_lesions(slices([0.2, 0.2, 0, 0.2, 0.6, 0, 0.1, 0.1, 0]), grid, DetectionSettings())
    assert [lesion.found.box[[2, 5]].tolist() for lesion in found] == [[3, 5]]


def test_mean_counts_the_weak_ends(grid):
    (lesion,) = link_lesions(slices(SCORES), grid, DetectionSettings(score_thr=0.2, score_rule="mean"))
    assert lesion.found.score == pytest.approx(np.mean(SCORES[1:8]))
    assert link_lesions(slices(SCORES), grid, DetectionSettings(score_thr=0.3, score_rule="mean")) == []


def test_gaps_shortest_chains_and_most_findings(grid):
    scores = [0.9, 0, 0.8, 0.7, 0, 0, 0.6, 0, 0]
    extents = [[0, 1], [2, 4], [6, 7]]
    for settings, expected in (
        ({}, extents),
        ({"max_gap": 1}, [[0, 4], [6, 7]]),
        ({"max_gap": 2}, [[0, 7]]),
        ({"min_slices": 2}, [[2, 4]]),
        ({"max_boxes": 2}, extents[:2]),
    ):
        found = link_lesions(slices(scores), grid, DetectionSettings(**settings))
        assert [lesion.found.box[[2, 5]].tolist() for lesion in found] == expected


def test_boxes_without_area_are_none(grid):
    flat = SliceBoxes(np.array([[10.0, 12.0, 10.0, 24.0]]), np.array([0.9]))
    assert link_lesions([flat] * 9, grid, DetectionSettings()) == []


@pytest.mark.parametrize(("tag_thr", "names"), [(None, "cb"), (0.6, "c"), (0.1, "cba"), (0.9, "c"), (1.0, "")])
def test_tags_are_those_that_score_enough(grid, tag_thr, names):
    tags = np.array([[0.2, 0.5, 0.9]])
    given = [SliceBoxes(np.array([BOX]), np.array([score]), tag_scores=tags) for score in SCORES]
    settings = DetectionSettings() if tag_thr is None else DetectionSettings(tag_thr=tag_thr)
    (lesion,) = link_lesions(given, grid, settings, ["a", "b", "c"])
    assert [name for name, _ in lesion.tags] == list(names)


def test_mask_of_the_key_slice_is_kept(grid):
    masks = np.zeros((9, 1, 4, 4))
    masks[4, 0, :2] = 1  # on the key slice the upper half, elsewhere nothing
    given = [SliceBoxes(np.array([BOX]), np.array([score]), mask) for score, mask in zip(SCORES, masks, strict=True)]
    (lesion,) = link_lesions(given, grid, DetectionSettings())
    ys, xs = np.nonzero(lesion.mask.on_slice((32, 32)))
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (10, 12, 20, 18)
    masks[4] = 0.4
    (lesion,) = link_lesions(given, grid, DetectionSettings())
    assert (lesion.mask, lesion.recist) == (None, None)
