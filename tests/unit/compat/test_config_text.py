from __future__ import annotations

from mmengine.config import Config
from mmengine.config import config as host

from mmpluld.compat.config_text import _Remembering, remember_formatted


def test_text_is_the_same_and_formatted_once(monkeypatch):
    calls = []
    original = getattr(host.FormatCode, "formatter", host.FormatCode)

    def counting(text, **settings):
        calls.append(text)
        return original(text, **settings)

    monkeypatch.setattr(host, "FormatCode", original)
    first, second = Config({"a": {"b": [1, 2]}, "c": "text"}), Config({"a": 1})
    wanted = first.pretty_text, second.pretty_text
    monkeypatch.setattr(host, "FormatCode", counting)
    remember_formatted()
    remember_formatted()
    assert isinstance(host.FormatCode, _Remembering)
    assert (first.pretty_text, first.pretty_text, second.pretty_text) == (wanted[0], *wanted)
    assert len(calls) == 2
