"""The text of a run's config, which mmengine formats anew each time it is asked for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.config import config as host

__all__ = ["remember_formatted"]


class _Remembering:
    """A formatter that gives its last result again for the same text and settings."""

    def __init__(self, formatter: Callable[..., Any]) -> None:
        self.formatter = formatter
        self.last: tuple[Any, Any] = (None, None)

    def __call__(self, text: str, **settings: Any) -> Any:
        if self.last[0] != (text, settings):
            self.last = (text, settings), self.formatter(text, **settings)
        return self.last[1]


def remember_formatted() -> None:
    """Let mmengine keep the config it formatted last: a run asks for the same one five times, a second or more each."""
    if not isinstance(host.FormatCode, _Remembering):
        host.FormatCode = _Remembering(host.FormatCode)
