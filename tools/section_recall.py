"""Which cross-sections of lesions a detector finds: the middle ones, those beside them, any one of a lesion.

A FROC curve of volumes counts a lesion by its best slice. This counts every 2D box of proposals by itself: at some
numbers of false boxes per slice, the share of cross-sections that are found in the middle slice of a lesion and in its
others, and the share of lesions of which any is found. A box finds the cross-section that it overlaps most, by an IoU
of 0.5 or more; one that overlaps no lesion is false; what lies between counts neither way.

Example:
    mmpluld propose CONFIG CHECKPOINT --annotations truth/test_subvolumes.json --out proposals
    python tools/section_recall.py truth/test_subvolumes.json proposals
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from mmpluld.errors import InputError
from mmpluld.io.proposals import ProposalStore
from mmpluld.mining.strategies.uncertain import boxes_on_scan, scan_slices
from mmpluld.structures import AnnotationSet, Box2D, LesionRecord, boxes_by_slice, pairwise_overlap
from mmpluld.text_table import text_table
from mmpluld.typing import FloatArray

RATES = (0.05, 0.1, 0.2, 0.5)
"""False boxes per slice."""
GROUPS = ("middle", "others", "any")


def section_recall(truth: AnnotationSet, store: ProposalStore) -> FloatArray:
    """Shares found, (rates, groups), of the middle cross-sections, the other ones, and the lesions by any of theirs.

    Raises:
        InputError: A volume has no proposals, or on the slices examined no lesion has two cross-sections.
    """
    found: dict[str, list[float]] = {group: [] for group in GROUPS}
    false: list[float] = []
    slices = 0
    lesions = truth.lesions_by_volume()
    for volume in truth.volumes:
        proposals = store.load(volume.id)
        seen = set(scan_slices(proposals))
        slices += len(seen)
        boxes: dict[int, list[tuple[Box2D, float]]] = {}
        for number, box, score, _ in boxes_on_scan(proposals, seen, range(len(store.header.experts)), 0.0):
            boxes.setdefault(number, []).append((box, score))
        sections = [(lesion, boxes_by_slice(lesion)) for lesion in lesions[volume.id]]
        # Of each lesion that counts, the best score of each cross-section that was examined.
        best = {one.id: {n: 0.0 for n in cuts if n in seen} for one, cuts in sections if not one.ignore}
        for number, rows in boxes.items():
            for lesion, score in _on_slice(number, rows, sections):
                if lesion is None:
                    false.append(score)
                elif number in best.get(lesion, ()):
                    best[lesion][number] = max(best[lesion][number], score)
        for scores in best.values():
            if scores:
                middle = sorted(scores)[(len(scores) - 1) // 2]
                found["middle"].append(scores[middle])
                found["others"] += [score for number, score in scores.items() if number != middle]
                found["any"].append(max(scores.values()))
    if not found["others"]:
        raise InputError(
            f"{store.folder}: no lesion of the truth has two cross-sections on the slices of these proposals; give the "
            "file with all lesions, such as a phantom's truth/test_subvolumes.json"
        )
    ranked = np.r_[np.sort(false)[::-1], 0.0]
    thresholds = [ranked[min(int(rate * slices), len(false))] for rate in RATES]
    return np.array([[np.mean(np.array(found[group]) > low) for group in GROUPS] for low in thresholds])


def _on_slice(
    number: int, rows: Sequence[tuple[Box2D, float]], lesions: Sequence[tuple[LesionRecord, dict[int, Box2D]]]
) -> Iterator[tuple[int | None, float]]:
    """The lesion, by id, whose cross-section each box of a slice finds, or None of a false one, and its score."""
    reached = [(lesion, cuts) for lesion, cuts in lesions if lesion.box[2] <= number < lesion.box[5]]
    if not reached:
        yield from ((None, score) for _, score in rows)
        return
    hulls = [(*lesion.box[:2], *lesion.box[3:5]) for lesion, _ in reached]
    sections = [cuts.get(number, hull) for (_, cuts), hull in zip(reached, hulls, strict=True)]
    boxes = np.array([box for box, _ in rows])
    overlaps = np.nan_to_num(pairwise_overlap(boxes, np.array(sections)))
    touches = np.nan_to_num(pairwise_overlap(boxes, np.array(hulls))).max(axis=1) > 0
    for (_, score), touch, row in zip(rows, touches, overlaps, strict=True):
        if row.max() >= 0.5:
            yield reached[int(row.argmax())][0].id, score
        elif not touch:
            yield None, score


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", metavar="TRUTH", help="annotation file with all lesions, with boxes by slice")
    parser.add_argument(
        "proposals", metavar="PROPOSALS", nargs="+", help="folders of `mmpluld propose` on it; of several the mean"
    )
    options = parser.parse_args()
    try:
        truth = AnnotationSet.load(options.truth)
        shares = np.mean([section_recall(truth, ProposalStore(folder)) for folder in options.proposals], axis=0)
    except InputError as error:
        print(f"section_recall: {error}", file=sys.stderr)
        return 2
    head = ["false boxes per slice", "middle sections", "other sections", "lesions by any section"]
    rows = [[f"{rate:g}", *(f"{share:.3f}" for share in row)] for rate, row in zip(RATES, shares, strict=True)]
    print(text_table([head, *rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
