"""Free-response ROC: sensitivity against mean false positives per image.

``match_detections`` does the costly part once; curves, sensitivities, bootstrap resamples and strata are read
off its result. Matching never crosses images, so resampling images only re-weights what each one contributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpluld.errors import InputError
from mmpluld.evaluation.functional.protocols import FROCProtocol
from mmpluld.structures.overlaps import paired_overlap
from mmpluld.typing import BoolArray, FloatArray

__all__ = [
    "FROCCurve",
    "Matches",
    "froc_curve",
    "match_detections",
    "mean_sensitivity",
    "operating_ranks",
    "sensitivity_at",
    "threshold_at",
]

IndexArray = NDArray[np.intp]

_PAIRS_AT_ONCE = 1 << 18  # detection-lesion pairs per chunk; keeps the temporaries in the cache


@dataclass(frozen=True)
class Matches:
    """What every detection found, in falling order of score. n detections, m lesions.

    Attributes:
        image: (n,) index of the image a detection lies in.
        score: (n,) falling scores.
        false_positive: (n,) True for false positives; a detection may be neither that nor find anything.
        point: (n,) rank of the first detection that the curve takes together with this one: its own rank, or
            in strict mode that of the first detection of equal score.
        lesion_image: (m,) index of the image a lesion lies in, in input order.
        found_by: (m,) rank of the detection that finds the lesion; n if none does.
        num_images: Images evaluated, including those without lesions or detections.
    """

    image: IndexArray
    score: FloatArray
    false_positive: BoolArray
    point: IndexArray
    lesion_image: IndexArray
    found_by: IndexArray
    num_images: int


@dataclass(frozen=True)
class FROCCurve:
    """Points of a FROC curve, by falling score threshold.

    Attributes:
        false_positives: (p,) mean false positives per image, never falling.
        sensitivity: (p,) share of lesions found, never falling; NaN where there are no lesions.
        threshold: (p,) lowest score accepted at the point.
    """

    false_positives: FloatArray
    sensitivity: FloatArray
    threshold: FloatArray


def match_detections(
    detections: Sequence[ArrayLike],
    scores: Sequence[ArrayLike],
    truth: Sequence[ArrayLike],
    protocol: FROCProtocol,
    *,
    ignored: Sequence[ArrayLike] | None = None,
    strict: bool = False,
) -> Matches:
    """Decide for all detections of a data set what they find.

    Detections are taken by falling score over all images. One finds every lesion of its image that it
    overlaps enough and that no earlier one found. One that overlaps no lesion enough is a false positive,
    unless it overlaps an ignored box enough. ``protocol`` sets the overlap, and what duplicates are.

    The published evaluations order equal scores by a reversed unstable argsort; here it is a reversed stable
    one, so of equal scores the later in the input comes first, and each detection gives a curve point of its
    own. A detection with a non-finite coordinate is a false positive, as is every detection of an image one
    of whose lesions has one (or no size, where the measure divides by it).

    With ``strict``, equal scores share one curve point and are taken in input order, and invalid boxes are
    refused.

    Args:
        detections: Per image (N, 2 dim) edges; an empty list will do for none.
        scores: Per image (N,) finite scores, any scale.
        truth: Per image (M, 2 dim) edges of the lesions to find.
        protocol: The rules.
        ignored: Per image (K, 2 dim) edges that are neither to be found nor to be missed.
        strict: Whether to apply the strict rules above.

    Raises:
        InputError: If lengths or shapes do not fit, a score is not finite, or with ``strict`` a box is
            inverted or has a non-finite coordinate.

    Source: evaluation of the DeepLesion manual test set (LENS, Sec. VI-C), shared with MULAN and A3D in 2D.
    """
    width = 2 * protocol.dim
    boxes, image = _stack(detections, width, "detections")
    lesions, lesion_image = _stack(truth, width, "truth")
    aside, aside_image = _stack([[]] * len(truth) if ignored is None else ignored, width, "ignored")
    flat_scores = _stack_scores(scores, image, len(detections))
    for name, count in (("truth", len(truth)), ("ignored", len(truth) if ignored is None else len(ignored))):
        if count != len(detections):
            raise InputError(f"{name} for {count} images but detections for {len(detections)}: give both per image")
    if strict:
        _refuse_invalid(boxes, image, "detection")
        _refuse_invalid(lesions, lesion_image, "lesion")
        _refuse_invalid(aside, aside_image, "ignored box")

    order = _by_falling_score(flat_scores, strict)
    boxes, image, score = boxes[order], image[order], flat_scores[order]

    usable = _usable(boxes, image, lesions, lesion_image, protocol, len(detections))
    rank, lesion, overlap = _touching(boxes, image, lesions, lesion_image, protocol, len(detections), usable)
    found_by = _first_finder(rank, lesion, overlap, len(boxes), len(lesions), protocol.one_to_one)
    excused = np.zeros(len(boxes), dtype=np.bool_)
    excused[rank if protocol.duplicates == "free" else found_by[found_by < len(boxes)]] = True
    beside = _usable(boxes, image, aside, aside_image, protocol, len(detections))
    excused[_touching(boxes, image, aside, aside_image, protocol, len(detections), beside)[0]] = True

    point = _curve_points(score, strict)
    return Matches(image, score, ~excused, point, lesion_image, found_by, len(detections))


def _by_falling_score(scores: FloatArray, strict: bool) -> IndexArray:
    """The order of detections; see :func:`match_detections` for that of equal scores."""
    if strict:
        return np.argsort(-scores, kind="stable")
    return np.argsort(scores, kind="stable")[::-1]


def _curve_points(scores: FloatArray, strict: bool) -> IndexArray:
    """Number of the curve point that each detection of falling score belongs to: its own or, strict, its score's."""
    point = np.arange(len(scores))
    if strict:
        starts = np.r_[True, scores[1:] != scores[:-1]][: len(scores)]
        point = np.maximum.accumulate(np.where(starts, point, 0))
    return point


