from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.postprocess import Tracklet, link_slices, number_tracklets, tracklet_to_box3d

SQUARE = [10.0, 10.0, 20.0, 20.0]


def as_set(tracklets):
    return {(tuple(t.slices), t.boxes.tobytes(), t.scores.tobytes()) for t in tracklets}


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inner = width * height
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def slow_links(boxes, iou_thr, max_gap):
    """The rule in plain loops: which (slice, position) each (slice, position) continues, or None."""
    previous = {(s, i): None for s, rows in enumerate(boxes) for i in range(len(rows))}
    has_next = set()
    for s in range(len(boxes)):
        for gap in range(max_gap + 1):
            earlier = s - 1 - gap
            if earlier < 0:
                continue
            pairs = sorted(
                (
                    (iou(boxes[earlier][i], boxes[s][j]), i, j)
                    for i in range(len(boxes[earlier]))
                    for j in range(len(boxes[s]))
                ),
                reverse=True,
            )
            for value, i, j in pairs:
                free = (earlier, i) not in has_next and previous[(s, j)] is None
                if value > iou_thr and free:
                    previous[(s, j)] = (earlier, i)
                    has_next.add((earlier, i))
    return previous


def random_slices(seed, num_slices=6, most=5):
    rng = np.random.default_rng(seed)
    boxes, scores = [], []
    for _ in range(num_slices):
        n = int(rng.integers(0, most + 1))
        corner = rng.uniform(0, 12, (n, 2))
        boxes.append(np.hstack([corner, corner + rng.uniform(8, 14, (n, 2))]))
        scores.append(rng.uniform(0, 1, n))
    return boxes, scores


def test_one_lesion_over_three_slices():
    boxes = [[], [SQUARE], [[11, 10, 21, 20]], [[11, 10, 21, 20]], []]
    scores = [[], [0.25], [0.75], [0.5], []]
    (chain,) = link_slices(boxes, scores)
    assert chain.slices.tolist() == [1, 2, 3]
    box3d = tracklet_to_box3d(chain)
    weighted_left = (0.25 * 10 + 0.75 * 11 + 0.5 * 11) / 1.5
    np.testing.assert_allclose(box3d.box, [weighted_left, 10, 1, weighted_left + 10, 20, 4])
    assert box3d.score == 0.75
    assert box3d.key_slice == 2
    assert box3d.key_box.tolist() == [11, 10, 21, 20]
    assert tracklet_to_box3d(chain, score="mean").score == pytest.approx(0.5)


def test_best_overlap_wins_and_links_are_one_to_one():
    first = [[10, 10, 20, 20], [12, 10, 22, 20]]
    second = [[12, 10, 22, 20]]
    chains = link_slices([first, second], [[0.9, 0.1], [0.5]])
    assert as_set(chains) == as_set(
        [
            Tracklet(np.array([0]), np.array([first[0]], float), np.array([0.9])),
            Tracklet(np.array([0, 1]), np.array([first[1], second[0]], float), np.array([0.1, 0.5])),
        ]
    )


def test_best_scores_win_on_request():
    first = [[10, 10, 20, 20], [12, 10, 22, 20]]
    second = [[12, 10, 22, 20]]
    chains = link_slices([first, second], [[0.9, 0.1], [0.5]], link_order="score")
    assert as_set(chains) == as_set(
        [
            Tracklet(np.array([0, 1]), np.array([first[0], second[0]], float), np.array([0.9, 0.5])),
            Tracklet(np.array([0]), np.array([first[1]], float), np.array([0.1])),
        ]
    )
    with pytest.raises(ValueError, match="link_order is 'scores'; it must be 'iou' or 'score'"):
        link_slices([first, second], [[0.9, 0.1], [0.5]], link_order="scores")


def test_overlap_equal_to_the_threshold_does_not_link():
    half = [10.0, 10.0, 15.0, 20.0]  # IoU with SQUARE is exactly 0.5
    assert len(link_slices([[SQUARE], [half]], [[1], [1]])) == 2
    assert len(link_slices([[SQUARE], [half]], [[1], [1]], iou_thr=0.49)) == 1


def test_a_gap_is_bridged_only_on_request():
    boxes, scores = [[SQUARE], [], [SQUARE]], [[0.9], [], [0.8]]
    assert len(link_slices(boxes, scores)) == 2
    (chain,) = link_slices(boxes, scores, max_gap=1)
    assert chain.slices.tolist() == [0, 2]


def test_the_shorter_gap_is_served_first():
    moved = [13.0, 10.0, 23.0, 20.0]
    chains = link_slices([[SQUARE], [moved], [SQUARE]], [[0.9], [0.9], [0.9]], iou_thr=0.5, max_gap=1)
    assert sorted(t.slices.tolist() for t in chains) == [[0, 1, 2]]
    far = [16.0, 10.0, 26.0, 20.0]
    chains = link_slices([[SQUARE], [far], [SQUARE]], [[0.9], [0.9], [0.9]], iou_thr=0.5, max_gap=1)
    assert sorted(t.slices.tolist() for t in chains) == [[0, 2], [1]]


