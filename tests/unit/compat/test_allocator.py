from __future__ import annotations

import platform

import pytest

from mmpluld.compat.allocator import tune_allocator


def test_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("MMPLULD_MALLOC_TUNING", "0")
    assert tune_allocator() is False


def test_does_nothing_without_glibc(monkeypatch):
    monkeypatch.delenv("MMPLULD_MALLOC_TUNING", raising=False)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert tune_allocator() is False


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibc_accepts_the_settings(monkeypatch):
    monkeypatch.delenv("MMPLULD_MALLOC_TUNING", raising=False)
    assert tune_allocator() is True
