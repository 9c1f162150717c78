from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.errors import InputError
from mmpluld.evaluation.functional import (
    DEEPLESION_2D,
    LENS_3D,
    FROCProtocol,
    Matches,
    froc_curve,
    match_detections,
    mean_sensitivity,
    operating_ranks,
    sensitivity_at,
    threshold_at,
)
from mmpluld.structures import pairwise_overlap

LESION = [0.0, 0, 10, 10]
FAR = [100.0, 100, 110, 110]


def slow_froc(
    boxes: list[Any], scores: list[Any], truth: list[Any], protocol: FROCProtocol
) -> tuple[list[float], list[float]]:
    """The published walk, one detection at a time: (sensitivity, false positives per image) after each."""
    pooled = [(s, i, b) for i, part in enumerate(boxes) for b, s in zip(part, scores[i], strict=True)]
    pooled = sorted(reversed(pooled), key=lambda item: -item[0])
    seen: set[tuple[int, int]] = set()
    wrong = 0
    sensitivity, rate = [], []
    for _, image, box in pooled:
        touched = [
            (image, j)
            for j, lesion in enumerate(truth[image])
            if pairwise_overlap(np.array([box]), np.array([lesion]), protocol.overlap)[0, 0] >= protocol.threshold
        ]
        wrong += not touched
        seen |= set(touched)
        sensitivity.append(len(seen) / sum(map(len, truth)))
        rate.append(wrong / len(boxes))
    return sensitivity, rate


def golden() -> tuple[list[Any], list[Any], list[Any]]:
    """Three volumes with inclusive integer boxes, turned into edges."""

    def edges(*boxes: list[float]) -> np.ndarray:
        return np.array(boxes, dtype=float).reshape(-1, 6) + [0, 0, 0, 1, 1, 1]

    truth = [
        edges([10, 10, 5, 29, 29, 9], [40, 40, 5, 49, 49, 6], [12, 12, 5, 27, 27, 9]),
        edges(),
        edges([100, 100, 1, 119, 119, 4]),
    ]
    boxes = [
        edges([10, 10, 5, 29, 29, 9], [10, 10, 5, 29, 29, 9], [200, 200, 1, 210, 210, 3], [35, 35, 5, 54, 54, 6]),
        edges([5, 5, 1, 9, 9, 2]),
        edges([110, 110, 3, 129, 129, 8], [105, 105, 2, 109, 109, 2]),
    ]
    return boxes, [[0.9, 0.8, 0.7, 0.6], [0.95], [0.5, 0.4]], truth


def one_image(boxes: list[Any], scores: list[float], truth: list[Any], **rules: Any) -> Matches:
    strict = rules.pop("strict", False)
    ignored = rules.pop("ignored", None)
    return match_detections([boxes], [scores], [truth], replace(DEEPLESION_2D, **rules), ignored=ignored, strict=strict)


def cases(min_lesions: int = 1) -> st.SearchStrategy[tuple[list[Any], list[Any], list[Any]]]:
    """Images with small boxes on a small grid, so that many overlap, and scores with many ties."""
    side = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.integers(1, 5))
    box = side.map(lambda b: [float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])])
    scored = st.lists(st.tuples(box, st.integers(0, 4)), max_size=6)
    image = st.tuples(scored, st.lists(box, min_size=min_lesions, max_size=4))
    return st.lists(image, min_size=1, max_size=4).map(
        lambda images: (
            [[b for b, _ in found] for found, _ in images],
            [[float(s) for _, s in found] for found, _ in images],
            [lesions for _, lesions in images],
        )
    )


def test_golden_case() -> None:
    matches = match_detections(*golden(), LENS_3D)
    curve = froc_curve(matches)
    assert curve.sensitivity.tolist() == [0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.75]
    assert curve.false_positives.tolist() == [1 / 3, 1 / 3, 1 / 3, 2 / 3, 1, 4 / 3, 4 / 3]
    assert curve.threshold.tolist() == [0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    levels = [1 / 8, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1, 2, 4, 8]
    assert sensitivity_at(matches, levels).tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5, 0.75, 0.75, 0.75]
    assert threshold_at(matches, levels).tolist() == [np.inf, np.inf, 0.8, 0.8, 0.7, 0.6, 0.4, 0.4, 0.4]


def test_truth_as_detections_is_perfect() -> None:
    _, _, truth = golden()
    matches = match_detections(truth, [[1.0] * len(part) for part in truth], truth, LENS_3D)
    assert sensitivity_at(matches, LENS_3D.levels).tolist() == [1.0] * 7


