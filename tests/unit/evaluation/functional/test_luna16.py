"""LUNA16 rules: hand-worked scans, and a plain re-telling of the rules on random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import (
    LUNA16_LEVELS,
    froc_curve,
    interpolated_sensitivity,
    luna16,
    match_marks,
    order_statistics,
    resample_interpolated,
)

# Scan a: two nodules of radius 5 and 3, an excluded finding of unknown size; b: a nodule, no mark; c: a mark alone.
NODULES = [[[0, 0, 0, 10], [100, 0, 0, 6]], [[0, 0, 0, 8]], []]
EXCLUDED = [[[50, 0, 0, -1]], [], []]
MARKS = [[[4, 0, 0], [0, 4.9, 0], [5, 0, 0], [54, 0, 0], [55, 0, 0], [100, 2, 0]], [], [[7, 7, 7]]]
SCORES = [[0.9, 0.95, 0.8, 0.7, 0.6, 0.5], [], [0.85]]


def test_by_hand() -> None:
    matches = match_marks(MARKS, SCORES, NODULES, EXCLUDED)
    assert matches.score.tolist() == [0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5]
    # On the sphere is not inside it: 5 mm from a centre of radius 5 is a false positive, with 10 mm for unknown sizes.
    assert matches.false_positive.tolist() == [False, False, True, True, False, True, False]
    assert matches.image.tolist() == [0, 0, 2, 0, 0, 0, 0]
    assert matches.found_by.tolist() == [0, 6, 7]
    assert (matches.lesion_image.tolist(), matches.num_images) == ([0, 0, 1], 3)
    # One false positive a scan is reached together with the last nodule.
    third = 1 / 3
    expected = [third, third, third, 2 * third, 2 * third, 2 * third, 2 * third]
    assert interpolated_sensitivity(matches, LUNA16_LEVELS) == pytest.approx(expected)
    assert froc_curve(matches).sensitivity.tolist() == pytest.approx([third] * 6 + [2 * third])


def test_equal_scores_share_a_point_and_the_curve_is_linear_between() -> None:
    matches = match_marks([[[0, 0, 0], [90, 0, 0], [80, 0, 0]]], [[0.5, 0.5, 0.1]], [[[0, 0, 0, 4]]], [[]])
    assert matches.point.tolist() == [0, 0, 2]
    assert interpolated_sensitivity(matches, [0.25, 0.5, 1, 2, 9]) == pytest.approx([0.25, 0.5, 1, 1, 1])


def test_of_too_many_marks_a_tie_across_the_limit_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = np.zeros((101, 3))
    assert len(match_marks([marks[1:]], [np.ones(100)], [[]], [[]]).score) == 100
    assert len(match_marks([marks], [np.ones(101)], [[]], [[]]).score) == 0
    monkeypatch.setattr(luna16, "LUNA16_MAX_MARKS", 2)
    for scores, kept in (([0.9, 0.5, 0.5, 0.4], [0.9]), ([0.9, 0.6, 0.5, 0.4], [0.9, 0.6]), ([1, 1, 1, 1], [])):
        assert match_marks([marks[:4]], [scores], [[]], [[]]).score.tolist() == kept


def test_one_mark_may_hit_two_nodules_and_a_nodule_beats_an_excluded_finding() -> None:
    matches = match_marks([[[0, 0, 0]]], [[0.3]], [[[1, 0, 0, 6], [-1, 0, 0, 6]]], [[[0, 0, 0, 6]]])
    assert (matches.found_by.tolist(), matches.false_positive.tolist()) == ([0, 0], [False])


def test_nothing_to_find_and_nothing_found() -> None:
    nothing = match_marks([[]], [[]], [[[0, 0, 0, 5]]], [[]])
    assert interpolated_sensitivity(nothing, LUNA16_LEVELS).tolist() == [0.0] * 7
    assert np.isnan(interpolated_sensitivity(match_marks([[]], [[]], [[]], [[]]), LUNA16_LEVELS)).all()
    assert match_marks([], [], [], []).num_images == 0
    alone = match_marks([[[0, 0, 0]]], [[0.2]], [[[0, 0, 0, 5]]], [[]])
    assert interpolated_sensitivity(alone, LUNA16_LEVELS).tolist() == [1.0] * 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"marks": []}, "for 0, 1, 1, 1 scans"),
        ({"marks": [[[1, 2]]]}, r"marks of scan 0 have shape \(1, 2\); needed is \(N, 3\)"),
        ({"nodules": [[[1, 2, 3]]]}, r"nodules of scan 0 have shape \(1, 3\)"),
        ({"scores": [[0.1, 0.2]]}, "scan 0 has 1 marks but 2 scores"),
        ({"scores": [[np.nan]]}, "scan 0 has a score that is not finite"),
    ],
)
def test_misfits_are_refused(change: dict[str, Any], message: str) -> None:
    sound: dict[str, Any] = {"marks": [[[0, 0, 0]]], "scores": [[0.5]], "nodules": [[[0, 0, 0, 5]]], "excluded": [[]]}
    with pytest.raises(InputError, match=message):
        match_marks(**(sound | change))


def plain_rules(marks: Any, scores: Any, nodules: Any, excluded: Any, limit: int) -> tuple[list[float], list[float]]:
    """Scores of the nodules found, and of the false positives, told mark by mark."""
    found, wrong = [], []
    for points, score, wanted, aside in zip(marks, scores, nodules, excluded, strict=True):
        pool = list(range(len(points)))
        if len(pool) > limit:
            cut = sorted(score, reverse=True)[limit]
            pool = [i for i in pool if score[i] > cut]
        free = set(pool)
        for findings, included in ((wanted, True), (aside, False)):
            for *centre, diameter in findings:
                radius = (10.0 if diameter < 0 else diameter) / 2
                near = [
                    i for i in pool if sum((a - b) ** 2 for a, b in zip(points[i], centre, strict=True)) < radius**2
                ]
                free -= set(near)
                if included and near:
                    found.append(max(score[i] for i in near))
        wrong += [score[i] for i in free]
    return found, wrong


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_agrees_with_the_rules_told_mark_by_mark(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scans = int(rng.integers(1, 5))

    def drawn(most: int, width: int) -> list[list[list[float]]]:
        return [rng.integers(-4, 5, size=(rng.integers(0, most), width)).astype(float).tolist() for _ in range(scans)]

    marks, nodules, excluded = drawn(9, 3), drawn(4, 4), drawn(3, 4)
    scores = [(rng.integers(0, 6, size=len(part)) / 5).tolist() for part in marks]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(luna16, "LUNA16_MAX_MARKS", 5)  # so that limits are met
        matches = match_marks(marks, scores, nodules, excluded)
    found, wrong = plain_rules(marks, scores, nodules, excluded, 5)
    total = sum(map(len, nodules))
    assert int(matches.false_positive.sum()) == len(wrong)
    assert sorted(matches.score[matches.found_by[matches.found_by < len(matches.score)]]) == sorted(found)
    if total:
        cuts = sorted({*found, *wrong}, reverse=True)
        rate = [0.0, *(sum(s >= cut for s in wrong) / scans for cut in cuts)]
        share = [0.0, *(sum(s >= cut for s in found) / total for cut in cuts)]
        # The curve of the rules has no point where nothing is found or wrong; between points both are linear.
        value = interpolated_sensitivity(matches, [0.1, 0.3, 0.7, 1.1, 2.3])
        assert value == pytest.approx(np.interp([0.1, 0.3, 0.7, 1.1, 2.3], rate, share))
        assert (np.diff(value) >= -1e-12).all()


def test_weights_are_copies_of_scans() -> None:
    once = match_marks(MARKS, SCORES, NODULES, EXCLUDED)
    chosen = [0, 0, 2, 1, 0]
    copied = match_marks(*([part[i] for i in chosen] for part in (MARKS, SCORES, NODULES, EXCLUDED)))
    levels = [0.1, 0.3, 0.55, 0.9, 1.7, 3.0]
    weighted = interpolated_sensitivity(once, levels, weights=[3, 1, 1])
    assert weighted == pytest.approx(interpolated_sensitivity(copied, levels))


def test_resamples_are_seeded_and_vary() -> None:
    matches = match_marks(MARKS, SCORES, NODULES, EXCLUDED)
    drawn = resample_interpolated(matches, LUNA16_LEVELS, 30, seed=3)
    assert drawn.shape == (30, 7)
    assert np.array_equal(drawn, resample_interpolated(matches, LUNA16_LEVELS, 30, seed=3), equal_nan=True)
    assert len(np.unique(drawn[np.isfinite(drawn).all(axis=1)], axis=0)) > 2
    with pytest.raises(InputError, match="0 bootstrap resamples; at least 1"):
        resample_interpolated(matches, LUNA16_LEVELS, 0, seed=3)


def test_interval_ends_are_elements_of_the_sorted_draws() -> None:
    low, high = order_statistics(np.arange(100.0)[::-1, None])
    assert (low.tolist(), high.tolist()) == ([2.0], [97.0])