def froc_curve(matches: Matches) -> FROCCurve:
    """Return the whole curve: one point per detection, in strict mode one per distinct score."""
    num_found = np.bincount(matches.found_by, minlength=len(matches.score) + 1)[:-1]
    last = np.r_[matches.point[1:] == np.arange(1, len(matches.point)), True][: len(matches.point)]
    with np.errstate(invalid="ignore"):
        rate = np.cumsum(matches.false_positive) / np.float64(matches.num_images)
        sensitivity = np.cumsum(num_found) / np.float64(len(matches.found_by))
    return FROCCurve(rate[last], sensitivity[last], matches.score[last])


def operating_ranks(matches: Matches, levels: ArrayLike, *, weights: ArrayLike | None = None) -> IndexArray:
    """How many top-ranked detections may be accepted so that mean false positives stay within each level.

    Args:
        matches: Result of ``match_detections``.
        levels: (L,) mean false positives per image.
        weights: (num_images,) non-negative weight of each image; 1 each if None. Weights of 0 and 1 select
            images, multiplicities are a bootstrap resample: as if the image were there that many times, its copies
            of a detection following each other.

    Returns:
        (L,) counts in [0, n].
    """
    wrong = np.flatnonzero(matches.false_positive)
    if weights is None:
        rate = np.arange(1, len(wrong) + 1) / max(matches.num_images, 1)
    else:
        weight = np.asarray(weights, dtype=np.float64)
        rate = np.cumsum(weight[matches.image[wrong]]) / (weight.sum() or 1.0)
    ends = np.append(matches.point[wrong], len(matches.score))
    exceeding = np.searchsorted(rate, np.asarray(levels, dtype=np.float64), side="right")
    return np.asarray(ends[exceeding], dtype=np.intp)