@pytest.mark.parametrize("strict", [False, True])
def test_no_detections_give_zero(strict: bool) -> None:
    matches = match_detections([[], []], [[], []], [[LESION], []], DEEPLESION_2D, strict=strict)
    assert sensitivity_at(matches, DEEPLESION_2D.levels).tolist() == [0.0] * 6
    assert froc_curve(matches).sensitivity.shape == (0,)
    assert threshold_at(matches, [1.0]).tolist() == [np.inf]


@pytest.mark.parametrize("strict", [False, True])
def test_no_lesions_give_nan(strict: bool) -> None:
    matches = match_detections([[LESION]], [[0.5]], [[]], DEEPLESION_2D, strict=strict)
    assert np.isnan(sensitivity_at(matches, [1.0, 2.0])).all()
    assert np.isnan(froc_curve(matches).sensitivity).all()
    assert froc_curve(matches).false_positives.tolist() == [1.0]


def test_no_images_at_all() -> None:
    matches = match_detections([], [], [], LENS_3D)
    assert np.isnan(sensitivity_at(matches, LENS_3D.levels)).all()
    assert len(froc_curve(matches).threshold) == 0


def test_first_detection_wrong_leaves_low_levels_at_zero() -> None:
    matches = one_image([FAR, LESION], [0.9, 0.8], [LESION])
    assert sensitivity_at(matches, [0.5, 1.0]).tolist() == [0, 1]


def test_equal_scores_later_first_or_together() -> None:
    """The wrong detection comes later in the input, hence first when reversed."""
    boxes, scores = [LESION, FAR], [0.5, 0.5]
    compat = froc_curve(one_image(boxes, scores, [LESION]))
    assert (compat.sensitivity.tolist(), compat.false_positives.tolist()) == ([0, 1], [1, 1])
    strict = froc_curve(one_image(boxes, scores, [LESION], strict=True))
    assert (strict.sensitivity.tolist(), strict.false_positives.tolist()) == ([1], [1])
    reversed_input = one_image(boxes[::-1], scores, [LESION])
    assert sensitivity_at(reversed_input, [0.5]).tolist() == [1]
    assert sensitivity_at(one_image(boxes[::-1], scores, [LESION], strict=True), [0.5]).tolist() == [0]


def test_duplicates_are_free_unless_asked() -> None:
    arguments = ([LESION, LESION, LESION], [0.9, 0.8, 0.7], [LESION])
    assert froc_curve(one_image(*arguments)).false_positives.tolist() == [0, 0, 0]
    assert froc_curve(one_image(*arguments, duplicates="fp")).false_positives.tolist() == [0, 1, 2]


def test_one_to_one_takes_the_best_free_lesion() -> None:
    lesions = [[0.0, 0, 10, 9], LESION]
    assert froc_curve(one_image([LESION, LESION], [0.9, 0.8], lesions)).sensitivity.tolist() == [1, 1]
    matches = one_image([LESION, LESION, LESION], [0.9, 0.8, 0.7], lesions, one_to_one=True, duplicates="fp")
    assert matches.found_by.tolist() == [1, 0]
    assert matches.false_positive.tolist() == [False, False, True]


def test_min_iogt_refuses_shrunken_boxes() -> None:
    speck = [[4.0, 4, 5, 5]]
    assert sensitivity_at(one_image(speck, [0.9], [LESION], overlap="iobb"), [1.0]) == 1
    assert sensitivity_at(one_image(speck, [0.9], [LESION], overlap="iobb", min_iogt=0.3), [1.0]) == 0
    half = [[0.0, 0, 10, 5]]
    assert sensitivity_at(one_image(half, [0.9], [LESION], overlap="iobb", min_iogt=0.5), [1.0]) == 1


def test_detections_on_ignored_lesions_count_neither_way() -> None:
    matches = one_image([FAR, LESION, [50, 0, 60, 9]], [0.9, 0.8, 0.7], [LESION], ignored=[[FAR]])
    assert matches.false_positive.tolist() == [False, False, True]
    assert len(matches.lesion_image) == 1


def test_a_lesion_is_found_even_where_an_ignored_box_lies() -> None:
    assert sensitivity_at(one_image([LESION], [0.9], [LESION], ignored=[[LESION]]), [1.0]) == 1


