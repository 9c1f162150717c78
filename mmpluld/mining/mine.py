"""Mining from files: check that they belong together, run strategies one after the other, count and score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmpluld.errors import InputError, did_you_mean
from mmpluld.io.embeddings import EmbeddingStore
from mmpluld.io.proposals import ProposalStore
from mmpluld.mining.lesions import SliceIndex
from mmpluld.mining.options import MiningOptions
from mmpluld.mining.places import EmbeddedPlaces, LesionPlaces
from mmpluld.mining.pool import ProposalPool
from mmpluld.mining.rounds import mined_from, mined_rounds
from mmpluld.mining.score import score_strategy
from mmpluld.mining.strategies import without_found
from mmpluld.mining.strategy_table import ORACLES, STRATEGIES, find_strategy
from mmpluld.mining.truth import CompleteTruth
from mmpluld.structures import LESION_TYPES, AnnotationSet
from mmpluld.typing import StrPath

__all__ = ["MiningResult", "count_boxes", "mine_files"]


@dataclass
class MiningResult:
    """What mining made.

    Attributes:
        annotations: The mined annotations.
        counts: A row for the annotations as they were and one for each strategy: ``strategy``, ``lesions_3d``,
            ``boxes_2d``, ``uncertain_2d``, ``slices``.
        scores: Rows of :func:`~mmpluld.mining.score.score_strategy`, if the truth was given.
    """

    annotations: AnnotationSet
    counts: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)


def mine_files(
    annotation_file: StrPath,
    proposal_folders: Sequence[StrPath] = (),
    *,
    strategies: Sequence[str] = (),
    oracles: Sequence[str] = (),
    options: MiningOptions | None = None,
    embedding_folders: Sequence[StrPath] = (),
    truth_file: StrPath | None = None,
    resamples: int = 1000,
) -> MiningResult:
    """Mine an annotation file.

    Args:
        annotation_file: What is known; it may have been mined before.
        proposal_folders: Proposals on it, or on the file that it was mined from. Several share out the patients, or
            are augmented views of the same volumes (``distillation``).
        strategies: Names of some of :data:`~mmpluld.mining.strategy_table.STRATEGIES`.
        oracles: Names of strategies that are done by the truth instead.
        options: The rules.
        embedding_folders: Embeddings of its lesions and of the tracklets of the proposals, for ``intra-patient``.
        truth_file: All lesions; what strategies add is scored by it.
        resamples: Of the patients, for the intervals of scores.

    Raises:
        InputError: Something is missing, faulty or does not belong together.
    """
    rules = options or MiningOptions()
    _check(strategies, oracles, proposal_folders, embedding_folders, truth_file, rules)
    annotations = AnnotationSet.load(annotation_file)
    history = mined_rounds(annotations, annotation_file)
    digests = mined_from(annotations, annotation_file)
    pool = ProposalPool([ProposalStore(folder) for folder in proposal_folders]) if proposal_folders else None
    if pool is not None:
        pool.check(annotations, digests, str(annotation_file))
    places: LesionPlaces | None = None
    if embedding_folders and rules.match == "embedding":
        places = EmbeddedPlaces([EmbeddingStore(folder) for folder in embedding_folders], digests, rules.box_score)
    truth = None if truth_file is None else CompleteTruth.load(truth_file, annotations)
    if truth is not None:
        _check_types(rules.oracle_types, truth)
    wanted = [strategy for name, strategy in STRATEGIES.items() if name in (*strategies, *oracles)]
    done = [name for old in history for name in old["strategies"] + old["oracles"]]
    if "distillation" in strategies and "distillation" in done:
        raise InputError(
            f"{annotation_file}: is distilled already, and as many boxes again would be worse ones; distil the file "
            "that it was mined from"
        )
    every = any(strategy.every_slice and name in done for name, strategy in STRATEGIES.items())
    lengths = _lengths(annotations, pool) if every or any(strategy.every_slice for strategy in wanted) else {}
    result = MiningResult(annotations, [count_boxes("none", annotations, lengths, every)])
    for strategy in wanted:
        before = result.annotations
        if strategy.name in oracles and truth is not None:
            after = strategy.perfect(before, truth, rules)
        elif pool is not None:
            after = strategy.mine(before, pool, rules, places)
        after = without_found(after, rules.uncertain_iou)
        every = every or strategy.every_slice
        result.annotations = after
        result.counts.append(count_boxes(strategy.name, after, lengths, every))
        if truth is not None:
            result.scores += score_strategy(strategy.name, before, after, truth, resamples)
    dataset = annotations.dataset | {"mined": [*history, _round(digests[0], pool, strategies, oracles, rules)]}
    result.annotations = AnnotationSet(dataset, annotations.volumes, result.annotations.lesions)
    return result


def _round(
    annotations_sha256: str,
    pool: ProposalPool | None,
    strategies: Sequence[str],
    oracles: Sequence[str],
    rules: MiningOptions,
) -> dict[str, Any]:
    """What the header will say of this round."""
    return {
        "annotations_sha256": annotations_sha256,
        "proposals_sha256": sorted(pool.digests.values()) if pool else [],
        "strategies": [name for name in STRATEGIES if name in strategies],
        "oracles": [name for name in STRATEGIES if name in oracles],
        "every_slice": any(find_strategy(name).every_slice for name in (*strategies, *oracles)),
        "options": asdict(rules),
    }


def _check(
    strategies: Sequence[str],
    oracles: Sequence[str],
    proposals: Sequence[StrPath],
    embeddings: Sequence[StrPath],
    truth: StrPath | None,
    rules: MiningOptions,
) -> None:
    """Refuse what does not go together."""
    if not strategies and not oracles:
        names = f"--strategies ({', '.join(STRATEGIES)}) or --oracle ({', '.join(ORACLES)})"
        raise InputError(f"nothing to mine; give {names}")
    for name in oracles:
        find_strategy(name, oracle=True)
    if rules.oracle_types and not any(find_strategy(name).uncertain for name in oracles):
        raise InputError(
            f"oracle_types is {', '.join(rules.oracle_types)}, which only oracles of uncertain boxes ask for; name one "
            f"of {', '.join(name for name, strategy in ORACLES.items() if strategy.uncertain)} as an oracle"
        )
    matching = [name for name in strategies if find_strategy(name).matches]
    if embeddings and not (matching and rules.match == "embedding"):
        raise InputError(
            f"{embeddings[0]}: embeddings are of use to intra-patient alone, where it matches by them; leave them out"
        )
    both = sorted(set(strategies) & set(oracles))
    if both:
        raise InputError(f"{both[0]} is asked for as a strategy and as an oracle; name it once")
    if oracles and truth is None:
        raise InputError(f"the oracle of {oracles[0]} needs the truth; give the file with all lesions")
    if strategies and not proposals:
        raise InputError(f"{strategies[0]} needs proposals; make them with `mmpluld propose`")
    if matching and rules.match == "embedding" and not embeddings:
        raise InputError(f"{matching[0]} needs embeddings; make them with `mmpluld embed`, or match by position")


def _check_types(types: Iterable[str], truth: CompleteTruth) -> None:
    """Refuse types of lesions that neither the truth nor DeepLesion has."""
    allowed = sorted(truth.types | {*LESION_TYPES.values()})
    for name in types:
        if name not in allowed:
            raise InputError(
                f"mining: oracle_types has {name!r}; lesions are of {', '.join(allowed)}{did_you_mean(name, allowed)}"
            )


def _lengths(annotations: AnnotationSet, pool: ProposalPool | None) -> dict[str, int]:
    """Number of slices of each volume: those examined, where there are proposals, else all in its range."""
    return {
        volume.id: int(pool.runs(volume.id)[:, 1].sum()) if pool and volume.id in pool else volume.num_slices
        for volume in annotations.volumes
    }


def count_boxes(name: str, annotations: AnnotationSet, lengths: dict[str, int], every: bool) -> dict[str, Any]:
    """The counts of Table IV.

    Args:
        name: Of the row.
        annotations: What is counted.
        lengths: Number of slices of each volume; needed if ``every``.
        every: Every slice is a sample; else those with a certain lesion are.

    Returns:
        ``strategy``; certain lesions, one for each volume that shows it; their 2D boxes; 2D boxes to be ignored that
        were mined; slices that are samples.
    """
    lesions = boxes = uncertain = slices = 0
    for volume, found in annotations.lesions_by_volume().items():
        certain = [lesion for lesion in found if not lesion.ignore]
        index = SliceIndex(certain)
        lesions += len(certain)
        boxes += len(index)
        uncertain += len(SliceIndex(lesion for lesion in found if lesion.ignore and lesion.origin == "mined"))
        slices += lengths[volume] if every else len(index.slices)
    return {
        "strategy": name, "lesions_3d": lesions, "boxes_2d": boxes, "uncertain_2d": uncertain, "slices": slices,
    }  # fmt: skip