def sensitivity_at(
    matches: Matches,
    levels: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    lesions: ArrayLike | None = None,
) -> FloatArray:
    """Sensitivity at mean false positives per image.

    The curve is read as a step function: the highest sensitivity reached with at most ``level`` false
    positives per image; 0 below the first point, the last one beyond the end. The linear interpolation of the
    published code gives the same, because sensitivity is flat wherever false positives rise.

    Args:
        matches: Result of ``match_detections``.
        levels: (L,) mean false positives per image.
        weights: (num_images,) weight of each image, see ``operating_ranks``.
        lesions: (m,) True for the lesions that count. The false positives and so the operating points remain
            those of all lesions: the sensitivity of a stratum.

    Returns:
        (L,) in [0, 1]; NaN if no lesion counts, 0 if there are no detections.
    """
    accepted = operating_ranks(matches, levels, weights=weights)
    weight = np.ones(matches.num_images) if weights is None else np.asarray(weights, dtype=np.float64)
    counted = weight[matches.lesion_image]
    if lesions is not None:
        counted = counted * np.asarray(lesions, dtype=np.bool_)
    total = counted.sum()
    if total == 0:
        return np.full(len(accepted), np.nan)
    found = matches.found_by < accepted[:, None]
    return np.asarray((counted * found).sum(axis=1) / total, dtype=np.float64)


def threshold_at(matches: Matches, levels: ArrayLike) -> FloatArray:
    """Lowest score accepted at each level, (L,); +inf where no detection may be accepted.

    Of detections with this very score, those behind the point on the curve are not accepted; in strict mode there are
    none.
    """
    scores = np.r_[np.inf, matches.score]
    return np.asarray(scores[operating_ranks(matches, levels)], dtype=np.float64)


def mean_sensitivity(sensitivity: FloatArray, protocol: FROCProtocol) -> FloatArray:
    """Headline number from (..., L) sensitivities at the protocol's levels; shape (...)."""
    return np.asarray(sensitivity[..., protocol.headline_index].mean(axis=-1), dtype=np.float64)


def _stack(groups: Sequence[ArrayLike], width: int, name: str) -> tuple[FloatArray, IndexArray]:
    """Join per-image boxes; return them with the image index of each."""
    parts = []
    for index, group in enumerate(groups):
        part = np.asarray(group, dtype=np.float64)
        if part.size == 0:
            part = part.reshape(0, width)
        if part.ndim != 2 or part.shape[1] != width:
            raise InputError(f"{name} of image {index} have shape {part.shape}; {width // 2}D boxes are (N, {width})")
        parts.append(part)
    counts = np.array([len(part) for part in parts], dtype=np.intp)
    joined = np.concatenate(parts) if parts else np.zeros((0, width))
    return joined, np.repeat(np.arange(len(parts)), counts)


def _stack_scores(scores: Sequence[ArrayLike], image: IndexArray, num_images: int) -> FloatArray:
    """Join per-image scores and check that they fit the detections."""
    parts = [np.asarray(part, dtype=np.float64).reshape(-1) for part in scores]
    counts = np.bincount(image, minlength=num_images)
    if len(parts) != num_images:
        raise InputError(f"scores for {len(parts)} images but detections for {num_images}: give both per image")
    for index, part in enumerate(parts):
        if len(part) != counts[index]:
            raise InputError(f"image {index} has {counts[index]} detections but {len(part)} scores: give one each")
        if not np.isfinite(part).all():
            raise InputError(f"image {index} has a score that is not finite; scores must be finite to be ranked")
    return np.concatenate(parts) if parts else np.zeros(0)


def _refuse_invalid(boxes: FloatArray, image: IndexArray, name: str) -> None:
    """Raise on the first inverted or non-finite box."""
    dim = boxes.shape[1] // 2
    # Written so that NaN fails the comparison.
    bad = ~((boxes[:, dim:] >= boxes[:, :dim]).all(axis=1) & np.isfinite(boxes).all(axis=1))
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            f"{name} {boxes[first].tolist()} of image {image[first]} is inverted or not finite; strict "
            "evaluation needs finite edges with near <= far: correct the box or evaluate without strict"
        )


