"""The lines of a record's history that say which model made it, by which rules, and whether another network changed the
scores.

What is measured of a record hangs on them, so one that begins like ours and is not as we write it is refused, not
read as if it said less.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from mmpluld.errors import InputError
from mmpluld.typing import StrPath

__all__ = ["LinkingLine", "ModelLine", "RescoringLine", "short_digest"]

_DIGITS = 16
_DIGEST = rf"[0-9a-f]{{{_DIGITS}}}"
_START = "model "
_NAME = r"(?P<name>(?:(?!, weights | \(config ).)+)"
_CONFIG = rf"(?: \(config SHA-256 (?P<config>{_DIGEST})\))?"  # not in records of earlier versions
_MODEL = re.compile(rf"{_NAME}(?:{_CONFIG}, weights .+ \(SHA-256 (?P<digest>{_DIGEST})\))?", re.DOTALL)
_LINKED, _SHOWN = "2D boxes scored ", "; findings scored "
_RESCORED = "scores are "
_KINDS: dict[Literal["average", "alone"], str] = {
    "average": "the mean of the detector's and those of ",
    "alone": "those of ",
}


@dataclass(frozen=True)
class ModelLine:
    """A model and its weights.

    Attributes:
        name: That of the config.
        digest: First 16 hexadecimal digits of the SHA-256 of the file of weights; None where it is not known.
        config: The same of what decides in the config what is found; None where it is not known.
    """

    name: str
    digest: str | None
    config: str | None = None

    def __str__(self) -> str:
        return self.name if self.digest is None else f"{self.name}, weights with SHA-256 {self.digest}..."

    @staticmethod
    def text(name: str, config_sha256: str, file: str, sha256: str) -> str:
        """The line: name and digest of the config, name of the file of weights, and its SHA-256."""
        config = f"{name} (config SHA-256 {short_digest(config_sha256)})"
        return f"{_START}{config}, weights {file} (SHA-256 {short_digest(sha256)})"

    @classmethod
    def find(cls, history: Iterable[str] | None, source: StrPath) -> ModelLine | None:
        """The model that a history names, if it names one.

        Args:
            history: Lines.
            source: Whose they are, for messages.

        Raises:
            InputError: A line begins like this one, but is cut off or otherwise not as it should be.
        """
        told = _rest_of_line(history, _START)
        if told is None:
            return None
        parts = _MODEL.fullmatch(told)
        if parts is None:
            raise _misread(source, _START + told)
        return cls(**parts.groupdict())


@dataclass(frozen=True)
class LinkingLine:
    """Rules by which 2D boxes were linked, and which of the 3D boxes are findings.

    Attributes:
        rules: Those of linking, on which scores and numbers of findings depend.
        shown: From which score on a 3D box is a finding, and what else changes no other.
    """

    rules: str
    shown: str

    def __str__(self) -> str:
        return f"{_LINKED}{self.rules}{_SHOWN}{self.shown}"

    @classmethod
    def find(cls, history: Iterable[str] | None, source: StrPath) -> LinkingLine | None:
        """What a history says of it, None if it says nothing; arguments and errors as :meth:`ModelLine.find`."""
        told = _rest_of_line(history, _LINKED)
        if told is None:
            return None
        rules, _, shown = told.partition(_SHOWN)
        if not (rules and shown):
            raise _misread(source, _LINKED + told)
        return cls(rules, shown)


@dataclass(frozen=True)
class RescoringLine:
    """False-positive reduction that changed the scores of a record.

    Attributes:
        mode: ``average``: the mean of the detector's score and that of false-positive reduction; ``alone``: the latter.
        network: Which network it was, with digests.
    """

    mode: Literal["average", "alone"]
    network: str

    def __str__(self) -> str:
        return f"{_RESCORED}{_KINDS[self.mode]}{self.network}"

    @classmethod
    def find(cls, history: Iterable[str] | None, source: StrPath) -> RescoringLine | None:
        """What a history says of it, None if it says nothing; arguments and errors as :meth:`ModelLine.find`."""
        told = _rest_of_line(history, _RESCORED)
        if told is None:
            return None
        for mode, kind in _KINDS.items():
            if network := told[len(kind) :] if told.startswith(kind) else "":
                return cls(mode, network)
        raise _misread(source, _RESCORED + told)


def _rest_of_line(history: Iterable[str] | None, start: str) -> str | None:
    """What follows ``start`` in the first line of a history that begins so; None without one."""
    return next((line.removeprefix(start) for line in history or () if line.startswith(start)), None)


def _misread(source: StrPath, line: str) -> InputError:
    return InputError(
        f"{source}: its history says '{line}', which is cut off, changed or of another version; make the detections "
        "anew"
    )


def short_digest(sha256: str) -> str:
    """The first digits of a SHA-256, as records have them."""
    return sha256[:_DIGITS]
