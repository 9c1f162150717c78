"""Values of ``--cfg-options`` as they are written on a command line: what is meant, or a refusal.

mmengine's ``DictAction`` removes spaces and quotes everywhere, and fails on commas inside brackets of a text. Here
``[a, b]``, ``(1, 2)``, ``{key: value}`` and ``a,b`` are containers, a text in quotes is exactly what stands between
them, and every other text is kept as it is.
"""

from __future__ import annotations

import re
from typing import Any

from mmpluld.errors import InputError

__all__ = ["names_a_path", "parse_value", "written"]

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_QUOTES = ("'", '"')
_INTEGER = re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(_\d{3})+)")
_FLOAT = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)", re.IGNORECASE)
_PATH = re.compile(r"(.*_)?(root|file|dir|folder|path|prefix|checkpoint|load_from|experiment_name)")


def names_a_path(key: str) -> bool:
    """Whether the last part of a dotted key, such as ``data_root`` or ``ann_file``, takes a path or a name."""
    return _PATH.fullmatch(key.rpartition(".")[2]) is not None


def parse_value(key: str, text: str) -> Any:
    """The value that is written behind ``KEY=``.

    Args:
        key: Dotted place; one that takes a path (:func:`names_a_path`) takes its text as it is, commas and digits too.
        text: What follows the equals sign.

    Returns:
        A list, tuple, dict, number, truth value, None, or text.

    Raises:
        InputError: If the text is empty, its brackets or quotes do not match, or an element is missing.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="replace").decode()
        raise InputError(
            f"{key}={shown}: is not valid UTF-8, which configs are written in; rename what it names"
        ) from None
    try:
        if names_a_path(key):
            return _path(text)
        return _value(text, inside=False)
    except _NotWritten as error:
        raise InputError(f"{key}={text}: {error}; in quotes, {key}=\"'...'\", everything is text") from None


def written(text: str) -> str:
    """``text`` as the value of a key that takes a path must be written."""
    if text and _plain_path(text):
        return text
    quote = next((quote for quote in _QUOTES if quote not in text), None)
    if quote is None:
        raise InputError(f"{text}: has both kinds of quotes and stands for no option; rename the file")
    return f"{quote}{text}{quote}"


class _NotWritten(ValueError):
    """What is wrong with a text."""


def _plain_path(text: str) -> bool:
    return text != "None" and text[0] not in _QUOTES and not (text[0] in _CLOSING and _end(text, 0) == len(text))


def _path(text: str) -> Any:
    if not text:
        raise _NotWritten("is empty; give a path, or None")
    return text if _plain_path(text) else _value(text, inside=False)


def _value(text: str, inside: bool) -> Any:
    """The value of a whole text, or of an element inside brackets."""
    bare = text.strip()
    if not bare:
        raise _NotWritten("an element is missing" if inside else "is empty")
    if _is_whole(bare):
        if bare[0] in _QUOTES:
            return bare[1:-1]
        parts = _split(bare[1:-1], ",")
        if bare[0] == "{":
            return dict(_pair(part) for part in parts)
        elements = [_value(part, inside=True) for part in parts]
        return tuple(elements) if bare[0] == "(" else elements
    if bare[0] in _QUOTES and not inside and bare[0] not in bare[1:]:
        raise _NotWritten("a quote is not closed")
    if not inside and "," in bare:
        parts = _split(bare, ",")
        if len(parts) > 1 or bare.endswith(","):
            return [_value(part, inside=True) for part in parts]
    if bare[0] in "([{" or re.match(r"(dict|list|tuple|set)\(", bare):
        raise _NotWritten("is neither a text nor a container; write [a, b], (a, b) or {key: value}")
    return _single(bare, text if not inside else bare)


def _single(bare: str, text: str) -> Any:
    """A number, truth value or None, or the text as it is."""
    if bare.isascii():
        if _INTEGER.fullmatch(bare):
            return int(bare)
        if _FLOAT.fullmatch(bare):
            return float(bare)
    if bare.lower() in ("true", "false"):
        return bare.lower() == "true"
    return None if bare == "None" else text


def _pair(text: str) -> tuple[str, Any]:
    """A key and its value in ``{key: value}``."""
    parts = _split(text, ":", at_most=1)
    if len(parts) != 2:
        raise _NotWritten(f"{text.strip() or 'an element'!r} is no key: value")
    key = _value(parts[0], inside=True)
    if not isinstance(key, str):
        raise _NotWritten(f"the key {key!r} is no text")
    return key, _value(parts[1], inside=True)


def _is_whole(text: str) -> bool:
    """Whether a bracket or quote at the start is closed by the last character."""
    return len(text) > 1 and text[0] in (*_QUOTES, *_CLOSING) and _end(text, 0) == len(text)


def _end(text: str, start: int) -> int:
    """Place behind the element's quote or bracket that opens at ``start``; -1 if it is never closed."""
    if text[start] in _QUOTES:
        return text.find(text[start], start + 1) + 1 or -1
    expected = [_CLOSING[text[start]]]
    place = start + 1
    while place < len(text):
        character = text[place]
        if character in _QUOTES and text[:place].rstrip()[-1] in "([{,:":  # an apostrophe inside a word is none
            place = _end(text, place)
            if place < 0:
                return -1
            continue
        if character in _CLOSING:
            expected.append(_CLOSING[character])
        elif character in _CLOSING.values():
            if character != expected.pop():
                return -1
            if not expected:
                return place + 1
        place += 1
    return -1


def _split(text: str, separator: str, at_most: int = -1) -> list[str]:
    """The parts between separators that stand in no bracket and no quotes; one at the end may be left empty."""
    parts: list[str] = []
    begin = place = 0
    while place < len(text) and at_most != len(parts):
        character = text[place]
        if character in _CLOSING or (character in _QUOTES and not text[begin:place].strip()):
            place = _end(text, place)
            if place < 0:
                raise _NotWritten("brackets or quotes do not match")
            continue
        if character in _CLOSING.values():
            raise _NotWritten("brackets or quotes do not match")
        if character == separator:
            parts.append(text[begin:place])
            begin = place + 1
        place += 1
    rest = text[begin:]
    return [*parts, rest] if rest.strip() else parts