def _usable(
    boxes: FloatArray,
    image: IndexArray,
    lesions: FloatArray,
    lesion_image: IndexArray,
    protocol: FROCProtocol,
    num_images: int,
) -> BoolArray:
    """Which detections may find anything: those the published code would compute no NaN for."""
    dim = protocol.dim
    broken = ~np.isfinite(lesions).all(axis=1)
    if protocol.overlap in ("iogt", "iobbgt"):
        broken |= (lesions[:, dim:] == lesions[:, :dim]).any(axis=1)
    spoilt = np.zeros(num_images, dtype=np.bool_)
    spoilt[lesion_image[broken]] = True
    return np.asarray(np.isfinite(boxes).all(axis=1) & ~spoilt[image], dtype=np.bool_)


def _touching(
    boxes: FloatArray,
    image: IndexArray,
    lesions: FloatArray,
    lesion_image: IndexArray,
    protocol: FROCProtocol,
    num_images: int,
    usable: BoolArray,
) -> tuple[IndexArray, IndexArray, FloatArray]:
    """All (detection, lesion) pairs of one image that overlap enough, and their overlap."""
    per_image = np.bincount(lesion_image, minlength=num_images)
    first_lesion = np.cumsum(per_image) - per_image
    candidates = np.flatnonzero(usable & (per_image[image] > 0))
    counts = per_image[image[candidates]]
    ends = np.cumsum(counts)
    parts = []
    start = 0
    while start < len(candidates):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + _PAIRS_AT_ONCE, side="right")), start + 1)
        rows, repeats = candidates[start:stop], counts[start:stop]
        detection = np.repeat(rows, repeats)
        within = np.arange(len(detection)) - np.repeat(ends[start:stop] - repeats - done, repeats)
        parts.append(_overlapping(boxes, lesions, detection, first_lesion[image[detection]] + within, protocol))
        start = stop
    if not parts:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp), np.zeros(0)
    detections, truths, overlaps = (np.concatenate(column) for column in zip(*parts, strict=True))
    return detections, truths, overlaps


def _overlapping(
    boxes: FloatArray, lesions: FloatArray, detection: IndexArray, lesion: IndexArray, protocol: FROCProtocol
) -> tuple[IndexArray, IndexArray, FloatArray]:
    """Of given pairs, those that overlap enough; axes drop disjoint pairs one by one, since most are."""
    dim = protocol.dim
    # A detection without extent overlaps nothing, but its centre can lie in a lesion.
    meet = np.greater_equal if protocol.overlap == "centre" else np.greater
    for axis in range(dim):
        near = np.maximum(boxes[detection, axis], lesions[lesion, axis])
        far = np.minimum(boxes[detection, axis + dim], lesions[lesion, axis + dim])
        keep = meet(far, near)
        detection, lesion = detection[keep], lesion[keep]
    overlap = paired_overlap(boxes[detection], lesions[lesion], protocol.overlap)
    keep = overlap >= protocol.threshold
    if protocol.min_iogt > 0:
        keep &= paired_overlap(boxes[detection], lesions[lesion], "iogt") >= protocol.min_iogt
    return detection[keep], lesion[keep], overlap[keep]


def _first_finder(
    rank: IndexArray,
    lesion: IndexArray,
    overlap: FloatArray,
    num_detections: int,
    num_lesions: int,
    one_to_one: bool,
) -> IndexArray:
    """Rank of the detection that finds each lesion, ``num_detections`` if none does."""
    found_by = np.full(num_lesions, num_detections, dtype=np.intp)
    if not one_to_one:
        np.minimum.at(found_by, lesion, rank)
        return found_by
    previous = -1
    for pair in np.lexsort((lesion, -overlap, rank)):
        if rank[pair] != previous and found_by[lesion[pair]] == num_detections:
            found_by[lesion[pair]] = previous = rank[pair]
    return found_by
