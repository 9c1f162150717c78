"""Isolation of MMEngine's global scope, which every runner changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    """Look names up as a config with ``default_scope = 'mmpluld'`` does, and restore the former scope."""
    with DefaultScope.overwrite_default_scope("mmpluld"):
        yield
