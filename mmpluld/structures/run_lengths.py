"""COCO's compressed run lengths, as masks are stored in annotation files."""

from __future__ import annotations

__all__ = ["run_lengths"]


def run_lengths(counts: str) -> list[int]:
    """Lengths of the runs of zeros and ones in turn, column by column, of COCO's compressed text.

    The library that decodes masks leaves pixels that no run covers as they were in memory, so whoever reads a file
    compares the sum with the size of the slice.

    Raises:
        ValueError: The text is cut off, holds a character that is none of the code's, or a run below 0.

    Source: the format of T.-Y. Lin et al., "Microsoft COCO", 2014: 5 bits a character, the lowest first, from the
    fourth run on as the difference from the last but one.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            raise ValueError(f"a run of {value}")
        runs.append(value)
        value = shift = 0
    if shift:
        raise ValueError("cut off")
    return runs