@pytest.mark.parametrize("bad", [[np.nan, 0, 10, 10], [0, 0, 0, 10], [10, 0, 0, 10]])
def test_invalid_detection_is_a_false_positive(bad: list[float]) -> None:
    matches = one_image([bad, LESION], [0.9, 0.8], [LESION], overlap="iobb")
    assert matches.false_positive.tolist() == [True, False]


def test_invalid_lesion_spoils_its_image_alone() -> None:
    truth = [[LESION, [np.nan, 0, 1, 1]], [LESION]]
    matches = match_detections([[LESION], [LESION]], [[0.9], [0.8]], truth, DEEPLESION_2D)
    assert matches.false_positive.tolist() == [True, False]
    assert matches.found_by.tolist() == [2, 2, 1]


def test_lesion_without_size_spoils_only_measures_that_divide_by_it() -> None:
    truth = [LESION, [5.0, 5, 5, 9]]
    assert one_image([LESION], [0.9], truth).false_positive.tolist() == [False]
    assert one_image([LESION], [0.9], truth, overlap="iogt").false_positive.tolist() == [True]


@pytest.mark.parametrize(
    ("boxes", "truth", "name"),
    [([[np.nan, 0, 1, 1]], [LESION], "detection"), ([LESION], [[5.0, 0, 4, 4]], "lesion")],
)
def test_strict_refuses_invalid_boxes(boxes: list[Any], truth: list[Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name} .* of image 0 is inverted or not finite"):
        one_image(boxes, [0.5], truth, strict=True)


@pytest.mark.parametrize(
    ("boxes", "scores", "truth", "message"),
    [
        ([[LESION]], [[0.5, 0.6]], [[]], "image 0 has 1 detections but 2 scores"),
        ([[LESION]], [[np.nan]], [[]], "image 0 has a score that is not finite"),
        ([[LESION]], [[0.5]], [[], []], "truth for 2 images but detections for 1"),
        ([[LESION]], [], [[]], "scores for 0 images but detections for 1"),
        ([[LESION * 2]], [[0.5]], [[]], r"detections of image 0 have shape \(1, 8\)"),
    ],
)
def test_what_does_not_fit_is_refused(boxes: list[Any], scores: list[Any], truth: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        match_detections(boxes, scores, truth, DEEPLESION_2D)


@settings(max_examples=150)
@given(cases(), st.sampled_from(["iou", "iobb", "iogt", "iobbgt"]), st.sampled_from([0.1, 0.3, 0.5, 1.0]))
def test_equals_the_slow_walk(case: tuple[Any, Any, Any], overlap: Any, threshold: float) -> None:
    protocol = replace(DEEPLESION_2D, overlap=overlap, threshold=threshold)
    sensitivity, rate = slow_froc(*case, protocol)
    matches = match_detections(*case, protocol)
    curve = froc_curve(matches)
    assert curve.sensitivity.tolist() == sensitivity
    assert curve.false_positives.tolist() == rate
    if rate:
        levels = np.array([0.25, 1 / 3, 0.5, 1, 2, 4])
        expected = np.interp(levels, rate, sensitivity)
        assert sensitivity_at(matches, levels).tolist() == np.where(levels < rate[0], 0, expected).tolist()


@settings(max_examples=60)
@given(cases(), st.sampled_from(["free", "fp"]), st.booleans(), st.booleans())
def test_curve_and_levels_agree(case: tuple[Any, Any, Any], duplicates: Any, one_to_one: bool, strict: bool) -> None:
    protocol = replace(DEEPLESION_2D, duplicates=duplicates, one_to_one=one_to_one)
    matches = match_detections(*case, protocol, strict=strict)
    curve = froc_curve(matches)
    assert (np.diff(curve.sensitivity) >= 0).all()
    assert (np.diff(curve.false_positives) >= 0).all()
    if strict:
        assert (np.diff(curve.threshold) < 0).all()
    for level in (0.3, 0.5, 1.0, 3.0):
        reached = curve.sensitivity[curve.false_positives <= level]
        assert sensitivity_at(matches, [level])[0] == (reached[-1] if len(reached) else 0)


@settings(max_examples=60)
@given(cases(), st.randoms(use_true_random=False))
def test_order_of_the_input_does_not_matter(case: tuple[Any, Any, Any], random: Any) -> None:
    """In strict mode, even with ties."""
    boxes, scores, truth = case
    images = list(range(len(boxes)))
    random.shuffle(images)
    mixed: list[list[Any]] = [[], [], []]
    for image in images:
        found = list(zip(boxes[image], scores[image], strict=True))
        random.shuffle(found)
        mixed[0].append([box for box, _ in found])
        mixed[1].append([score for _, score in found])
        mixed[2].append(random.sample(truth[image], len(truth[image])))
    first = froc_curve(match_detections(boxes, scores, truth, DEEPLESION_2D, strict=True))
    second = froc_curve(match_detections(*mixed, DEEPLESION_2D, strict=True))
    assert first.sensitivity.tolist() == second.sensitivity.tolist()
    assert first.false_positives.tolist() == second.false_positives.tolist()


@settings(max_examples=60)
@given(cases(), st.booleans())
def test_score_order_alone_decides(case: tuple[Any, Any, Any], strict: bool) -> None:
    boxes, scores, truth = case
    rescaled = [[2.0 ** (score - 10) for score in part] for part in scores]
    first = match_detections(boxes, scores, truth, DEEPLESION_2D, strict=strict)
    second = match_detections(boxes, rescaled, truth, DEEPLESION_2D, strict=strict)
    assert first.found_by.tolist() == second.found_by.tolist()
    assert first.false_positive.tolist() == second.false_positive.tolist()


@settings(max_examples=60)
@given(cases(), st.booleans())
def test_another_false_positive_never_helps(case: tuple[Any, Any, Any], strict: bool) -> None:
    boxes, scores, truth = case
    before = sensitivity_at(match_detections(*case, DEEPLESION_2D, strict=strict), [0.5, 1, 2])
    more = [[*boxes[0], FAR], *boxes[1:]], [[*scores[0], 2.5], *scores[1:]], truth
    after = sensitivity_at(match_detections(*more, DEEPLESION_2D, strict=strict), [0.5, 1, 2])
    assert (after <= before).all()


@settings(max_examples=60)
@given(cases(), st.lists(st.integers(0, 3), min_size=4, max_size=4), st.booleans())
def test_weight_is_as_many_copies(case: tuple[Any, Any, Any], weights: list[int], strict: bool) -> None:
    weights = weights[: len(case[0])]
    if not strict:  # without strict rules, copies of tied detections would be cut between equal scores
        order = iter(range(100))
        case = (case[0], [[score + next(order) / 1000 for score in part] for part in case[1]], case[2])
    copies = [[part for part, w in zip(parts, weights, strict=True) for _ in range(w)] for parts in case]
    levels = [0.25, 0.5, 1, 2, 4]
    weighted = sensitivity_at(match_detections(*case, DEEPLESION_2D, strict=strict), levels, weights=weights)
    copied = sensitivity_at(match_detections(*copies, DEEPLESION_2D, strict=strict), levels)
    assert np.allclose(weighted, copied, rtol=0, atol=1e-15, equal_nan=True)


def test_stratum_keeps_the_operating_points() -> None:
    matches = match_detections(*golden(), LENS_3D)
    mask = [False, True, False, True]
    assert sensitivity_at(matches, [1, 2], lesions=mask).tolist() == [0, 0.5]
    assert operating_ranks(matches, [1, 2]).tolist() == [5, 7]
    assert np.isnan(sensitivity_at(matches, [1], lesions=[False] * 4)).all()


def test_chunks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = match_detections(*golden(), LENS_3D)
    monkeypatch.setattr("mmpluld.evaluation.functional.froc._PAIRS_AT_ONCE", 4)
    pieces = match_detections(*golden(), LENS_3D)
    assert whole.found_by.tolist() == pieces.found_by.tolist()
    assert whole.false_positive.tolist() == pieces.false_positive.tolist()


@pytest.mark.parametrize(("dim", "tolerance"), [(3, 0.0005), (2, 0.003)])
def test_agrees_with_the_published_evaluation(
    oracle: Callable[[int], dict[str, Any]], dim: int, tolerance: float
) -> None:
    case = oracle(dim)
    for expected in case["expected"]:
        protocol = FROCProtocol(
            "published", dim, expected["overlap"].lower(), expected["threshold"], case["levels"], case["levels"][:7]
        )
        matches = match_detections(case["boxes"], case["scores"], case["truth"], protocol)
        sensitivity = sensitivity_at(matches, case["levels"])
        assert np.abs(sensitivity - expected["sensitivity"]).max() < tolerance
        assert abs(mean_sensitivity(sensitivity, protocol) - expected["mean_at_0p125_to_8"]) < tolerance
        assert froc_curve(matches).sensitivity[-1] == pytest.approx(expected["total_recall"], abs=1e-6)
