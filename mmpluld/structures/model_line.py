"""The line of a record's history that says which model made it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ModelLine", "short_digest"]

_START = "model "
_WEIGHTS = re.compile(r"(?P<name>.*?), weights .* \(SHA-256 (?P<digest>[0-9a-f]+)\)", re.DOTALL)
_DIGITS = 16


@dataclass(frozen=True)
class ModelLine:
    """A model and its weights.

    Attributes:
        name: That of the config.
        digest: First 16 hexadecimal digits of the SHA-256 of the file of weights; None where it is not known.
    """

    name: str
    digest: str | None

    def __str__(self) -> str:
        return self.name if self.digest is None else f"{self.name}, weights with SHA-256 {self.digest}..."

    @staticmethod
    def text(name: str, file: str, sha256: str) -> str:
        """The line: name of the config, name of the file of weights, and its SHA-256."""
        return f"{_START}{name}, weights {file} (SHA-256 {short_digest(sha256)})"

    @classmethod
    def find(cls, history: Iterable[str] | None) -> ModelLine | None:
        """The model that a history names, if it names one."""
        line = next((line for line in history or () if line.startswith(_START)), None)
        if line is None:
            return None
        told = _WEIGHTS.fullmatch(line.removeprefix(_START))
        return cls(line.removeprefix(_START), None) if told is None else cls(told["name"], told["digest"])


def short_digest(sha256: str) -> str:
    """The first digits of a SHA-256, as records have them."""
    return sha256[:_DIGITS]
