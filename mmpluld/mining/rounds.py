"""What the header of a mined annotation file says of the rounds of mining that it comes from."""

from __future__ import annotations

from typing import Any

from mmpluld.errors import InputError
from mmpluld.inputs import sha256_of
from mmpluld.mining.strategy_table import ORACLES, STRATEGIES
from mmpluld.structures import AnnotationSet
from mmpluld.typing import StrPath

__all__ = ["mined_from", "mined_rounds"]


def mined_rounds(annotations: AnnotationSet, where: StrPath) -> list[dict[str, Any]]:
    """Each round, the earliest first; none of annotations that nobody mined.

    Raises:
        InputError: The header says something else there, or names a strategy that this version does not have.
    """
    history = annotations.dataset.get("mined", [])
    kinds = {"annotations_sha256": str, "strategies": list, "oracles": list}
    rounds = history if isinstance(history, list) else [history]
    if not all(isinstance(old, dict) and all(isinstance(old.get(key), kinds[key]) for key in kinds) for old in rounds):
        raise InputError(
            f"{where}: dataset.mined is not what `mmpluld mine` writes there; give a file that it wrote, or one without"
        )
    known = {"strategies": STRATEGIES, "oracles": ORACLES}
    unknown = {str(name) for old in rounds for kind in known for name in old[kind] if str(name) not in known[kind]}
    if unknown:
        raise InputError(
            f"{where}: dataset.mined names {', '.join(map(repr, sorted(unknown)))}; this version mines by "
            f"{', '.join(STRATEGIES)}; use the version that wrote the file"
        )
    return rounds


def mined_from(annotations: AnnotationSet, path: StrPath) -> list[str]:
    """SHA-256 of an annotation file and of those that it was mined from, in earlier rounds.

    Raises:
        InputError: As :func:`mined_rounds`.
    """
    return [sha256_of(path), *(entry["annotations_sha256"] for entry in mined_rounds(annotations, path))]