def test_nothing_found():
    assert link_slices([], []) == []
    assert link_slices([[], np.empty((0, 4))], [[], []]) == []


def test_zero_scores_give_the_plain_mean():
    chain = Tracklet(np.array([3, 4]), np.array([[0, 0, 4, 4], [2, 0, 6, 4]], float), np.zeros(2))
    np.testing.assert_allclose(tracklet_to_box3d(chain).box, [1, 0, 3, 5, 4, 5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"boxes": [[SQUARE]], "scores": []}, "1 slices of boxes but 0 of scores"),
        ({"boxes": [[SQUARE]], "scores": [[0.5, 0.4]]}, "slice 0 has 1 boxes but 2 scores"),
        ({"boxes": [], "scores": [], "iou_thr": 1.0}, r"iou_thr is 1.0; it must lie in \[0, 1\)"),
        ({"boxes": [], "scores": [], "max_gap": -1}, "max_gap is -1"),
    ],
)
def test_bad_arguments(arguments, message):
    boxes, scores = arguments.pop("boxes"), arguments.pop("scores")
    with pytest.raises(ValueError, match=message):
        link_slices(boxes, scores, **arguments)


def test_bad_score_rule():
    chain = Tracklet(np.array([0]), np.array([SQUARE]), np.array([1.0]))
    with pytest.raises(ValueError, match="score is 'median'; it must be 'max' or 'mean'"):
        tracklet_to_box3d(chain, score="median")


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), max_gap=st.integers(0, 2), iou_thr=st.sampled_from([0.0, 0.3, 0.5, 0.7]))
def test_equals_the_rule_in_plain_loops(seed, max_gap, iou_thr):
    boxes, scores = random_slices(seed)
    previous = slow_links(boxes, iou_thr, max_gap)
    chains = {(s, i): [(s, i)] for (s, i), before in previous.items() if before is None}
    ends = {head: head for head in chains}
    for key in sorted(previous):
        before = previous[key]
        if before is not None:
            head = next(h for h, end in ends.items() if end == before)
            chains[head].append(key)
            ends[head] = key
    expected = {
        tuple((s, *boxes[s][i].tolist(), float(scores[s][i])) for s, i in members) for members in chains.values()
    }
    found = {
        tuple((int(s), *box.tolist(), float(score)) for s, box, score in zip(t.slices, t.boxes, t.scores, strict=True))
        for t in link_slices(boxes, scores, iou_thr, max_gap)
    }
    assert found == expected


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_order_within_a_slice_does_not_matter(seed):
    boxes, scores = random_slices(seed)
    rng = np.random.default_rng(seed + 1)
    orders = [rng.permutation(len(rows)) for rows in boxes]
    shuffled = link_slices(
        [rows[o] for rows, o in zip(boxes, orders, strict=True)],
        [values[o] for values, o in zip(scores, orders, strict=True)],
    )
    plain = link_slices(boxes, scores)
    assert [(t.slices.tolist(), t.boxes.tolist()) for t in plain] == [
        (t.slices.tolist(), t.boxes.tolist()) for t in shuffled
    ]


def test_boxes_that_never_overlap_stay_alone():
    boxes = [[[20.0 * (s + i), 0, 20.0 * (s + i) + 10, 10] for i in range(3)] for s in range(0, 30, 4)]
    chains = link_slices(boxes, [[0.5] * 3] * len(boxes))
    assert len(chains) == 3 * len(boxes)
    assert all(len(t.slices) == 1 for t in chains)


@pytest.mark.parametrize("max_gap", [0, 1])
def test_numbers_are_the_places_of_the_chains(max_gap):
    for seed in range(20):
        boxes, scores = random_slices(seed)
        chains = link_slices(boxes, scores, 0.3, max_gap)
        numbers = number_tracklets(boxes, scores, 0.3, max_gap)
        assert [len(part) for part in numbers] == [len(part) for part in boxes]
        found = {
            (int(number), index): (tuple(box), score)
            for index, parts in enumerate(zip(numbers, boxes, scores, strict=True))
            for number, box, score in zip(*parts, strict=True)
        }
        wanted = {
            (number, int(index)): (tuple(box), score)
            for number, chain in enumerate(chains)
            for index, box, score in zip(chain.slices, chain.boxes, chain.scores, strict=True)
        }
        assert found == wanted


def test_numbers_where_there_is_little():
    assert number_tracklets([], []) == []
    assert [part.tolist() for part in number_tracklets([[], [SQUARE], []], [[], [0.5], []])] == [[], [0], []]
    with pytest.raises(ValueError, match="iou_thr"):
        number_tracklets([[SQUARE]], [[0.5]], 1.0)
